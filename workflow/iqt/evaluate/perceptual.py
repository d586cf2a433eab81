"""LPIPS, a learned perceptual distance, of a volume's slices, for those who have its weights.

Zhang et al. 2018, version 0.1 with AlexNet. It judges photographs by what people see in them; that it does so for brain
slices is not known. Its weights are not shipped and nothing fetches them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from iqt.config.evaluate import LPIPS_FILES
from iqt.errors import UserError
from iqt.io.volumes import bounding_box

BACKBONE, LINEAR = LPIPS_FILES
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""ImageNet's mean and standard deviation of each colour, for images in [-1, 1]."""
TAPS = (1, 4, 7, 9, 11)
"""Layers of AlexNet after which features are compared."""
SMALLEST = 64
"""Edge, in pixels, that slices are padded to with background; smaller ones lose their features to the pooling."""


class LPIPS:
    """The distance with weights from a folder that holds `BACKBONE` and `LINEAR`.

    Raises:
        UserError: a file is missing, or does not hold these weights.
    """

    def __init__(self, folder: Path) -> None:
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
        ).eval()
        backbone, linear = _read(folder / BACKBONE), _read(folder / LINEAR)
        try:
            self.features.load_state_dict({name: backbone[f"features.{name}"] for name in self.features.state_dict()})
            self.linear = [linear[f"lin{layer}.model.1.weight"] for layer in range(len(TAPS))]
        except (KeyError, RuntimeError) as error:
            raise UserError(f"{folder}: {BACKBONE} or {LINEAR} does not hold LPIPS's weights ({error})") from None

    @torch.inference_mode()
    def __call__(self, reference: np.ndarray, volume: np.ndarray, mask: np.ndarray) -> float:
        """Mean over the slices with brain of each of the three planes, and then over the planes; 0 is the same image.

        Both volumes are mapped alike, so that the reference's range in the mask becomes [-1, 1]; background is -1.

        Args:
            reference, volume: (X, Y, Z) on the same grid.
            mask: (X, Y, Z), true in the brain.

        Raises:
            UserError: the mask is empty.
        """
        box = bounding_box(mask)
        inside = mask[box]
        low, high = reference[mask].min(), reference[mask].max()
        pair = [np.where(inside, 2 * (data[box] - low) / (high - low) - 1, -1) for data in (reference, volume)]
        planes = []
        for axis in range(3):
            shown = np.moveaxis(inside, axis, 0).any(axis=(1, 2))
            slices = [torch.from_numpy(np.moveaxis(data, axis, 0)[shown].astype(np.float32)) for data in pair]
            growth = [max(0, SMALLEST - size) for size in slices[0].shape[:0:-1]]
            padding = [side for more in growth for side in (more // 2, more - more // 2)]
            images = [nn.functional.pad(one, padding, value=-1.0)[:, None].expand(-1, 3, -1, -1) for one in slices]
            planes.append(float(self.distance(*images).mean()))
        return float(np.mean(planes))

    def distance(self, first: Tensor, second: Tensor) -> Tensor:
        """(N,) of images (N, 3, H, W) in [-1, 1]."""
        total = torch.zeros(len(first))
        pair = [(images - torch.tensor(SHIFT)[:, None, None]) / torch.tensor(SCALE)[:, None, None]
                for images in (first, second)]  # fmt: skip
        for place, layer in enumerate(self.features):
            pair = [layer(images) for images in pair]
            if place in TAPS:
                unit = [features / torch.sqrt(1e-8 + features.square().sum(1, keepdim=True)) for features in pair]
                weighted = nn.functional.conv2d((unit[0] - unit[1]).square(), self.linear[TAPS.index(place)])
                total += weighted.mean((1, 2, 3))
        return total


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"{path}: no such file; evaluate.lpips names a folder with {BACKBONE} and {LINEAR}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises whatever its reader stumbles over
        raise UserError(f"{path}: not readable as weights ({error})") from None
