"""The configuration refuses what it does not know, and its manual is up to date."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from iqt.config import KINDS, Config, LowField, Section, parse_config, parse_section
from iqt.config.docs import json_schema, readme
from iqt.errors import UserError
from iqt.planning.plan import Plan


@pytest.mark.parametrize(
    ("raw", "parts"),
    [
        ({"nmae": "x"}, ["nmae", "unknown key", "did you mean name"]),
        ({"seed": -1}, ["seed = -1", "greater than or equal to 0"]),
        ({"cohort": {"split": {"train": "many"}}}, ["cohort.split.train", '"many"', "integer"]),
        ({"lowfield": {"main": {"thicknes": 3}}}, ["lowfield.main.thicknes", "did you mean thickness"]),
        ({"lowfield": {"other": {}}}, ["lowfield", "named main"]),
        ({"methods": {"unet": {"kind": "unet", "netwrok": {}}}}, ["methods.unet.netwrok", "did you mean network"]),
        ({"methods": {"a": {"kind": "spline"}}}, ["methods.a", "spline", "cubic"]),
        ({"methods": {"a": {"base": "b"}, "unet": {"kind": "unet"}}}, ["methods.a.base", "'b'", "unet"]),
        ({"methods": {"a": {"base": "b"}, "b": {"base": "a"}}}, ["circle"]),
        ({"methods": {"hq": {"kind": "cubic"}}}, ["hq", "reserved"]),
        ({"methods": {"a": {"kind": "unet", "patches": {"patch": 15}}}}, ["multiples of 4"]),
        ({"methods": {"a": {"kind": "unet", "training": {"steps": 7}}}}, ["steps 7", "validate_every 100"]),
        ({"methods": {"a": {"kind": "diffusion_iqt", "network": {"channels": 20}}}}, ["channels 20", "groups 8"]),
        (
            {"methods": {"a": {"kind": "unet", "network": {"channels": [8]}}}},
            ["methods.a.network.channels", "at least 2"],
        ),
        ({"methods": {"a": {"kind": "unet", "size_like": "b"}}}, ["methods.a.size_like 'b'", "trained method"]),
        ({"methods": {"a": {"kind": "esrgan", "adversarial": {"layers": 4}}}}, ["adversarial.layers 4", "48 voxels"]),
        ({"patches": {"patch": 12}, "methods": {"a": {"kind": "diffusion_iqt"}}}, ["multiples of", "network.tokens"]),
        ({"lowfield": {"main": {"snr_covariance": [[1, 2], [2, 1]]}}}, ["snr_covariance", "positive semi-definite"]),
    ],
)
def test_errors_name_the_key_the_value_and_what_is_allowed(raw: dict, parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        parse_config(raw, "my.yaml")
    message = str(caught.value)
    assert message.startswith("my.yaml")
    for part in parts:
        assert part in message


def test_every_problem_is_listed_at_once() -> None:
    with pytest.raises(UserError) as caught:
        parse_config({"seed": -1, "sed": 1, "cohort": {"split": {"val": 0}}}, "my.yaml")
    assert all(part in str(caught.value) for part in ("seed = -1", "sed: unknown key", "cohort.split.val = 0"))


def test_base_copies_an_entry_and_changes_what_it_names() -> None:
    config = parse_config(
        {
            "training": {"steps": 40, "validate_every": 20},
            "methods": {
                "mean": {"base": "single", "sampling": {"samples": 4}},
                "single": {"kind": "diffusion_iqt", "sampling": {"steps": 3}, "training": {"batch_size": 2}},
                "wide": {"base": "single", "network": {"channels": 64}},
                "cubic": {"kind": "cubic"},
            },
        },
        "my.yaml",
    )
    mean, wide = config.methods["mean"], config.methods["wide"]
    assert (mean.sampling.steps, mean.sampling.samples) == (3, 4)
    assert (wide.network.channels, wide.training.steps, wide.training.batch_size) == (64, 40, 2)
    assert Plan(config).model_of("single") == Plan(config).model_of("mean") == "single", (
        "entries that differ in sampling share a model"
    )
    assert Plan(config).models() == ["single", "wide"]
    assert Plan(config).model_of("cubic") is None


def test_a_models_name_depends_neither_on_the_order_nor_on_entries_with_a_base() -> None:
    kinds = {"b": {"kind": "unet"}, "a": {"kind": "unet"}, "a_wide": {"base": "a", "tiling": {"overlap": 8}}}
    for order in (["b", "a", "a_wide"], ["a_wide", "a", "b"]):
        plan = Plan(parse_config({"methods": {name: kinds[name] for name in order}}))
        assert [plan.model_of(name) for name in kinds] == ["a", "a", "a"]
    alone = Plan(parse_config({"methods": {name: kinds[name] for name in ("a_wide", "a")}}))
    assert alone.models() == ["a"]
    assert Plan(parse_config({"methods": {**kinds, "unet": {"kind": "unet"}}})).models() == ["unet"]


def test_sampling_is_not_part_of_what_weights_depend_on() -> None:
    config = Config()
    trained, used = Plan(config).trained_by("diffusion_iqt"), Plan(config).used_by("diffusion_iqt")
    assert set(trained) == {"kind", "network", "diffusion", "target", "trained_on", "patches", "training"}
    assert set(used) == {"kind", "sampling", "tiling"}


def test_a_method_may_be_trained_on_another_low_field_set() -> None:
    methods = {"unet": {"kind": "unet"}, "other": {"base": "unet", "trained_on": "thick"}}
    sets = {"main": {}, "thick": {"thickness": 6}, "noisy": {"shift": {"snr": 0.5}}}
    config = parse_config({"methods": methods, "lowfield": sets})
    assert config.training_sets == ("main", "thick"), "of these everybody is acquired"
    assert Plan(config).models() == ["unet", "other"], "other acquisitions, other weights"
    with pytest.raises(UserError, match=r"methods.other.trained_on 'thick': no low-field set"):
        parse_config({"methods": methods, "lowfield": {"main": {}}})
    flow = {"flow": {"kind": "flow", "start": "unet", "trained_on": "thick"}}
    with pytest.raises(UserError, match=r"methods.flow.trained_on thick must be its start's, main of unet"):
        parse_config({"methods": methods | flow, "lowfield": sets})


@pytest.mark.parametrize("name", ["config.yaml", "hcp.yaml", "ood.yaml", "smoke.yaml"])
def test_shipped_configurations_are_valid(repository: Path, name: str) -> None:
    raw = yaml.safe_load((repository / "config" / name).read_text())
    assert parse_config(raw, name).name == raw["name"]


def test_manual_and_schema_are_what_the_models_say(repository: Path) -> None:
    hint = "run `make docs`"
    assert (repository / "config" / "README.md").read_text() == readme(), hint
    assert (repository / "config" / "schema.json").read_text() == json_schema(), hint


def test_every_key_is_explained() -> None:
    def walk(model: type[Section]) -> None:
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name} has no docstring"
            if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
                walk(field.annotation)

    for model in (Config, LowField, *KINDS.values()):
        walk(model)


def test_a_section_comes_from_json_a_file_or_its_defaults(tmp_path: Path) -> None:
    path = tmp_path / "lowfield.yaml"
    path.write_text("thickness: 6\ngap: 2\n")
    assert parse_section(LowField, None) == LowField()
    assert parse_section(LowField, '{"thickness": 6, "gap": 2}') == parse_section(LowField, str(path))
    with pytest.raises(UserError, match="thicknes"):
        parse_section(LowField, '{"thicknes": 6}')
    with pytest.raises(UserError, match="neither JSON nor a file"):
        parse_section(LowField, str(tmp_path / "absent.yaml"))


@pytest.mark.parametrize(
    ("cohort", "main", "message"),
    [
        ({}, {"registration": "rigid"}, "the cohort brings no low-field scans; use source bids or folder"),
        (
            {"source": "folder", "folder": {"path": "x"}},
            {"registration": "rigid"},
            "the cohort brings no low-field scans; set cohort.folder.lowfield",
        ),
        (
            {"source": "folder", "folder": {"path": "x", "lowfield": "*"}},
            {"registration": "rigid", "thickness": 5},
            "thickness is of simulated ones",
        ),
    ],
)
def test_real_low_field_scans_need_a_cohort_that_has_them(cohort: dict, main: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_config({"cohort": cohort, "lowfield": {"main": main}})


SCANS = ["sub-02", "sub-01_ses-2", "sub-01_ses-1", "sub-10", "sub-116120"]


@pytest.mark.parametrize(
    ("people", "shown"),
    [
        (2, ["sub-01_ses-1", "sub-02"]),
        (9, ["sub-01_ses-1", "sub-02", "sub-10", "sub-116120"]),
        (["10", "sub-01"], ["sub-10", "sub-01_ses-1"]),
        (["sub-01_ses-2", "02", "sub-02"], ["sub-01_ses-2", "sub-02"]),
        ([116120], ["sub-116120"]),
    ],
)
def test_whom_the_report_shows_is_a_number_or_named(people: object, shown: list[str]) -> None:
    assert parse_config({"report": {"people": people}}).report.shown(SCANS) == shown


@pytest.mark.parametrize("people", [0, [], "sub-01", True, [1.5]])
def test_whom_the_report_shows_is_a_number_or_a_list_of_ids(people: object) -> None:
    with pytest.raises(UserError, match=r"report\.people"):
        parse_config({"report": {"people": people}})


def test_an_unknown_person_of_the_report_is_named_with_the_remedy() -> None:
    report = parse_config({"report": {"people": ["10", "11", "sub-02_ses-9"]}}).report
    with pytest.raises(
        UserError, match=r"report\.people: sub-11, sub-02_ses-9 .*choose of the 4: sub-01, sub-02, sub-10"
    ):
        report.shown(SCANS)
