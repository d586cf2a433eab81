"""What `make bench-speed` counts, and the authors' protocol that it re-enacts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from iqt.bench import cost
from iqt.bench.authors import STEPS, enhance_as_authors, halo_convolution, padded_shape, tile_plan
from iqt.bench.cost import count_macs, macs_of, measure_costs, monai_network, monai_windows, template_mask
from iqt.bench.page import write_speed
from iqt.bench.quality import Quality
from iqt.cli import app
from iqt.compute.devices import use_bfloat16
from iqt.errors import UserError
from iqt.methods.diffusion_iqt import DiffusionIQTMethod
from iqt.networks.cross_batch import PatchConv3d, PatchGrid
from iqt.networks.size import count_parameters

NETWORK = {"channels": 8, "multipliers": (1,), "blocks": 1, "heads": 1, "head_dim": 4, "stem": 1, "tokens": (2,)}
METHOD = DiffusionIQTMethod(network=NETWORK, patches={"patch": 8, "grid": (2, 2, 2)}, target="image")


@pytest.mark.parametrize("stride", [1, 2])
def test_padding_patch_by_patch_is_the_convolution_on_the_merged_region(stride: int) -> None:
    torch.manual_seed(0)
    convolution, features = PatchConv3d(3, 5, 3, cross=True, stride=stride), torch.randn(2, 3, 8, 12, 4)
    grid = PatchGrid.of(features.shape, (4, 4, 4))
    expected = convolution(features, grid)
    torch.testing.assert_close(halo_convolution(convolution, features, grid), expected, rtol=1e-4, atol=1e-5)


def test_the_authors_plan_has_216_tiles_of_which_those_with_brain_are_run() -> None:
    assert len(tile_plan(np.ones((256,) * 3, bool), (96,) * 3)) == 216
    mask = template_mask()
    assert 1.2e6 < mask.sum() < 2.3e6
    kept = tile_plan(mask, (96,) * 3)
    assert 50 < len(kept) < 216
    assert all(box[0].start % 32 == 0 for box in kept)


def test_a_volume_is_padded_until_the_authors_plan_ends_at_its_border() -> None:
    assert padded_shape((256, 96, 90), (96,) * 3) == (256, 96, 96)
    assert padded_shape((97, 129, 128), (96,) * 3) == (128, 160, 128)


def test_the_authors_protocol_predicts_the_brain_and_is_the_network_where_it_answers_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Doubling(nn.Module):
        """Answers with a function of the low-field tile, whatever the noise."""

        calls = 0

        def forward(self, _noisy: torch.Tensor, lowfield: torch.Tensor, _logsnr: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return 2 * lowfield

    inputs, mask = torch.rand(37, 33, 20), np.zeros((37, 33, 20), bool)
    mask[8:30, 8:28, 4:16] = True
    network = Doubling()
    found = enhance_as_authors(network, METHOD, inputs, mask, seed=1)
    torch.testing.assert_close(found[mask], 2 * inputs[mask])
    padded = np.pad(mask, [(0, after - size) for size, after in zip(mask.shape, (41, 36, 21), strict=True)])
    assert network.calls == STEPS * len(tile_plan(padded, (16,) * 3))


def test_the_authors_tiles_have_noise_of_their_own_and_repeat_with_the_seed() -> None:
    class Noisy(nn.Module):
        def forward(self, noisy: torch.Tensor, _lowfield: torch.Tensor, _logsnr: torch.Tensor) -> torch.Tensor:
            return 0.5 * noisy

    inputs, mask = torch.zeros(26, 16, 16), np.ones((26, 16, 16), bool)
    first, again, other = (enhance_as_authors(Noisy(), METHOD, inputs, mask, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[:8], first[10:18])


@pytest.mark.slow
def test_costs_are_those_of_the_plan() -> None:
    mask = np.zeros((64,) * 3, bool)
    mask[20:40, 20:40, 20:40] = True
    theirs, monai, equal, recommended = measure_costs(METHOD, mask, 2, "float32")
    assert (theirs.calls, monai.calls, equal.calls, recommended.calls) == (20, 20, 20, 2)
    # The brain with its margin spans 28 voxels: in one piece of 32.
    assert (equal.tiles, equal.edges) == (1, (32, 32, 32))
    # Window attention aside, cost grows with the voxels: eight regions of 16 in one piece.
    assert equal.macs == pytest.approx(8 * theirs.macs, rel=0.01)
    assert equal.total_macs == 10 * recommended.total_macs
    assert monai.tiles == monai_windows((64,) * 3, (16,) * 3) == 125  # every 12 voxels, the last flush
    assert min(each.seconds for each in (theirs, monai, equal)) > 0


def test_both_memory_layouts_are_what_they_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def measured(network: nn.Module, region: tuple[int, int, int], _precision: str) -> tuple[float, int, float]:
        kept = []
        network.stem.register_forward_hook(lambda _module, inputs, _output: kept.append(inputs[0]))
        with torch.inference_mode():
            network(*cost._arguments(region, torch.device("cpu")))
        seen.append(kept[0].stride(1) == 1)
        return 1.0, 1, 1.0

    monkeypatch.setattr(cost, "measure_call", measured)
    assert set(cost.measure_layouts(METHOD, "float32")) == {"last", "first"}
    assert seen == [True, False]


def test_a_network_without_neighbours_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    config = tmp_path / "alone.yaml"
    network = "network: {cross_batch: {padding: false}}"
    config.write_text(f"methods: {{diffusion_iqt: {{kind: diffusion_iqt, {network}}}}}")
    paths = ["--config", str(config), "--trained", str(config)]
    done = CliRunner().invoke(app, ["bench", "speed", str(tmp_path / "out.md"), *paths])
    assert isinstance(done.exception, UserError)
    assert f"{config}: network.cross_batch.padding of diffusion_iqt is off" in str(done.exception)


def test_the_configurations_that_it_takes_by_itself_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path
) -> None:
    """Nothing but the run is missing."""
    (tmp_path / "config").symlink_to(repository / "config")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["bench", "speed", str(tmp_path / "out.md")])
    assert isinstance(done.exception, UserError)
    assert "results/demo-full/models/diffusion_alone/seed-1" in str(done.exception)


def test_a_precision_is_one_of_three_and_by_itself_the_same_on_every_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert not use_bfloat16("auto", torch.device("cpu")), "a result does not depend on the kind of CPU"
    assert use_bfloat16("bfloat16", torch.device("cpu"))
    with pytest.raises(UserError, match="precision 'bf16' must be one of auto, float32, bfloat16"):
        use_bfloat16("bf16", torch.device("cpu"))


def test_macs_are_those_of_a_convolution_worked_out_by_hand() -> None:
    class OneConvolution(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv3d(1, 3, 3, padding=1, bias=False)

        def forward(self, volume: torch.Tensor, *_others: torch.Tensor) -> torch.Tensor:
            return self.convolution(volume)

    assert count_macs(OneConvolution, (4, 5, 6)) == 4 * 5 * 6 * 3 * 27
    assert macs_of(METHOD, (32, 16, 16)) == pytest.approx(2 * macs_of(METHOD, (16, 16, 16)), rel=0.01)


def test_monais_network_has_about_as_many_parameters() -> None:
    small, large = (count_parameters(monai_network(wanted, 2)) for wanted in (1, 12_000_000))
    assert small < large
    assert large == pytest.approx(12_000_000, rel=0.35)  # the next width would have half as much again


def test_the_page_holds_ratios_of_what_was_measured(tmp_path: Path) -> None:
    costs = [
        cost.Cost("authors' protocol", 10, (16,) * 3, 20, 1000, 0.5, 3, 2**30),
        cost.Cost("ours, recommended", 1, (32,) * 3, 2, 4000, 0.25, 3, 2**31),
    ]
    quality = [
        Quality("authors' protocol", "sub-1", 20.0, 100.0, 20),
        Quality("ours, recommended", "sub-1", 21.5, 2.0, 2),
        Quality("authors' protocol", "sub-2", 22.0, 300.0, 20),
        Quality("ours, recommended", "sub-2", 21.5, 2.0, 2),
    ]
    layouts = {"full": {"first": 3, "last": 1.5}, "trained": {"first": 0.25, "last": 0.125}}
    write_speed(tmp_path / "speed.md", costs, layouts, {"ours": 5, "monai": 6}, quality, "A network")
    text = (tmp_path / "speed.md").read_text()
    assert "| ours, recommended | 1 of 32 x 32 x 32 | 2 | 8e+03 | 25.0 | 0.25 (3) | 0 | 200.0 | 2.00 |" in text
    assert "| ours, recommended | 2 | 21.50 | +0.50 (-0.50 to +1.50) | 2.0 | 100.0 |" in text
    assert "extrapolated" in text
    assert "full-size network 3.00 first, 1.50 last; trained network 0.250 first, 0.125 last." in text
