"""Cross-batch and the DiffusionIQT network."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
import torch
from torch.nn import functional

from iqt.methods import parse_method
from iqt.methods.diffusion_iqt import DiffusionIQTMethod
from iqt.methods.esrgan import ESRGANMethod
from iqt.methods.unet import UNetMethod
from iqt.networks.cross_batch import PatchConv3d, PatchGrid, PatchNormMish
from iqt.networks.describe import describe
from iqt.networks.diffusion_iqt import DiffusionIQT, linear_attention
from iqt.networks.mish import mish
from iqt.networks.shuffle import shuffle, unshuffle
from iqt.networks.size import count_parameters, network_size

SMALL = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "heads": 2, "head_dim": 4, "stem": 1, "tokens": (2, 2)}
PATCHES = {"patch": 4, "grid": (2, 2, 2)}


def small(**changes: object) -> DiffusionIQT:
    """A small network whose output depends on all its weights (the head starts at zero)."""
    torch.manual_seed(0)
    method = DiffusionIQTMethod(network={**SMALL, **changes}, patches=PATCHES)
    network = method.build()
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


GRIDS = [PatchGrid(2, 2, 2), PatchGrid(3, 3, 3), PatchGrid(1, 1, 1), PatchGrid(4, 1, 2)]
"""The paper's is 3 x 3 x 3; a single patch is a whole volume without neighbours."""


@pytest.mark.parametrize("grid", GRIDS)
def test_cross_batch_convolution_equals_an_explicit_halo_exchange(grid: PatchGrid) -> None:
    edge = 4
    conv = PatchConv3d(3, 2, 3, cross=True)
    region = torch.randn(1, 3, *(edge * count for count in grid))
    halo = functional.pad(region, (1,) * 6)
    for number, corner in enumerate(itertools.product(*map(range, grid))):
        box = tuple(slice(start * edge, start * edge + edge + 2) for start in corner)
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
    norm = PatchNormMish(2, 4)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    region = 3 * torch.randn(2, 4, 6, 6, 8) + 1
    expected = functional.mish(functional.group_norm(grid.split(region), 2, norm.weight, norm.bias))
    torch.testing.assert_close(grid.split(norm(region, grid)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norm_and_mish_are_what_torchs_own_operations_give_with_their_gradients(
    layout: torch.memory_format, dtype: torch.dtype
) -> None:
    grid, norm = PatchGrid(2, 1, 3), PatchNormMish(2, 4)
    torch.manual_seed(0)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    leaves = [12 * torch.randn(2, 4, 4, 6, 9), torch.randn(2, 4, 1, 1, 1), torch.randn(2, 4, 1, 1, 1)]
    leaves = [leaf.to(dtype).to(memory_format=layout).requires_grad_() for leaf in leaves]
    wanted = torch.randn(2, 4, 4, 6, 9)

    def plain(features: torch.Tensor, _grid: PatchGrid, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        normal = grid.merge(functional.group_norm(grid.split(features), 2, norm.weight, norm.bias))
        return functional.mish(normal * (1 + scale) + shift)

    results = []
    for run in (norm, plain):
        out = run(leaves[0].float() if run is plain else leaves[0], grid, *leaves[1:])
        gradients = torch.autograd.grad((out.float() * wanted).sum(), [*leaves, *norm.parameters()])
        results.append([out, *gradients])
    tolerance = 1e-4 if dtype == torch.float32 else 0.06
    for own, theirs in zip(*results, strict=True):
        assert (own.float() - theirs.float()).abs().max() < tolerance * (1 + theirs.float().abs().max())


def test_mish_has_the_derivatives_that_finite_differences_have() -> None:
    x = torch.linspace(-30, 30, 24, dtype=torch.float64).view(2, 3, 4).requires_grad_()
    gain, offset = (torch.randn(2, 3, 1, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(mish, (x, gain, offset))
    assert torch.autograd.gradcheck(mish, (x,))
    assert torch.allclose(mish(x), functional.mish(x), atol=1e-12)


@pytest.mark.parametrize("value", [-1e4, -88.0, -20.0, -12.0, 0.0, 20.0, 88.0, 1e4])
def test_mish_is_finite_and_right_at_the_ends(value: float) -> None:
    x = torch.tensor([value], requires_grad=True)
    own, theirs = (each(x) for each in (mish, functional.mish))
    assert torch.allclose(own, theirs, rtol=1e-5, atol=0)
    assert torch.allclose(*(torch.autograd.grad(each, x)[0] for each in (own, theirs)), atol=1e-5)


@pytest.mark.parametrize("grid", GRIDS)
def test_linear_attention_equals_its_definition_and_gathers_every_patchs_keys(grid: PatchGrid) -> None:
    heads, width = 2, 3
    qkv = torch.randn(1, 3 * heads * width, *(2 * count for count in grid))
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


def shapes(network: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in network.state_dict().items()}


@pytest.mark.parametrize(
    ("changes", "gone"),
    [
        ({"attention": False}, "attention"),
        ({"squeeze_excitation": False}, "excite"),
    ],
)
def test_a_part_that_is_switched_off_takes_its_parameters_and_no_others(changes: dict, gone: str) -> None:
    whole, part = shapes(small()), shapes(small(**changes))
    assert part == {name: shape for name, shape in whole.items() if f".{gone}." not in name}
    assert len(part) < len(whole)


def test_without_channel_shuffle_only_the_steps_between_levels_differ() -> None:
    whole, part = shapes(small()), shapes(small(shuffle=False))
    differing = {name for name in whole if whole[name] != part[name]}
    assert whole.keys() == part.keys()
    assert differing == {name for name in whole if ".down.conv.weight" in name or ".up.conv." in name}


def test_each_way_between_levels_is_what_it_is_called() -> None:
    """Strided convolution and trilinear upsampling against pixel-unshuffle, 1x1 convolution, Mish, pixel-shuffle."""
    features, grid = volume(8, 8, 8, channels=8), PatchGrid(2, 2, 2)
    with torch.no_grad():
        for shuffled in (True, False):
            network = small(shuffle=shuffled)
            down, up = network.encoder[0]["down"], network.decoder[0]["up"]
            if shuffled:
                lower = functional.conv3d(unshuffle(features, 2), down.conv.weight, down.conv.bias)
                upper = functional.mish(functional.conv3d(features, up.conv.weight, up.conv.bias))
                upper = shuffle(upper, 2)
            else:
                lower = functional.conv3d(features, down.conv.weight, down.conv.bias, stride=2, padding=1)
                upper = functional.interpolate(features, scale_factor=2, mode="trilinear", align_corners=False)
                upper = functional.conv3d(upper, up.conv.weight, up.conv.bias, padding=1)
            torch.testing.assert_close(down(features, grid), lower)
            torch.testing.assert_close(up(features, grid), upper)


@pytest.mark.parametrize(
    "changes", [{"attention_skip": False}, {"cross_batch": {"padding": False}}, {"cross_batch": {"attention": False}}]
)
def test_what_has_no_parameters_leaves_the_weights_as_they_are(changes: dict) -> None:
    whole, part = small().state_dict(), small(**changes).state_dict()
    assert whole.keys() == part.keys()
    assert all(torch.equal(whole[name], part[name]) for name in whole)


def test_the_skip_around_attention_adds_what_went_in() -> None:
    features = volume(8, 8, 8, channels=8)
    with torch.no_grad():
        around, without = (small(attention_skip=skip).encoder[0]["attention"] for skip in (True, False))
        torch.testing.assert_close(around(features), features + without(features))


def test_without_cross_batch_padding_only_patch_borders_differ() -> None:
    """One convolution: the inside of each patch does not know whether its neighbours were looked at."""
    grid, region = PatchGrid(2, 2, 2), torch.randn(1, 3, 8, 8, 8)
    conv = PatchConv3d(3, 2, 3, cross=True)
    merged = grid.split(conv(region, grid))
    conv.cross = False
    apart = grid.split(conv(region, grid))
    inner = (..., *(slice(1, -1),) * 3)
    torch.testing.assert_close(merged[inner], apart[inner])
    assert not torch.allclose(merged, apart)


def test_a_whole_volume_of_any_number_of_regions_passes() -> None:
    network = small()
    whole, low = volume(16, 8, 24), volume(16, 8, 24, seed=2)
    with torch.no_grad():
        assert network(whole, low, torch.zeros(1, dtype=torch.float64)).shape == whole.shape
    with pytest.raises(ValueError, match="cannot be cut into patches"):
        network(volume(10, 8, 8), volume(10, 8, 8), torch.zeros(1, dtype=torch.float64))


PAPER = DiffusionIQTMethod(
    network={
        "channels": 64,
        "multipliers": (1, 2, 4),
        "blocks": 2,
        "stem": 1,
        "heads": 8,
        "head_dim": 64,
        "tokens": (8, 4, 2),
    },
    patches={"patch": 32, "grid": (1, 1, 1)},
)


def test_the_papers_network_has_about_the_authors_size() -> None:
    """The authors' has 10.8 M live parameters; ours is within a tenth of it and takes 45.8 GMAC for a 32^3 patch."""
    described = describe(PAPER)
    assert described.parameters == pytest.approx(10.8e6, rel=0.1)
    assert described.macs == pytest.approx(45.8e9, rel=0.001)
    by_name = {layer.name: layer for layer in described.layers}
    assert by_name["encoder.0.blocks.0"].output == (64, 32, 32, 32)
    assert by_name["encoder.1.blocks.0"].output == (64, 16, 16, 16)
    assert by_name["encoder.2.blocks.0"].output == (128, 8, 8, 8)
    assert by_name["middle"].output == (256, 8, 8, 8)


@pytest.mark.parametrize("depth", [1, 2, 9])
def test_a_description_adds_up_at_every_depth(depth: int) -> None:
    small = {"network": SMALL, "patches": PATCHES}
    started = [parse_method({"kind": kind, "start": {"kind": "unet"}, **small}) for kind in ("diffusion_iqt", "flow")]
    for method in (DiffusionIQTMethod(network=SMALL, patches=PATCHES), UNetMethod(), ESRGANMethod(), *started):
        described = describe(method, depth)
        assert sum(layer.parameters for layer in described.layers) == described.parameters
        assert sum(layer.macs for layer in described.layers) == described.macs
        assert described.parameters == network_size(method)
        assert described.activations["bfloat16"] < described.activations["float32"]


def test_described_costs_are_the_closed_forms() -> None:
    """A 3x3x3 convolution of C to C channels at n voxels: 27 C^2 n MACs."""
    described = describe(PAPER, depth=9)
    conv = next(layer for layer in described.layers if layer.name == "encoder.0.blocks.0.conv1")
    assert conv.parameters == 27 * 64**2 + 64
    assert conv.macs == 27 * 64**2 * 32**3
    assert described.state == 20 * described.parameters


def test_a_regression_that_a_method_starts_from_is_described_and_needs_no_optimiser() -> None:
    patches = {"patch": 16, "grid": [1, 1, 1]}
    alone, start = (describe(parse_method({"kind": kind, "patches": patches})) for kind in ("diffusion_iqt", "unet"))
    regression = {"kind": "unet", "patches": patches}
    both = describe(parse_method({"kind": "diffusion_iqt", "patches": patches, "start": regression}))
    rows = {layer.name: layer for layer in both.layers}
    assert (rows["start"].parameters, rows["start"].macs) == (start.parameters, start.macs)
    trained = both.parameters - start.parameters
    assert trained > alone.parameters, "one more condition"
    assert both.state == 20 * trained + 8 * start.parameters


def test_esrgans_generator_starts_close_to_a_pass_through_of_its_trunk() -> None:
    """Scaled residuals (0.2) and small weights: a block changes its input little, and any stem keeps the shape."""
    from iqt.networks.esrgan import RRDB

    features = torch.randn(1, 8, 6, 6, 6)
    change = (RRDB(8, 4)(features) - features).norm() / features.norm()
    assert 0.15 < change < 0.25, "0.2 times what went in, plus next to nothing"
    for stem in (1, 2, 4):
        method = ESRGANMethod(network={"channels": 4, "growth": 2, "blocks": 1, "stem": stem})
        assert method.build()(torch.zeros(1, 1, 8, 8, 12)).shape == (1, 1, 8, 8, 12)


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
    network = DiffusionIQTMethod(network={**SMALL, "channels": 64}, patches=PATCHES).build()
    inputs = torch.randn(4, 1, 8, 8, 8), torch.randn(4, 1, 8, 8, 8), torch.linspace(-8, 8, 4)
    assert (network(*inputs) == 0).all()
    torch.nn.init.normal_(network.head.weight)
    network(*inputs).square().sum().backward()
    without = [name for name, value in network.named_parameters() if value.grad is None or not value.grad.any()]
    assert without == []
    assert count_parameters(network) == sum(value.numel() for value in network.parameters())


@pytest.mark.parametrize("units", [0, 1, 2])
@pytest.mark.parametrize("channels", [(4, 6), (4, 6, 10, 12)])
@pytest.mark.parametrize("kind", ["unet", "volumetric"])
def test_the_residual_unet_is_monais(kind: str, channels: tuple[int, ...], units: int) -> None:
    """The same first weights under the same names, the same output and the same statistics afterwards."""
    from monai.networks.nets import UNet

    from iqt.networks.residual_unet import ResidualUNet

    parts = {
        "unet": ((torch.nn.BatchNorm3d, torch.nn.PReLU), {"norm": "batch"}),
        "volumetric": (
            (partial(torch.nn.InstanceNorm3d, affine=True), partial(torch.nn.LeakyReLU, inplace=True)),
            {"norm": ("instance", {"affine": True}), "act": ("leakyrelu", {"inplace": True})},
        ),
    }
    layers, named = parts[kind]
    torch.manual_seed(3)
    ours = ResidualUNet(2, 3, channels, units, *layers)
    torch.manual_seed(3)
    strides = (2,) * (len(channels) - 1)
    theirs = UNet(3, 2, 3, channels, strides, num_res_units=units, **named)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    volume = torch.randn(2, 2, 16, 8, 24)
    assert torch.equal(ours(volume), theirs(volume))
    for mine, monais in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        assert torch.equal(mine, monais)


def test_the_regression_unet_keeps_the_shape() -> None:
    network = UNetMethod(network={"channels": (4, 8), "residual_units": 1}, patches=PATCHES).build().eval()
    assert network(torch.randn(2, 1, 8, 12, 16)).shape == (2, 1, 8, 12, 16)
