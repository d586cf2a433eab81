"""Cross-batch and the DiffusionIQT network."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from iqt.config import DiffusionIQTMethod, UNetMethod
from iqt.networks.build import build_network, count_parameters
from iqt.networks.cross_batch import PatchConv3d, PatchGrid, PatchGroupNorm
from iqt.networks.diffusion_iqt import DiffusionIQT, linear_attention
from iqt.networks.shuffle import shuffle, unshuffle

SMALL = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "heads": 2, "head_dim": 4, "stem": 1, "tokens": (2, 2)}
PATCHES = {"patch": 4, "grid": (2, 2, 2)}


def small(**changes: object) -> DiffusionIQT:
    """A small network whose output depends on all its weights (the head starts at zero)."""
    torch.manual_seed(0)
    method = DiffusionIQTMethod(network={**SMALL, **changes}, patches=PATCHES)
    network = build_network(method)
    torch.nn.init.normal_(network.head.weight)
    return network.double().eval()


def volume(*sizes: int, channels: int = 1, seed: int = 1) -> torch.Tensor:
    return torch.randn(1, channels, *sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_merge_undoes_split_and_a_patch_is_a_block_of_the_region() -> None:
    grid = PatchGrid(2, 3, 1)
    merged = torch.randn(2, 5, 8, 9, 4)
    patches = grid.split(merged)
    assert patches.shape == (12, 5, 4, 3, 4)
    assert torch.equal(grid.merge(patches), merged)
    assert torch.equal(patches[4], merged[0, :, 4:8, 3:6, :]), "patch (1, 1, 0) of the first region"
    with pytest.raises(ValueError, match="cannot be cut"):
        PatchGrid.of((8, 9, 4), (3, 3, 4))


def test_cross_batch_convolution_equals_an_explicit_halo_exchange() -> None:
    grid, edge = PatchGrid(2, 2, 2), 4
    conv = PatchConv3d(3, 2, 3, cross=True)
    region = torch.randn(1, 3, 8, 8, 8)
    halo = functional.pad(region, (1,) * 6)
    for number, (x, y, z) in enumerate((i, j, k) for i in range(2) for j in range(2) for k in range(2)):
        box = tuple(slice(start * edge, start * edge + edge + 2) for start in (x, y, z))
        alone = functional.conv3d(halo[(slice(None), slice(None), *box)], conv.weight, conv.bias)
        together = grid.split(conv(region, grid))[number : number + 1]
        torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_without_cross_batch_a_patch_is_padded_with_zeros() -> None:
    grid = PatchGrid(2, 2, 2)
    conv = PatchConv3d(3, 2, 3, cross=False)
    region = torch.randn(1, 3, 8, 8, 8)
    alone = functional.conv3d(grid.split(region), conv.weight, conv.bias, padding=1)
    torch.testing.assert_close(grid.split(conv(region, grid)), alone)


@pytest.mark.parametrize("grid", [PatchGrid(1, 1, 1), PatchGrid(2, 2, 2), PatchGrid(3, 1, 2)])
def test_group_norm_is_each_patchs_own(grid: PatchGrid) -> None:
    norm = PatchGroupNorm(2, 4)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    region = 3 * torch.randn(2, 4, 6, 6, 8) + 1
    expected = functional.group_norm(grid.split(region), 2, norm.weight, norm.bias)
    torch.testing.assert_close(grid.split(norm(region, grid)), expected, rtol=1e-4, atol=1e-4)
    scale, shift = torch.randn(2, 2, 4, 1, 1, 1)
    torch.testing.assert_close(norm(region, grid, scale, shift), norm(region, grid) * (1 + scale) + shift)


def test_linear_attention_equals_its_definition_and_gathers_every_patchs_keys() -> None:
    heads, width, grid = 2, 3, PatchGrid(2, 1, 2)
    qkv = torch.randn(1, 3 * heads * width, 4, 2, 4)
    result = linear_attention(qkv, heads)
    # Patch by patch: queries of the patch, keys and values gathered from all patches.
    query, key, value = qkv.chunk(3, dim=1)
    keys = torch.cat([patch.flatten(1) for patch in grid.split(key)], dim=1).view(heads, width, -1).softmax(-1)
    values = torch.cat([patch.flatten(1) for patch in grid.split(value)], dim=1).view(heads, width, -1)
    for number, patch in enumerate(grid.split(query)):
        q = patch.reshape(heads, width, -1).softmax(1) * width**-0.5
        expected = torch.stack([values[h] @ keys[h].T @ q[h] for h in range(heads)]).reshape(-1)
        torch.testing.assert_close(grid.split(result)[number].reshape(-1), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_shuffle_undoes_unshuffle(factor: int) -> None:
    region = torch.randn(2, 3, 4, 8, 4)
    folded = unshuffle(region, factor)
    assert folded.shape == (2, 3 * factor**3, 4 // factor, 8 // factor, 4 // factor)
    assert torch.equal(shuffle(folded, factor), region)
    assert torch.equal(folded[:, 0], region[:, 0, ::factor, ::factor, ::factor])


def test_patches_see_each_other_only_through_cross_batch() -> None:
    region, low, logsnr = volume(8, 8, 8), volume(8, 8, 8, seed=2), torch.zeros(1, dtype=torch.float64)
    changed = region.clone()
    changed[..., :4, :4, :4] += 1
    grid = PatchGrid(2, 2, 2)

    def moved(**cross_batch: bool) -> torch.Tensor:
        network = small(cross_batch=cross_batch)
        with torch.no_grad():
            difference = network(changed, low, logsnr) - network(region, low, logsnr)
        return grid.split(difference).abs().amax((1, 2, 3, 4))

    alone = moved(padding=False, attention=False)
    assert alone[0] > 1e-6
    assert (alone[1:] == 0).all(), "off: changing one patch changes no other"
    assert (moved(padding=True, attention=False) > 0).all()
    assert (moved(padding=False, attention=True) > 0).all(), "attention alone reaches every patch"


def test_gradients_flow_across_patches() -> None:
    region = volume(8, 8, 8).requires_grad_()
    output = small()(region, volume(8, 8, 8, seed=2), torch.zeros(1, dtype=torch.float64))
    output[..., :4, :4, :4].sum().backward()
    assert (PatchGrid(2, 2, 2).split(region.grad).abs().amax((1, 2, 3, 4)) > 0).all()


def test_statistics_and_attention_do_not_depend_on_the_tile() -> None:
    """Two regions side by side in a tile: with convolutions kept in their patch, each gives what it gives alone."""
    network = small(cross_batch={"padding": False, "attention": True})
    tile, low, logsnr = volume(16, 8, 8), volume(16, 8, 8, seed=2), torch.zeros(1, dtype=torch.float64)
    with torch.no_grad():
        together = network(tile, low, logsnr)
        apart = torch.cat([network(tile[:, :, x], low[:, :, x], logsnr) for x in (slice(0, 8), slice(8, 16))], dim=2)
    torch.testing.assert_close(together, apart)


@pytest.mark.parametrize(
    ("changes", "gone"),
    [
        ({"attention": False}, "attention"),
        ({"squeeze_excitation": False}, "excite"),
    ],
)
def test_a_part_that_is_switched_off_takes_its_parameters_and_no_others(changes: dict, gone: str) -> None:
    whole = {name: value.shape for name, value in small().state_dict().items()}
    part = {name: value.shape for name, value in small(**changes).state_dict().items()}
    assert part == {name: shape for name, shape in whole.items() if f".{gone}." not in name}
    assert len(part) < len(whole)


@pytest.mark.parametrize("changes", [{"shuffle": False}, {"attention_skip": False}, {"stem": 2, "tokens": (1, 1)}])
def test_every_variant_runs_and_changes_the_result(changes: dict) -> None:
    inputs = volume(8, 8, 8), volume(8, 8, 8, seed=2), torch.zeros(1, dtype=torch.float64)
    with torch.no_grad():
        result = small(**changes)(*inputs)
        assert result.shape == (1, 1, 8, 8, 8)
        assert not torch.allclose(result, small()(*inputs))


def test_the_result_depends_on_every_input() -> None:
    network, region, low = small(), volume(8, 8, 8), volume(8, 8, 8, seed=2)
    one = torch.ones(1, dtype=torch.float64)
    with torch.no_grad():
        result = network(region, low, 0 * one)
        for other in (
            network(2 * region, low, 0 * one),
            network(region, 2 * low, 0 * one),
            network(region, low, 5 * one),
        ):
            assert not torch.allclose(result, other)


def test_a_fresh_network_predicts_zero_and_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    # Wide enough that no squeezed channel is dead for every one of the regions.
    network = build_network(DiffusionIQTMethod(network={**SMALL, "channels": 64}, patches=PATCHES))
    inputs = torch.randn(4, 1, 8, 8, 8), torch.randn(4, 1, 8, 8, 8), torch.linspace(-8, 8, 4)
    assert (network(*inputs) == 0).all()
    torch.nn.init.normal_(network.head.weight)
    network(*inputs).square().sum().backward()
    without = [name for name, value in network.named_parameters() if value.grad is None or not value.grad.any()]
    assert without == []
    assert count_parameters(network) == sum(value.numel() for value in network.parameters())


def test_the_regression_unet_keeps_the_shape() -> None:
    network = build_network(UNetMethod(network={"channels": (4, 8), "residual_units": 1}, patches=PATCHES)).eval()
    assert network(torch.randn(2, 1, 8, 12, 16)).shape == (2, 1, 8, 12, 16)
