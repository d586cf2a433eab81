"""`iqt bench gpu`: a session that loses nothing by a step that fails, and its bundle where little is installed."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from packaging.requirements import Requirement
from typer.testing import CliRunner

from iqt.bench.gpu import agreement as agreeing
from iqt.bench.gpu import bundle as bundling
from iqt.bench.gpu.agreement import agreement, device_difference, psnr, resume_difference, save_random_model
from iqt.bench.gpu.bars import BARS
from iqt.bench.gpu.bundle import make_bundle
from iqt.bench.gpu.data import PARTICIPANTS, pack_store, store_of, template_store, unpack_store
from iqt.bench.gpu.page import write_page
from iqt.bench.gpu.session import LEAST_SECONDS, STEPS, WORK, finite, problems, run_session, run_step
from iqt.bench.gpu.setup import TOY, Setup, with_random_weights
from iqt.cli import app
from iqt.enhance.models import Enhancer
from iqt.errors import UserError
from iqt.io.files import read_json, read_table
from iqt.methods.diffusion_iqt import DiffusionIQTMethod
from iqt.training.store import open_store

THERE = ("torch", "numpy", "scipy", "lightning", "safetensors", "pandas")
"""What the machine with the GPU has."""
GOOD = {"float32": 0.0, "tensorfloat32": 0.0, "bfloat16_psnr": 60.0, "repeat": 0.0, "resume": 0.0}


def setup_of(tmp_path: Path) -> Setup:
    rng, mask = np.random.default_rng(0), np.zeros((40, 40, 40), bool)
    mask[8:32, 8:32, 8:32] = True
    np.savez(tmp_path / "volume.npz", data=rng.standard_normal(mask.shape).astype(np.float16) * mask, mask=mask)
    return Setup(
        tmp_path,
        tmp_path / "none.yaml",
        tmp_path / "volume.npz",
        tmp_path / "no-store",
        tmp_path / "none.tsv",
        toy=True,
    )


def test_every_step_is_in_the_order_and_can_be_run() -> None:
    assert [step.name for step in STEPS] == ["machine", "agreement", "step", "volume", "compiled", "training"]
    assert {step.name for step in STEPS} == set(WORK)
    assert STEPS[-1].share is None
    assert sum(step.share for step in STEPS[:-1]) < 0.75, "a quarter at least is for training"


def test_a_step_that_fails_says_why_and_keeps_what_it_measured(tmp_path: Path) -> None:
    found = run_step("training", setup_of(tmp_path), 60)
    assert found["status"].startswith("failed: UserError: ")
    assert "none.tsv" in found["status"]
    assert problems({"steps": {"training": found, "agreement": GOOD | {"status": "ok"}}}) == [
        f"training: {found['status']}"
    ]


@pytest.mark.slow
def test_a_step_that_takes_too_long_is_stopped_and_is_no_fault(tmp_path: Path) -> None:
    setup, store = setup_of(tmp_path), template_store(setup_of(tmp_path).volume, tmp_path / "template")
    setup = dataclasses.replace(setup, store=store, participants=store / PARTICIPANTS)
    found = run_step("training", setup, LEAST_SECONDS)  # two networks, each trained for three seconds and more
    assert found["status"] == f"stopped after {LEAST_SECONDS} s"
    assert found["batch_size"] == 2, "what it had measured is kept"
    assert problems({"steps": {"training": found, "agreement": {"status": "ok", **GOOD}}}) == []


def test_a_step_without_time_is_not_begun(tmp_path: Path) -> None:
    assert run_step("step", setup_of(tmp_path), 1)["status"] == "not begun: no time was left"


def test_figures_outside_their_bars_are_named_and_shown(tmp_path: Path) -> None:
    figures = {"float32": 0.5, "bfloat16_psnr": 12.0, "repeat": 0.0, "resume": None}
    results = {
        "date": "2026-01-01", "iqt": "0", "command": "iqt bench gpu", "toy": False, "trained_on": "nothing",
        "steps": {"machine": {"status": "ok"}, "agreement": {"status": "ok", **figures}},
    }  # fmt: skip
    found = problems(results)
    assert len(found) == 4
    assert "0.5, and 0.001 is the bar" in found[0]
    assert found[1].startswith("not measured: ")
    assert "12, and 30 is the bar" in found[2]
    assert "not finite, and 0.05 is the bar" in found[3]
    write_page(tmp_path / "gpu.md", results)
    page = (tmp_path / "gpu.md").read_text()
    assert page.count("**missed**") == 4
    assert page.count("| met |") == 1


def test_a_figure_that_is_not_finite_is_kept_as_such() -> None:
    measured = {"a": float("nan"), "rows": [{"b": float("inf"), "c": 1.5}], "d": 2}
    assert finite(measured) == {"a": None, "rows": [{"b": None, "c": 1.5}], "d": 2}


def test_a_page_is_written_of_whatever_was_measured(tmp_path: Path) -> None:
    results = {"date": "", "iqt": "0", "command": "", "toy": False, "trained_on": ""}
    steps = {step.name: {"status": "stopped after 1 s"} for step in STEPS}
    write_page(tmp_path / "gpu.md", {**results, "steps": steps})
    page = (tmp_path / "gpu.md").read_text()
    assert page.count("stopped after 1 s") == len(STEPS)
    write_page(tmp_path / "gpu.md", {**results, "steps": {"machine": {"status": "ok", "gpu": "a card"}}})


def test_a_configuration_without_the_entries_is_named_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("methods: {cubic: {kind: cubic}}\n")
    with pytest.raises(UserError, match=r"c\.yaml: has no entry methods\.diffusion_iqt"):
        run_session(tmp_path / "out", tmp_path / "c.yaml", 8, False, setup_of(tmp_path).volume)
    (tmp_path / "c.yaml").write_text(
        "methods: {unet: {kind: unet}, diffusion_iqt: {kind: diffusion_iqt, start: unet}}\n"
    )
    with pytest.raises(UserError, match=r"c\.yaml: methods\.diffusion_iqt starts from another model"):
        run_session(tmp_path / "out", tmp_path / "c.yaml", 8, False, setup_of(tmp_path).volume)
    (tmp_path / "bad.npz").write_bytes(b"no volume")
    with pytest.raises(UserError, match=r"bad\.npz: no volume of a bundle"):
        run_session(tmp_path / "out", tmp_path / "c.yaml", 8, True, tmp_path / "bad.npz")


def test_without_a_gpu_the_command_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done = CliRunner().invoke(app, ["bench", "gpu", "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, UserError)
    assert "--check" in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_a_networks_output_depends_on_its_weights_before_it_is_compared() -> None:
    """A fresh diffusion model answers zero, which any device gives."""
    method = DiffusionIQTMethod.model_validate({**TOY["methods"]["diffusion_iqt"], "patches": TOY["patches"]})
    arguments = method.inputs(torch.randn(1, 1, *method.patches.region))
    assert not method.build().eval()(*arguments).any()
    assert with_random_weights(method.build(), 1).eval()(*arguments).std() > 0.01


def run_of_template(tmp_path: Path) -> Path:
    """A run's folder with a store of copies of a volume."""
    store = template_store(setup_of(tmp_path).volume, tmp_path / "template")
    run = tmp_path / "run"
    (run / "store").mkdir(parents=True)
    (run / "cohort").mkdir()
    store.rename(run / "store" / "main")
    (run / "store" / "main" / PARTICIPANTS).rename(run / "cohort" / PARTICIPANTS)
    return run


def test_a_packed_store_is_read_as_the_one_it_was_packed_from(tmp_path: Path) -> None:
    run = run_of_template(tmp_path)
    counts = pack_store(run, tmp_path / "store.zip", 60e6)
    assert counts == {"train": 2, "val": 1}
    assert (tmp_path / "store.zip").stat().st_size < 60e6
    unpacked = unpack_store(tmp_path / "store.zip", tmp_path / "unpacked")
    assert {row["scan"] for row in read_table(unpacked / PARTICIPANTS)} == {"sub-01", "sub-02", "sub-03"}
    for split in counts:
        for before, after in zip(
            open_store(*store_of(run), split),
            open_store(unpacked, unpacked / PARTICIPANTS, split),
            strict=True,
        ):
            np.testing.assert_array_equal(before.pair, after.pair)
            np.testing.assert_array_equal(before.mask, after.mask)
    assert "template" not in "".join(path.name for path in unpacked.iterdir())


def test_a_store_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="2 and 1 are needed"):
        pack_store(run_of_template(tmp_path), tmp_path / "store.zip", 1000)
    with pytest.raises(UserError, match="store/main: no such file or folder; name the folder of a run"):
        pack_store(tmp_path / "nothing", tmp_path / "store.zip", 60e6)
    assert not (tmp_path / "store.zip").exists()


def test_a_damaged_pack_is_named(tmp_path: Path) -> None:
    path = tmp_path / "store.zip"
    path.write_bytes(b"nothing of a ZIP")
    with pytest.raises(UserError, match=r"store\.zip: not a packed store"):
        unpack_store(path, tmp_path / "unpacked")
    pack_store(run_of_template(tmp_path), path, 60e6)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 2000] = bytes(2000)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"store\.zip: not a packed store"):
        unpack_store(path, tmp_path / "unpacked")


def bare_python(folder: Path) -> Path:
    """A Python that can import what the machine with the GPU has, with all that these require, and nothing else."""
    found: dict[str, metadata.Distribution] = {}
    waiting = list(THERE)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        try:
            found.setdefault(name, package := metadata.distribution(name))
        except metadata.PackageNotFoundError:
            continue
        needs = [Requirement(text) for text in package.requires or []]
        wanted = [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
        waiting += [need for need in wanted if re.sub(r"[-_.]+", "-", need).lower() not in found]
    packages = folder / "site"
    packages.mkdir(parents=True)
    for package in found.values():
        for top in {file.parts[0] for file in package.files} - {"..", "__pycache__"}:
            if not (packages / top).exists():
                (packages / top).symlink_to(package.locate_file(top))
    script = folder / "python"
    script.write_text(
        f'#!/bin/sh\nPYTHONPATH="${{PYTHONPATH:+$PYTHONPATH:}}{packages}" exec {sys.executable} -S "$@"\n'
    )
    script.chmod(0o755)
    return script


@pytest.mark.slow
def test_a_bundle_runs_where_torch_and_little_else_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = np.zeros((96, 96, 96), np.float16)
    small[24:72, 24:72, 24:72] = np.random.default_rng(0).standard_normal((48, 48, 48))

    def write(out: Path) -> None:
        np.savez_compressed(out, data=small, mask=small != 0)

    monkeypatch.setattr(bundling, "write_template_volume", write)
    made = tmp_path / "a bundle"
    size, counts = make_bundle(made, Path("config/openneuro-full.yaml"), run_of_template(tmp_path), pythons=())
    assert size < bundling.LIMIT
    assert counts == {"train": 2, "val": 1}
    assert (made / "store.zip").stat().st_size > 10_000
    python = bare_python(tmp_path / "bare")
    assert subprocess.run([python, "-c", "import pydantic"], capture_output=True).returncode
    out = tmp_path / "out"
    whole = subprocess.run(["sh", made / "start.sh"], capture_output=True, text=True, env={"PYTHON": "/bin/false"})
    assert (whole.returncode, "Needed here: torch" in whole.stderr) == (1, True)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"PYTHON": str(python)}
    said = subprocess.run(["sh", made / "start.sh", "--help"], capture_output=True, text=True, env=environment)
    assert (said.returncode, said.stderr) == (0, "")
    command = ["sh", made / "start.sh", "--check", "--minutes", "10", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    results = read_json(out / "gpu.json")
    assert {name: step["status"] for name, step in results["steps"].items()} == {step.name: "ok" for step in STEPS}
    assert set(BARS) <= set(results["steps"]["agreement"])
    assert results["trained_on"] == "real scans", "the packed ones"
    assert len(results["steps"]["step"]["rows"]) == 7
    assert all("convolutions_seconds" in row for row in results["steps"]["step"]["rows"])
    assert [cost["name"] for cost in results["steps"]["volume"]["costs"]][1] == "MONAI, DDIM 20"
    for name in ("diffusion_iqt", "unet"):
        assert results["steps"]["training"][name]["val_psnr"] > 0
    assert "At toy size" in done.stdout


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use")
def test_a_gpu_computes_what_a_cpu_does(tmp_path: Path) -> None:
    figures: dict[str, float] = {}
    for part in agreement(setup_of(tmp_path)):
        figures |= part
    assert set(figures) == set(BARS)
    assert {name: value for name, value in figures.items() if not BARS[name].met(value)} == {}


def test_a_device_agrees_with_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreeing, "best_device", lambda: torch.device("cpu"))
    assert device_difference(setup_of(tmp_path).diffusion, tf32=False) == 0


def test_unrelated_results_miss_the_bar(tmp_path: Path) -> None:
    setup = setup_of(tmp_path)
    save_random_model(tmp_path / "model", setup)
    usage = {"kind": "diffusion_iqt", "sampling": setup.diffusion.sampling.model_dump()}
    enhancer = Enhancer(tmp_path / "model", usage, "float32")
    one, other = (enhancer(torch.zeros(16, 16, 16), seed).mean for seed in (1, 2))
    assert not BARS["bfloat16_psnr"].met(psnr(one, other))
    assert BARS["bfloat16_psnr"].met(psnr(one, one + 0.001))


@pytest.mark.slow
def test_a_resumed_training_is_told_from_one_that_lost_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, bar = setup_of(tmp_path).diffusion, BARS["resume"]
    assert resume_difference(method, tmp_path / "resume") == 0
    load = torch.load

    def without_moments(*args, **kwargs):
        state = load(*args, **kwargs)
        for each in state["optimizer_states"]:
            each["state"] = {}
        return state

    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", without_moments)
        assert not bar.met(resume_difference(method, tmp_path / "resume"))
    calls = itertools.count()
    monkeypatch.setattr("iqt.training.fit.seed_of", lambda *parts: next(calls))
    assert not bar.met(resume_difference(method, tmp_path / "resume")), "other noise after resuming"
