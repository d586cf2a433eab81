"""A new kind of method is one file: the configuration knows it, it is trained, used and reported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from test_cohort_rules import snakemake

from iqt.io.files import read_json, read_table

pytestmark = pytest.mark.slow

TOY = """
\"\"\"A single convolution, which a test adds.\"\"\"

from __future__ import annotations

from typing import Literal

from iqt.methods.base import Learned


class Convolution(Learned):
    \"\"\"A single convolution.\"\"\"

    kind: Literal["convolution"] = "convolution"
    \"\"\"Kind of method.\"\"\"
    kernel: Literal[1, 3, 5] = 3
    \"\"\"Edge of the kernel.\"\"\"

    def build(self):
        from torch import nn

        return nn.Conv3d(1, 1, self.kernel, padding="same")


METHODS = (Convolution,)
"""


def test_a_new_kind_is_one_file(workflow: Path) -> None:
    (workflow / "workflow" / "iqt" / "methods" / "convolution.py").write_text(TOY)
    config = yaml.safe_load((workflow / "config" / "smoke.yaml").read_text())
    config["name"] = "source"
    config["methods"] = {"cubic": {"kind": "cubic"}, "own": {"kind": "convolution", "kernel": 5}}
    config["parcellate"] = {"engine": "none"}
    (workflow / "source.yaml").write_text(yaml.safe_dump(config))
    done = snakemake(workflow, "results/source/tables/benchmark.csv")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row["method"]: row for row in read_table(workflow / "results/source/tables/benchmark.csv")}
    assert rows["own"]["n_failed"] == "0"
    assert float(rows["own"]["psnr"]) > 0
    card = read_json(workflow / "results/source/models/own/seed-1/model.json")
    assert (card["kind"], card["n_parameters"]) == ("convolution", 126)
    words = ["iqt", "describe", "--config", "source.yaml", "--method", "own"]
    code = f"import sys; sys.argv = {words}; from iqt.cli import main; main()"
    described = subprocess.run(
        [sys.executable, "-c", code], cwd=workflow, env={"PYTHONPATH": "workflow"}, capture_output=True, text=True
    )
    assert "parameters                   126" in described.stdout, described.stderr
    config["methods"]["own"]["kernel"] = 4
    (workflow / "source.yaml").write_text(yaml.safe_dump(config))
    refused = snakemake(workflow, "--dry-run")
    assert refused.returncode != 0
    assert "methods.own.kernel = 4" in refused.stdout + refused.stderr
