"""`iqt bench gpu`: a session that loses nothing by a step that fails, and its bundle where little is installed."""

from __future__ import annotations

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

from iqt.bench.gpu import bundle as bundling
from iqt.bench.gpu.agreement import agreement, device_difference, resume_difference
from iqt.bench.gpu.bars import BARS
from iqt.bench.gpu.bundle import make_bundle
from iqt.bench.gpu.data import PARTICIPANTS, pack_store, store_of, template_store, unpack_store
from iqt.bench.gpu.page import write_page
from iqt.bench.gpu.session import STEPS, WORK, problems, run_step
from iqt.bench.gpu.setup import TOY, Setup, with_random_weights
from iqt.cli import app
from iqt.errors import UserError
from iqt.io.files import read_json, read_table
from iqt.methods.diffusion_iqt import DiffusionIQTMethod
from iqt.training.store import open_store

THERE = ("torch", "numpy", "scipy", "lightning", "safetensors", "pandas")
"""What the machine with the GPU has."""


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
    assert problems({"steps": {"training": found}}) == [f"training: {found['status']}"]


def test_a_step_that_takes_too_long_is_stopped_and_is_no_fault(tmp_path: Path) -> None:
    found = run_step("agreement", setup_of(tmp_path), 5)  # importing torch and lightning alone takes most of it
    assert found["status"] == "stopped after 5 s"
    assert found["seconds"] < 20
    assert problems({"steps": {"agreement": found}}) == []


def test_a_step_without_time_is_not_begun(tmp_path: Path) -> None:
    assert run_step("step", setup_of(tmp_path), 1)["status"] == "not begun: no time was left"


def test_figures_outside_their_bars_are_named_and_shown(tmp_path: Path) -> None:
    figures = {"float32": 0.5, "bfloat16_psnr": 12.0, "repeat": 0.0}
    results = {
        "date": "2026-01-01", "iqt": "0", "minutes": 8, "toy": False, "trained_on": "nothing",
        "steps": {"machine": {"status": "ok"}, "agreement": {"status": "ok", **figures}},
    }  # fmt: skip
    found = problems(results)
    assert len(found) == 2
    assert "0.5, which is outside 0.001" in found[0]
    assert "12, which is outside 30" in found[1]
    write_page(tmp_path / "gpu.md", results)
    page = (tmp_path / "gpu.md").read_text()
    assert page.count("**missed**") == 2
    assert page.count("| met |") == 1


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
    (tmp_path / "store.zip").write_bytes(b"nothing of a ZIP")
    with pytest.raises(UserError, match=r"store\.zip: not a packed store"):
        unpack_store(tmp_path / "store.zip", tmp_path / "unpacked")


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
    size = make_bundle(made, Path("config/openneuro-full.yaml"), run_of_template(tmp_path), pythons=())
    assert size < bundling.LIMIT
    assert (made / "store.zip").stat().st_size > 10_000
    python = bare_python(tmp_path / "bare")
    assert subprocess.run([python, "-c", "import pydantic"], capture_output=True).returncode
    out = tmp_path / "out"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"PYTHON": str(python)}
    command = ["sh", made / "start.sh", "--check", "--minutes", "4", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    results = read_json(out / "gpu.json")
    assert {name: step["status"] for name, step in results["steps"].items()} == {step.name: "ok" for step in STEPS}
    assert set(BARS) <= set(results["steps"]["agreement"])
    assert len(results["steps"]["step"]["rows"]) == 6
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


def test_differences_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What compares a device with itself gives zero, and more where something changes on the way."""
    method = setup_of(tmp_path).diffusion
    assert device_difference(method, tf32=False) == 0
    assert resume_difference(method, tmp_path / "resume") == 0
    monkeypatch.setattr("iqt.training.fit.seed_of", lambda *parts: int(torch.randint(1 << 30, ()).item()))
    assert resume_difference(method, tmp_path / "resume") > 0
