"""The DiffusionIQT network: a 3D U-Net over cross-batched patches (arXiv 2311.06631), at any size."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from iqt.config import DiffusionIQTNetwork, Patches
from iqt.networks.cross_batch import PatchConv3d, PatchGrid, PatchNormMish, patch_mean
from iqt.networks.mish import mish
from iqt.networks.shuffle import layout_of, shuffle, unshuffle


class DiffusionIQT(nn.Module):
    """Predicts the clean target from a noisy one, the low-field volume and the log-SNR.

    Inputs are the noisy target (B, 1, X, Y, Z) with edges that are multiples of the training region's (of the patch's,
    where attention stays within a patch), `n_conditions` volumes as channels, of which the paper has one, the low-field
    volume (None where there are none), and a log-SNR of shape (B,).
    Statistics belong to patches and attention to training regions, whatever the size of the volume.
    """

    def __init__(self, settings: DiffusionIQTNetwork, patches: Patches, n_conditions: int = 1) -> None:
        super().__init__()
        self.settings = settings
        self.patch = (patches.patch,) * 3
        self.block = patches.region if settings.cross_batch.attention else self.patch
        *widths, bottleneck = settings.widths
        width, cross = widths[0], settings.cross_batch.padding
        time_width = 4 * width

        def block(inputs: int, outputs: int) -> ResidualBlock:
            return ResidualBlock(inputs, outputs, time_width, settings)

        self.time = TimeEmbedding(width, time_width)
        self.stem = PatchConv3d((1 + n_conditions) * settings.stem**3, width, 3, cross)
        self.encoder = nn.ModuleList()
        for inner, outer, token in zip(widths, [*widths[1:], None], settings.tokens, strict=True):
            level = nn.ModuleDict({"blocks": nn.ModuleList(block(inner, inner) for _ in range(settings.blocks))})
            if settings.attention:
                level["attention"] = EncoderAttention(inner, token, settings)
            if outer:
                level["down"] = Downsample(inner, outer, settings)
            self.encoder.append(level)
        self.middle = block(widths[-1], bottleneck)
        self.decoder = nn.ModuleList()
        entry = bottleneck
        for inner, outer in zip(reversed(widths), [*reversed(widths[:-1]), None], strict=True):
            # A level's first block also takes what comes from below; every block takes one skip of the encoder.
            blocks = nn.ModuleList(block((inner if i else entry) + inner, inner) for i in range(settings.blocks))
            level = nn.ModuleDict({"blocks": blocks})
            if outer:
                level["up"] = Upsample(inner, outer, settings)
                entry = outer
            self.decoder.append(level)
        self.norm = PatchNormMish(settings.groups, width)
        self.head = nn.Conv3d(width, settings.stem**3, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, noisy: Tensor, conditions: Tensor | None, logsnr: Tensor) -> Tensor:
        """The network's output, (B, 1, X, Y, Z)."""
        grid = PatchGrid.of(noisy.shape, self.patch)
        blocks = PatchGrid.of(noisy.shape, self.block)
        embedding = self.time(logsnr)
        volumes = noisy if conditions is None else torch.cat([noisy, conditions], dim=1)
        features = unshuffle(volumes, self.settings.stem)
        # In the layout that the weights were given, which a first convolution of few channels does not tell.
        features = self.stem(features.contiguous(memory_format=layout_of(self.middle.conv1.weight)), grid)
        skips = []
        for level in self.encoder:
            for residual in level["blocks"]:
                features = residual(features, embedding, grid)
                skips.append(features)
            if "attention" in level:
                features = skips[-1] = blocks.merge(level["attention"](blocks.split(features)))
            if "down" in level:
                features = level["down"](features, grid)
        features = self.middle(features, embedding, grid)
        for level in self.decoder:
            for residual in level["blocks"]:
                features = residual(torch.cat([features, skips.pop()], dim=1), embedding, grid)
            if "up" in level:
                features = level["up"](features, grid)
        return shuffle(self.head(self.norm(features, grid)), self.settings.stem)


class ResidualBlock(nn.Module):
    """GroupNorm - Mish - convolution, twice; the time embedding scales and shifts before the second, then
    squeeze-and-excitation (reduction 16), then the shortcut."""

    def __init__(self, inputs: int, outputs: int, time_width: int, settings: DiffusionIQTNetwork) -> None:
        super().__init__()
        cross = settings.cross_batch.padding
        self.norm1 = PatchNormMish(settings.groups, inputs)
        self.conv1 = PatchConv3d(inputs, outputs, 3, cross)
        self.modulate = nn.Linear(time_width, 2 * outputs)
        self.norm2 = PatchNormMish(settings.groups, outputs)
        self.conv2 = PatchConv3d(outputs, outputs, 3, cross)
        self.excite = SqueezeExcitation(outputs) if settings.squeeze_excitation else None
        self.shortcut = nn.Conv3d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, features: Tensor, embedding: Tensor, grid: PatchGrid) -> Tensor:
        hidden = self.conv1(self.norm1(features, grid), grid)
        scale, shift = self.modulate(mish(embedding))[:, :, None, None, None].chunk(2, dim=1)
        hidden = self.conv2(self.norm2(hidden, grid, scale, shift), grid)
        if self.excite is not None:
            hidden = self.excite(hidden, grid)
        return hidden + self.shortcut(features)


class SqueezeExcitation(nn.Module):
    """Channel gates from each patch's own mean (Hu et al. 2018)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.gate = nn.Sequential(
            nn.Conv3d(channels, hidden, 1), nn.ReLU(), nn.Conv3d(hidden, channels, 1), nn.Sigmoid()
        )

    def forward(self, features: Tensor, grid: PatchGrid) -> Tensor:
        view = grid.view(features)
        mean = patch_mean(view)
        gate = self.gate(mean.flatten(2)[..., None, None].to(features.dtype))
        return (view * gate.view(mean.shape).to(view.dtype)).reshape(features.shape)


class EncoderAttention(nn.Module):
    """Linear attention over tokens of a coarse grid, brought back by trilinear upsampling.

    Takes (B, C, X, Y, Z), one attended block (a region or a patch) each. Attention is Shen et al. 2021 (efficient
    attention) in 3D with depth-wise convolutions on queries, keys and values, followed by a feed-forward of twice the
    width.
    """

    def __init__(self, channels: int, token: int, settings: DiffusionIQTNetwork) -> None:
        super().__init__()
        self.heads, self.skip = settings.heads, settings.attention_skip
        inner = settings.heads * settings.head_dim
        # Depth-wise, since the authors' attention adds under a million parameters at tokens of 8^3 voxels.
        self.tokens = nn.Conv3d(channels, channels, token, stride=token, groups=channels)
        self.norm1, self.norm2 = nn.GroupNorm(1, channels), nn.GroupNorm(1, channels)
        self.qkv = nn.Conv3d(channels, 3 * inner, 1, bias=False)
        self.depthwise = nn.Conv3d(3 * inner, 3 * inner, 3, padding=1, groups=3 * inner, bias=False)
        self.out = nn.Conv3d(inner, channels, 1)
        self.feed_forward = nn.Sequential(
            nn.Conv3d(channels, 2 * channels, 1), nn.GELU(), nn.Conv3d(2 * channels, channels, 1)
        )

    def forward(self, features: Tensor) -> Tensor:
        tokens = self.tokens(features)
        tokens = tokens + self.out(linear_attention(self.depthwise(self.qkv(self.norm1(tokens))), self.heads))
        tokens = tokens + self.feed_forward(self.norm2(tokens))
        attended = functional.interpolate(tokens, size=features.shape[2:], mode="trilinear", align_corners=False)
        return features + attended if self.skip else attended


def linear_attention(qkv: Tensor, heads: int) -> Tensor:
    """Attention whose cost is linear in the positions: softmax(Q) (softmax(K)^T V), Shen et al. 2021, equation 4.

    `qkv` is (B, 3 * heads * d, X, Y, Z); the result (B, heads * d, X, Y, Z).
    """
    batch, channels, *sizes = qkv.shape
    query, key, value = qkv.reshape(batch, 3, heads, channels // (3 * heads), -1).unbind(1)
    query = query.softmax(dim=-2) * query.shape[-2] ** -0.5
    key = key.softmax(dim=-1)
    context = torch.einsum("bhdn,bhen->bhde", key, value)
    return torch.einsum("bhde,bhdn->bhen", context, query).reshape(batch, -1, *sizes)


class TimeEmbedding(nn.Module):
    """The log-SNR through learned sinusoids and two linear layers."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(torch.randn(width // 2))
        self.layers = nn.Sequential(nn.Linear(width // 2 * 2 + 1, outputs), nn.Mish(), nn.Linear(outputs, outputs))

    def forward(self, logsnr: Tensor) -> Tensor:
        # A log-SNR of ten as one unit keeps the sinusoids' phases within a few turns.
        value = logsnr[:, None] / 10
        phase = value * self.frequencies[None] * 2 * math.pi
        return self.layers(torch.cat([value, phase.sin(), phase.cos()], dim=1))


class Downsample(nn.Module):
    """Half the resolution: pixel-unshuffle and a 1x1 convolution, or a strided convolution."""

    def __init__(self, inputs: int, outputs: int, settings: DiffusionIQTNetwork) -> None:
        super().__init__()
        cross = settings.cross_batch.padding
        self.shuffle = settings.shuffle
        self.conv = (
            nn.Conv3d(8 * inputs, outputs, 1) if self.shuffle else PatchConv3d(inputs, outputs, 3, cross, stride=2)
        )

    def forward(self, features: Tensor, grid: PatchGrid) -> Tensor:
        return self.conv(unshuffle(features, 2)) if self.shuffle else self.conv(features, grid)


class Upsample(nn.Module):
    """Twice the resolution: a 1x1 convolution, Mish and pixel-shuffle, or trilinear upsampling and a convolution."""

    def __init__(self, inputs: int, outputs: int, settings: DiffusionIQTNetwork) -> None:
        super().__init__()
        cross = settings.cross_batch.padding
        self.shuffle = settings.shuffle
        self.cross = cross
        self.conv = nn.Conv3d(inputs, 8 * outputs, 1) if self.shuffle else PatchConv3d(inputs, outputs, 3, cross)

    def forward(self, features: Tensor, grid: PatchGrid) -> Tensor:
        if self.shuffle:
            return shuffle(mish(self.conv(features)), 2)
        parts = features if self.cross else grid.split(features)
        parts = functional.interpolate(parts, scale_factor=2, mode="trilinear", align_corners=False)
        return self.conv(parts if self.cross else grid.merge(parts), grid)
