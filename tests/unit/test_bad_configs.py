"""Configurations that cannot be meant: refused with the key and its value."""

from __future__ import annotations

from pathlib import Path

import pytest

from iqt.config import LowField, parse_config, parse_section, read_config, require_plain_numbers
from iqt.errors import UserError

CONFIGS = {
    "octal id": ({"cohort": {"source": "bids", "bids": {"path": "x", "subjects": [8]}}}, "write the id in quotes"),
    "id of one digit": ({"cohort": {"source": "bids", "bids": {"path": "x"}, "split": {"test": [1]}}}, "in quotes"),
    "id that is true": ({"cohort": {"source": "bids", "bids": {"path": "x", "subjects": [True]}}}, "in quotes"),
    "id with an accent": ({"cohort": {"source": "bids", "bids": {"path": "x", "subjects": ["é1"]}}}, "subjects"),
    "id with a power": ({"cohort": {"source": "bids", "bids": {"path": "x", "subjects": ["a²"]}}}, "subjects"),
    "draws": ({"lowfield": {"main": {"draws": 10**9}}}, "less than or equal to 1000"),
    "batches": ({"compute": {"batches": 10**9}}, "less than or equal to 10000"),
    "people": ({"cohort": {"split": {"train": 10**9}}}, "100000"),
    "network": ({"methods": {"unet": {"kind": "unet", "network": {"channels": [10**6, 10**6]}}}}, "4096"),
    "blocks": ({"methods": {"d": {"kind": "diffusion_iqt", "network": {"blocks": 10**9}}}}, "64"),
    "experiment": (
        {
            "parcellate": {"engine": "none"},
            "experiments": {"a": {"title": "t", "question": "q", "methods": ["cubic"], "metrics": ["miou"]}},
        },
        "parcellate.engine is none",
    ),
    "shipped, T2w": ({"suffix": "T2w", "cohort": {"source": "bids", "bids": {"path": "x"}}}, "weights: train"),
    "shipped, own size": (
        {"parcellate": {"builtin": {"filters": 8}}},
        "builtin.filters: the shipped",
    ),
    "shipped, other table": ({"parcellate": {"labels": "template"}}, "the shipped parcellator has those of aseg"),
    "trained without labels": (
        {
            "cohort": {"source": "bids", "bids": {"path": "x", "labels": None}},
            "parcellate": {"builtin": {"weights": "train"}},
        },
        "weights: shipped",
    ),
    "image": ({"parcellate": {"fastsurfer": {"image": "docker://{x}"}}}, "braces"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_configuration_that_cannot_be_meant_is_refused(case: str) -> None:
    raw, words = CONFIGS[case]
    with pytest.raises(UserError) as error:
        parse_config(raw)
    assert words in str(error.value)


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    s3 = {"endpoint": "http://me:hunter2@localhost:9000"}
    with pytest.raises(UserError, match="a profile") as error:
        parse_config({"cohort": {"source": "hcp", "hcp": {"s3": s3}}})
    assert "hunter2" not in str(error.value)


def test_the_value_of_an_unknown_key_is_not_repeated() -> None:
    """It may be a secret that somebody took for a key of ours."""
    with pytest.raises(UserError, match=r"cohort\.hcp\.s3\.aws_secret_access_key: unknown key") as error:
        parse_config({"cohort": {"source": "hcp", "hcp": {"s3": {"aws_secret_access_key": "wJalrXUtn"}}}})
    assert "wJalr" not in str(error.value)


def test_what_would_have_no_effect_is_refused() -> None:
    flow = {"kind": "flow", "start": "unet", "noise": 0, "sampling": {"samples": 4}}
    for section, words in (
        ({"parcellate": {"fastsurfer": {"device": "cuda"}}}, "no effect with engine builtin"),
        ({"parcellate": {"engine": "none", "labels": "aseg"}}, "nothing is labelled with engine none"),
        ({"methods": {"unet": {"kind": "unet"}, "flow": flow}}, "all alike with noise 0"),
    ):
        with pytest.raises(UserError, match=words):
            parse_config(section)


def test_quoted_ids_keep_their_zeros() -> None:
    raw = {"cohort": {"source": "bids", "bids": {"path": "x", "subjects": ["001", "sub-010", 100307]}}}
    assert parse_config(raw).cohort.bids.subjects == ["001", "010", "100307"]


@pytest.mark.parametrize("written", ["01003077", "0x186A0", "190:20:30", "-010"])
def test_a_number_that_would_be_read_as_another_is_refused_with_its_line(tmp_path: Path, written: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"name: a\ncohort:\n  split: {{train: [{written}, 100307]}}\n")
    with pytest.raises(UserError, match=f"c.yaml: line 3: {written} would be read as the number"):
        read_config(path)


@pytest.mark.parametrize("written", ["100307", "'01003077'", "08", "1_000", "0", "-5", "2.0e-3", "1e5"])
def test_numbers_as_people_write_them_are_left_alone(tmp_path: Path, written: str) -> None:
    (tmp_path / "c.yaml").write_text(f"a: [{written}]\n# 010 in a remark\nb: 'text with 010'\n")
    require_plain_numbers(tmp_path / "c.yaml")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-8-sig"])
def test_a_configuration_in_another_encoding_is_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "c.yaml").write_bytes("cohort: {downloads: Möhren}\n".encode(encoding))
    assert read_config(tmp_path / "c.yaml").cohort.downloads == "Möhren"
    (tmp_path / "s.yaml").write_bytes("thickness: 4 # für Anna\n".encode(encoding))
    assert parse_section(LowField, str(tmp_path / "s.yaml")).thickness == 4


@pytest.mark.parametrize(
    ("text", "words"), [("[" * 5000, "nested too deeply|not readable"), ("a: " + "9" * 5000, "not readable as YAML")]
)
def test_yaml_that_cannot_be_meant_ends_in_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UserError, match=words):
        read_config(tmp_path / "c.yaml")


@pytest.mark.parametrize("raw", [{"seeds": list(range(1000))}, {"seed": 10**30}, {"report": {"people": 10**9}}])
def test_counts_have_upper_bounds(raw: dict) -> None:
    with pytest.raises(UserError, match="configuration is not valid"):
        parse_config(raw)
