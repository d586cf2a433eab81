"""LPIPS against torchmetrics, with random weights in the place of AlexNet's, which cannot be had here."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from iqt.errors import UserError
from iqt.evaluate.perceptual import BACKBONE, LINEAR, LPIPS


def stand_in_for_alexnet() -> nn.Sequential:
    """torchvision's AlexNet, its features alone, with random weights."""
    torch.manual_seed(0)
    sizes = [(3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1), (384, 256, 3, 1, 1), (256, 256, 3, 1, 1)]
    layers: list[nn.Module] = []
    for place, (inputs, outputs, kernel, stride, padding) in enumerate(sizes):
        layers += [nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding), nn.ReLU(inplace=True)]
        layers += [nn.MaxPool2d(kernel_size=3, stride=2)] if place in (0, 1, 4) else []
    return nn.Sequential(*layers)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lpips")
    state = {f"features.{name}": value for name, value in stand_in_for_alexnet().state_dict().items()}
    torch.save(state | {"classifier.1.weight": torch.zeros(1)}, folder / BACKBONE)
    installed = Path(importlib.util.find_spec("torchmetrics").origin).parent
    shutil.copy(installed / "functional/image/lpips_models/alex.pth", folder / LINEAR)
    return folder


def test_the_distance_is_torchmetrics(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchmetrics.functional.image import lpips

    models = SimpleNamespace(alexnet=lambda weights: SimpleNamespace(features=stand_in_for_alexnet()))
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(models=models))
    monkeypatch.setattr(lpips, "_TORCHVISION_AVAILABLE", True)
    theirs = lpips._LPIPS(net="alex", pnet_rand=True)
    first, second = (2 * torch.rand(2, 3, 70, 81, generator=torch.Generator().manual_seed(n)) - 1 for n in (1, 2))
    ours = LPIPS(weights)
    found = ours.distance(first, second)
    assert found.shape == (2,)
    torch.testing.assert_close(found, theirs(first, second).flatten(), rtol=1e-4, atol=1e-6)
    assert (found > 0).all()
    torch.testing.assert_close(ours.distance(second, first), found)


def test_a_volumes_distance_is_the_mean_over_slices_and_planes(weights: Path) -> None:
    """Slice by slice, each cut out, mapped and padded by itself."""
    lpips, rng = LPIPS(weights), np.random.default_rng(0)
    shape = (66, 70, 20)
    mask = np.zeros(shape, bool)
    mask[:, 1:, 4:8] = True
    mask[0, 0, 4] = True
    reference = rng.random(shape).astype(np.float32)
    result = np.where(mask, reference + 0.1 * rng.normal(size=shape), 99)
    value = lpips(reference, result, mask)

    low, high = reference[mask].min(), reference[mask].max()
    mapped = [np.where(mask, 2 * (data - low) / (high - low) - 1, -1)[:, :, 4:8] for data in (reference, result)]
    planes = []
    for axis in range(3):
        found = []
        for place in range(mapped[0].shape[axis]):
            images = []
            for data in mapped:
                image = np.take(data, place, axis)
                sides = [
                    ((64 - size) // 2, 64 - size - (64 - size) // 2) if size < 64 else (0, 0) for size in image.shape
                ]
                image = np.pad(image, sides, constant_values=-1)
                images.append(torch.from_numpy(np.stack([image] * 3)[None].astype(np.float32)))
            found.append(float(lpips.distance(*images)))
        planes.append(np.mean(found))
    assert value == pytest.approx(np.mean(planes), rel=1e-4)

    assert lpips(reference, reference, mask) == 0
    worse = np.where(mask, reference + 0.3 * rng.normal(size=shape), 0)
    assert lpips(reference, worse, mask) > value
    assert lpips(3 * reference + 1, 3 * result + 1, mask) == pytest.approx(value, rel=1e-3), "the reference's range"
    with pytest.raises(UserError, match="mask is empty"):
        lpips(reference, result, np.zeros(shape, bool))


def test_weights_that_are_absent_or_others_are_named(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{tmp_path / BACKBONE}: no such file; evaluate.lpips names a folder"):
        LPIPS(tmp_path)
    (tmp_path / BACKBONE).write_bytes(b"not a file of torch")
    with pytest.raises(UserError, match="not readable as weights"):
        LPIPS(tmp_path)
    shutil.copy(weights / BACKBONE, tmp_path)
    shutil.copy(weights / BACKBONE, tmp_path / LINEAR)
    with pytest.raises(UserError, match="does not hold LPIPS's weights"):
        LPIPS(tmp_path)
