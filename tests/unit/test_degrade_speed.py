"""How long the simulator takes on a volume of HCP's size and how much memory it holds: `make test-speed`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not os.environ.get("IQT_SPEED"), reason="measures speed: make test-speed")

MEASURE = """
import resource, sys, time
import numpy as np
from iqt.degrade import LowField, apply, draw
from iqt.io.volumes import Volume

shape = (260, 311, 260)
axes = np.meshgrid(*[np.linspace(-1, 1, size, dtype=np.float32) for size in shape], indexing="ij", sparse=True)
radius = np.sqrt(sum(np.square(axis) for axis in axes))
tissues = {"WM": radius < 0.5, "GM": (radius >= 0.5) & (radius < 0.7), "CSF": (radius >= 0.7) & (radius < 0.8)}
tissues = {name: mask.astype(np.float32) for name, mask in tissues.items()}
data = 1000 * tissues["WM"] + 700 * tissues["GM"] + 200 * tissues["CSF"]
settings = LowField(preset=sys.argv[1])
start = time.perf_counter()
apply(Volume(data, np.diag([0.7, 0.7, 0.7, 1])), tissues, settings, draw(settings, 1, "sub-01"))
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


@pytest.mark.parametrize("preset", ["iqt-8x", "64mT"])
def test_a_volume_of_hcps_size_takes_under_20_s_and_3_gb(preset: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "workflow"), "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, preset], capture_output=True, text=True, env=environment, check=True
    )
    seconds, gigabytes = map(float, done.stdout.split())
    print(f"{preset}: {seconds:.1f} s, {gigabytes:.2f} GB")
    assert seconds < 20
    assert gigabytes < 3
