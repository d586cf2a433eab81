"""The built-in parcellator's network: three 2D networks, one a plane, after FastSurferCNN.

Seven adjacent slices go in, the labels of the middle one come out (Henschel et al., "FastSurfer: a fast and accurate
deep learning based neuroimaging pipeline", NeuroImage 219, 2020): four levels of competitive dense blocks, 64 filters
of 5x5 there, by configuration here. One difference: its axial and coronal networks also merge those cortical areas of
the two hemispheres that lie far from the midline and tell them apart afterwards by the nearest white matter.
"""

from __future__ import annotations

import torch
from torch import nn

IN_SLICES = 7
PLANES = ("axial", "coronal", "sagittal")


class CompetitiveBlock(nn.Module):
    """PReLU, convolution, batch normalisation, maximum with what went in; thrice, the last convolution 1x1.

    (B, channels, H, W) to (B, filters, H, W). As in FastSurferCNN's code, the third step's maximum is the one where the
    block's output meets a skip connection, which is why the output is normalised. The first block of a network
    (`channels` is not `filters`) normalises its input instead of activating it and has nothing to compete with there.
    """

    def __init__(self, channels: int, filters: int, kernel: int = 3) -> None:
        super().__init__()
        self.competes_at_entry = channels == filters
        self.steps = nn.ModuleList(
            nn.Sequential(
                nn.PReLU() if width == filters else nn.BatchNorm2d(width),
                nn.Conv2d(width, filters, edge, padding=edge // 2, bias=False),
                nn.BatchNorm2d(filters),
            )
            for width, edge in ((channels, kernel), (filters, kernel), (filters, 1))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second, last = self.steps
        x = maximum(first(x), x) if self.competes_at_entry else first(x)
        return last(maximum(second(x), x))


def maximum(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Element-wise maximum, written so that the gradient is cheap: torch.maximum's is a third of a step on a CPU."""
    return x + torch.relu(y - x) if torch.is_grad_enabled() else torch.maximum(x, y)


class SliceNet(nn.Module):
    """Encoder, bottleneck and decoder of competitive blocks: (B, in_slices, H, W) to logits (B, n_classes, H, W).

    Each level halves the resolution by max-pooling; the decoder puts values back where the pooling found them
    (max-unpooling) and takes the maximum with the encoder's output of that level. H and W should be multiples of
    2**levels; other sizes work, but the last rows and columns then see only their own level.
    """

    def __init__(self, in_slices: int, n_classes: int, filters: int, levels: int, kernel: int = 3) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(
            CompetitiveBlock(filters if level else in_slices, filters, kernel) for level in range(levels)
        )
        self.bottleneck = CompetitiveBlock(filters, filters, kernel)
        self.decoder = nn.ModuleList(CompetitiveBlock(filters, filters, kernel) for _ in range(levels))
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.unpool = nn.MaxUnpool2d(2)
        self.classify = nn.Conv2d(filters, n_classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.contiguous(memory_format=torch.channels_last)  # twice as fast as channels first with few channels
        passed = []
        for block in self.encoder:
            skip = block(x)
            x, indices = self.pool(skip)
            passed.append((skip, indices))
        x = self.bottleneck(x)
        for block, (skip, indices) in zip(self.decoder, reversed(passed), strict=True):
            x = block(maximum(self.unpool(x, indices, output_size=skip.shape), skip))
        return self.classify(x)


class MultiView(nn.Module):
    """One `SliceNet` a plane; the sagittal one has `n_merged` classes, since a sagittal slice shows no side.

    Takes and returns a dictionary by plane: stacks (B, 7, H, W) in, logits (B, classes, H, W) out. Planes that the
    input lacks are left out.
    """

    def __init__(self, n_classes: int, n_merged: int, filters: int, levels: int, kernel: int = 3) -> None:
        super().__init__()
        counts = {"axial": n_classes, "coronal": n_classes, "sagittal": n_merged}
        self.nets = nn.ModuleDict(
            {plane: SliceNet(IN_SLICES, counts[plane], filters, levels, kernel) for plane in PLANES}
        )
        self.to(memory_format=torch.channels_last)

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {plane: self.nets[plane](batch[plane]) for plane in PLANES if plane in batch}
