"""What `make bench-speed` counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from iqt.config import DiffusionIQTMethod
from iqt.enhance import bench
from iqt.enhance.bench import STRIDE, authors_tiles, bench_speed, halo_convolution, template_mask
from iqt.networks.cross_batch import PatchConv3d, PatchGrid


@pytest.mark.parametrize("stride", [1, 2])
def test_padding_patch_by_patch_is_the_convolution_on_the_merged_region(stride: int) -> None:
    torch.manual_seed(0)
    convolution, features = PatchConv3d(3, 5, 3, cross=True, stride=stride), torch.randn(2, 3, 8, 12, 4)
    grid = PatchGrid.of(features.shape, (4, 4, 4))
    expected = convolution(features, grid)
    torch.testing.assert_close(halo_convolution(convolution, features, grid), expected, rtol=1e-4, atol=1e-5)


def test_the_authors_plan_has_216_tiles_of_which_those_with_brain_are_run() -> None:
    assert len(authors_tiles(np.ones((256,) * 3, bool), (96,) * 3)) == 216
    mask = template_mask()
    assert 1.2e6 < mask.sum() < 2.3e6
    kept = authors_tiles(mask, (96,) * 3)
    assert 50 < len(kept) < 216
    assert all(box[0].start % STRIDE == 0 for box in kept)


def test_costs_are_those_of_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.zeros((64,) * 3, bool)
    mask[20:40, 20:40, 20:40] = True
    monkeypatch.setattr(bench, "template_mask", lambda: mask)
    network = {
        "channels": 8, "multipliers": (1,), "blocks": 1, "heads": 1, "head_dim": 4, "stem": 1, "tokens": (2,),
    }  # fmt: skip
    method = DiffusionIQTMethod(network=network, patches={"patch": 8, "grid": (2, 2, 2)})
    theirs, equal, recommended = bench_speed(method, 2, tmp_path / "speed.md", "float32")
    assert (theirs.calls, equal.calls, recommended.calls) == (20, 20, 2)
    # The brain with its margin spans 28 voxels: in one piece of 32, which holds two regions of 16 an axis.
    assert equal.tiles == 8
    assert theirs.total_macs == theirs.tiles * 20 * equal.macs
    assert equal.total_macs == 10 * recommended.total_macs
    assert min(theirs.seconds, equal.seconds, equal.peak) > 0
    text = (tmp_path / "speed.md").read_text()
    assert "extrapolated" in text
    assert text.count("\n| ours") == 2
