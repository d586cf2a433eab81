"""Tiles, and whole volumes through a trained model."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from iqt.compute import free, memory
from iqt.diffusion.objectives import to_clean
from iqt.enhance.models import Enhancer, noise_field
from iqt.enhance.run import enhance_scans
from iqt.enhance.tiling import SHARE, Tiling, largest_tile
from iqt.errors import StopError, UserError
from iqt.imaging.resample import linear
from iqt.io.batch import OK
from iqt.io.files import read_json, write_json
from iqt.io.naming import anat, flat
from iqt.io.volumes import Volume, intensity_scale, read_volume, save_volume
from stand_in import save_stand_in

SHAPE = (26, 19, 17)


@pytest.mark.parametrize(
    ("shape", "tile", "overlap"),
    [((40, 33, 20), 16, 4), ((64, 64, 64), 64, 16), ((5, 70, 31), 24, 8), ((16, 17, 100), 16, 0)],
)
def test_weights_add_up_to_one_at_every_voxel(shape: tuple[int, int, int], tile: int, overlap: int) -> None:
    tiling = Tiling(shape, (8, 8, 8), tile, overlap)
    volume = torch.randn(1, 1, *tiling.padded)
    torch.testing.assert_close(tiling.apply(volume, lambda part: part), volume, rtol=1e-5, atol=1e-5)
    assert all(padded >= size for padded, size in zip(tiling.padded, shape, strict=True))
    assert all(edge % 8 == 0 and edge <= max(8, tile) for edge in tiling.edges)
    for axis in range(3):
        stops = [box[axis].stop for box in tiling.boxes]
        assert max(stops) == tiling.padded[axis], "the last tile is flush with the border"


def test_neighbours_share_at_least_the_overlap_and_blend_smoothly() -> None:
    tiling = Tiling((8, 8, 60), (8, 8, 8), 24, 8)
    starts = tiling.starts[2]
    assert len(starts) > 2
    assert all(start + 24 - after >= 8 for start, after in itertools.pairwise(starts))
    # Tiles that disagree by a constant are joined without a step.
    values = iter(range(len(tiling.boxes)))
    line = tiling.apply(torch.zeros(1, 1, *tiling.padded), lambda part: part + next(values))[0, 0, 4, 4]
    assert line[0] == 0
    assert line[-1] == len(starts) - 1
    assert (line.diff() >= -1e-6).all()
    assert line.diff().max() < 0.25


def test_a_small_volume_is_one_tile_of_whole_units() -> None:
    tiling = Tiling((30, 5, 33), (16, 16, 16), 48, 8)
    assert tiling.edges == [32, 16, 48]
    assert tiling.padded == [32, 16, 48]
    assert len(tiling.boxes) == 1


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with random weights: a stand-in for a trained one, with the files of one."""
    return save_stand_in(tmp_path_factory.mktemp("model"))


def usage(**sampling: object) -> dict:
    return {"kind": "diffusion_iqt", "sampling": sampling, "tiling": {"tile": 16, "overlap": 8}}


def volume() -> Tensor:
    return torch.rand(*SHAPE, generator=torch.Generator().manual_seed(5))


def test_a_result_has_the_shape_and_repeats(model: Path) -> None:
    enhance = Enhancer(model, usage(steps=2), "float32")
    first, again, other = enhance(volume(), 1), enhance(volume(), 1), enhance(volume(), 2)
    assert first.mean.shape == SHAPE
    assert first.nfe == 2
    assert first.sd is None
    assert torch.equal(first.mean, again.mean)
    assert not torch.equal(first.mean, other.mean)


def test_the_first_of_several_samples_is_the_single_one(model: Path) -> None:
    single = Enhancer(model, usage(steps=2, samples=1), "float32")
    several = Enhancer(model, usage(steps=2, samples=3), "float32")
    result = several(volume(), 1)
    torch.testing.assert_close(result.first, single(volume(), 1).mean)
    assert result.nfe == 6
    assert result.sd.shape == SHAPE
    assert (result.sd > 0).any()
    assert not torch.allclose(result.mean, result.first)
    # Three samples and their mean are two of which the mean and the spread are known.
    two = Enhancer(model, usage(steps=2, samples=2), "float32")(volume(), 1)
    third = 3 * result.mean - 2 * two.mean
    deviations = (result.first - result.mean) ** 2 + (third - result.mean) ** 2
    second = 2 * two.mean - result.first
    expected = ((deviations + (second - result.mean) ** 2) / 2).sqrt()
    torch.testing.assert_close(result.sd, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("tile", [16, "auto"])
@pytest.mark.parametrize("batch", [2, 3, 100])
def test_a_result_does_not_depend_on_how_many_tiles_go_at_once(
    model: Path, batch: int, tile: int | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = usage(steps=2)
    settings["tiling"] = {**settings["tiling"], "tile": tile}
    monkeypatch.setattr(memory, "bytes_per_voxel", lambda *_: 100.0)
    monkeypatch.setattr(memory, "available_bytes", lambda _device, _limit: 100.0 * 17**3 / SHARE)
    alone = Enhancer(model, settings, "float32")(volume(), 1)
    assert len(alone.tiling.boxes) > 4
    settings["tiling"] = {**settings["tiling"], "batch": batch}
    torch.testing.assert_close(Enhancer(model, settings, "float32")(volume(), 1).mean, alone.mean, rtol=0, atol=1e-5)


def test_tiles_outside_the_mask_are_skipped_and_change_nothing_inside(model: Path) -> None:
    mask = torch.zeros(SHAPE, dtype=torch.bool)
    mask[1:9, 2:9, 3:9] = True
    enhance = Enhancer(model, usage(steps=1), "float32")
    every, needed = enhance(volume(), 1), enhance(volume(), 1, mask)
    assert needed.tiling.n_skipped > 0
    assert len(needed.tiling.boxes) + needed.tiling.n_skipped == len(every.tiling.boxes)
    torch.testing.assert_close(needed.mean[mask], every.mean[mask], rtol=0, atol=1e-5)
    # Beside a skipped tile the others still make up a whole.
    tiling = Tiling(SHAPE, (8, 8, 8), 16, 8, mask)
    constant = tiling.apply(torch.ones(1, 1, *tiling.padded), lambda part: part)[0, 0]
    assert set(constant.round(decimals=4).unique().tolist()) == {0.0, 1.0}


def test_a_voxels_noise_is_the_same_whatever_the_tiles() -> None:
    fields = [noise_field(Tiling(SHAPE, (8, 8, 8), tile, 8), seed=3)[0, 0] for tile in (8, 16, 32)]
    assert len({tuple(field.shape) for field in fields}) > 1
    for field in fields[1:]:
        assert torch.equal(field[: SHAPE[0], : SHAPE[1], : SHAPE[2]], fields[0][: SHAPE[0], : SHAPE[1], : SHAPE[2]])
    assert abs(fields[0].std().item() - 1) < 0.05


def test_without_memory_for_a_tile_smaller_ones_are_taken(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = usage(steps=2)
    expected = Enhancer(model, settings, "float32")(volume(), 1)
    enhance = Enhancer(model, {**settings, "tiling": {"tile": 32, "overlap": 8}}, "float32")
    forward, limit = enhance.network.forward, 16**3

    def small(noisy: Tensor, *others: Tensor) -> Tensor:
        if noisy.numel() > limit:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory")
        return forward(noisy, *others)

    enhance.network.forward = small
    result = enhance(volume(), 1)
    assert result.tiling.edges == expected.tiling.edges
    torch.testing.assert_close(result.mean, expected.mean)
    assert "out of memory with tiles of 32 x 24 x 24 voxels; goes on with 16" in capsys.readouterr().err
    limit = 0
    with pytest.raises(StopError, match="memory does not suffice for a tile of 8 x 8 x 8"):
        enhance(volume(), 1)
    unmeasured = Enhancer(model, {**usage(steps=1), "tiling": {"tile": "auto", "overlap": 8}}, "float32")
    unmeasured.network.forward = enhance.network.forward
    with pytest.raises(StopError, match="memory does not suffice for one region"):
        unmeasured(volume(), 1)
    enhance.network.forward = lambda *_: (_ for _ in ()).throw(RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        enhance(volume(), 1)


def test_without_memory_tiles_get_smaller_down_to_a_region_of_uneven_edges(tmp_path: Path) -> None:
    model = save_stand_in(tmp_path / "uneven", patches=(1, 3, 3))
    enhance = Enhancer(model, {**usage(steps=1), "tiling": {"tile": 8, "overlap": 4}}, "float32")
    forward, limit = enhance.network.forward, 4 * 12 * 12

    def small(noisy: Tensor, *others: Tensor) -> Tensor:
        if noisy.numel() > limit:
            raise torch.OutOfMemoryError
        return forward(noisy, *others)

    enhance.network.forward = small
    assert enhance(volume(), 1).tiling.edges == [4, 12, 12]
    limit = 0
    with pytest.raises(StopError, match="memory does not suffice for a tile of 4 x 12 x 12"):
        enhance(volume(), 1)
    assert largest_tile((100, 100, 100), (32, 96, 96), 1.0, 1.0) == 32


def test_tiles_are_as_large_as_the_memory_allows(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enhance = Enhancer(model, {**usage(steps=1), "tiling": {"tile": "auto", "overlap": 8}}, "float32")
    assert enhance(volume(), 1).tiling.edges == [32, 24, 24], "the whole volume in one piece"
    need = enhance._per_voxel
    # At least the network's input, its first features and what they become are alive at once.
    assert need > 4 * 8 * 2
    monkeypatch.setattr(memory, "available_bytes", lambda _device, _limit: need * 20**3 / SHARE)
    assert enhance(volume(), 1).tiling.edges == [16, 16, 16]
    monkeypatch.setattr(memory, "available_bytes", lambda _device, _limit: 1.0)
    assert enhance(volume(), 1).tiling.edges == [8, 8, 8]
    assert largest_tile((100, 100, 100), (32, 32, 32), 1.0, 64**3 / SHARE) == 64


@pytest.mark.parametrize(
    ("line", "root", "limit", "used", "cache"),
    [
        ("0::/slurm/job_7", "", "memory.max", "memory.current", "inactive_file"),
        (
            "5:cpuset,memory:/slurm/job_7", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
            "total_inactive_file",
        ),
    ],
)  # fmt: skip
def test_a_control_groups_limit_counts_and_files_that_were_read_do_not(
    line: str, root: str, limit: str, used: str, cache: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tmp_path / root / "slurm" / "job_7"
    job.mkdir(parents=True)
    (tmp_path / "membership").write_text(f"3:cpu:/elsewhere\n{line}\n")
    monkeypatch.setattr(free, "GROUPS", tmp_path)
    monkeypatch.setattr(free, "MEMBERSHIP", tmp_path / "membership")
    before = memory.available_bytes(torch.device("cpu"))
    for folder, most in ((job, "max"), (job.parent, "9000000")):
        (folder / limit).write_text(most)
        (folder / used).write_text("5000000")
        (folder / "memory.stat").write_text(f"anon 4000000\n{cache} 1000000\n")
    assert memory.available_bytes(torch.device("cpu")) == 5_000_000 < before
    for limit in (3, 9_000_000):
        assert memory.available_bytes(torch.device("cpu"), limit) == limit * 1e6, "whatever happens to be free"


def test_peak_memory_is_that_of_the_tensors_alive_at_once() -> None:
    def chain() -> Tensor:
        first = torch.zeros(1000)
        second = first + 1
        del first
        third = second * 2
        del second
        return third.relu_()

    assert memory.bytes_per_voxel(chain, 1000, torch.device("cpu")) == pytest.approx(8 * memory.SCRATCH)


def watched(enhance: Enhancer) -> dict[str, Tensor]:
    """What the network is last called with and what it returns, kept up to date."""
    seen: dict[str, Tensor] = {}
    forward = enhance.network.forward

    def spy(noisy: Tensor, lowfield: Tensor, logsnr: Tensor) -> Tensor:
        seen.update(noisy=noisy, lowfield=lowfield, logsnr=logsnr, output=forward(noisy, lowfield, logsnr))
        return seen["output"]

    enhance.network.forward = spy
    return seen


def test_a_one_step_sample_is_the_networks_estimate_scaled_back(model: Path) -> None:
    enhance = Enhancer(model, {**usage(steps=1), "tiling": {"tile": 32, "overlap": 8}}, "float32")
    low = torch.rand(8, 16, 24, generator=torch.Generator().manual_seed(5))
    seen = watched(enhance)
    result = enhance(low, 1)
    torch.testing.assert_close(seen["lowfield"][0, 0], (low - 0.5) / 0.3)
    torch.testing.assert_close(result.mean, seen["output"][0, 0] * 0.1 + 0.02 + low)
    assert seen["logsnr"].item() == pytest.approx(-10, abs=1e-3)


@pytest.mark.parametrize("objective", ["epsilon", "v"])
def test_what_the_network_predicts_becomes_the_clean_target(tmp_path: Path, objective: str) -> None:
    whole = {"kind": "diffusion_iqt", "sampling": {"steps": 1}, "tiling": {"tile": 32, "overlap": 8}}
    enhance = Enhancer(save_stand_in(tmp_path, objective), whole, "float32")
    low = torch.rand(8, 16, 24, generator=torch.Generator().manual_seed(5))
    seen = watched(enhance)
    result = enhance(low, 1)
    clean = to_clean(objective, seen["output"], seen["noisy"], seen["logsnr"])
    torch.testing.assert_close(result.mean, clean[0, 0] * 0.1 + 0.02 + low)


def write_scan(folder: Path, scan: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    low = rng.random(SHAPE, dtype=np.float32) * 300
    mask = np.zeros(SHAPE, np.uint8)
    mask[4:-4, 3:-3, 3:-3] = 1
    affine = np.diag([2.0, 2, 2, 1])
    save_volume(anat(folder / "cohort", scan, "desc-brain_mask.nii.gz"), mask, affine)
    save_volume(anat(folder / "lowfield", scan, "space-HQ_T1w.nii.gz"), low, affine)
    for stage in ("cohort", "lowfield"):
        write_json(anat(folder / stage, scan, "T1w.json"), {"status": OK})
    return low, mask


def test_scans_are_enhanced_inside_the_mask_and_failures_recorded(model: Path, tmp_path: Path) -> None:
    low, mask = write_scan(tmp_path, "sub-a")
    write_json(anat(tmp_path / "lowfield", "sub-b", "T1w.json"), {"status": "cohort: no such file"})
    folders = tmp_path / "cohort", tmp_path / "lowfield"
    enhance_scans(["sub-a", "sub-b"], *folders, model, tmp_path / "out", "T1w", usage(steps=1, samples=2), 1, "float32")
    result = read_volume(flat(tmp_path / "out", "sub-a", "T1w.nii.gz"))
    spread = read_volume(flat(tmp_path / "out", "sub-a", "desc-sd_T1w.nii.gz"))
    np.testing.assert_allclose(result.affine, np.diag([2.0, 2, 2, 1]))
    assert (result.data[mask == 0] == 0).all()
    assert (spread.data[mask == 0] == 0).all()
    assert (result.data[mask > 0] != 0).mean() > 0.99
    record = read_json(flat(tmp_path / "out", "sub-a", "T1w.json"))
    assert (record["status"], record["nfe"], record["samples"]) == (OK, 2, 2)
    assert record["n_parameters"] > 0
    # The box begins at the volume's edge along x; the tiles of 16 and the patches of 4 are told in its voxels.
    assert record["tile"] == [16, 16, 16]
    assert 16 in record["tile_borders"][0]
    assert {4, 8, 12, 16} <= set(record["patch_borders"][0])
    assert read_json(flat(tmp_path / "out", "sub-b", "T1w.json"))["status"] == "lowfield: cohort: no such file"
    assert not flat(tmp_path / "out", "sub-b", "T1w.nii.gz").exists()

    enhance_scans(["sub-a"], *folders, None, tmp_path / "cubic", "T1w", {"kind": "cubic"}, 1, "float32")
    cubic = read_volume(flat(tmp_path / "cubic", "sub-a", "T1w.nii.gz")).data
    np.testing.assert_allclose(cubic, low * mask / intensity_scale(low, mask), rtol=1e-6)


def test_a_trained_method_without_its_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs --model"):
        enhance_scans([], tmp_path, tmp_path, None, tmp_path, "T1w", usage(), 1, "float32")


def test_linear_interpolation_keeps_places_and_repeats_the_last_slice() -> None:
    """Thick slices of a ramp along z, four voxels apart, in a frame with an offset: a linear function comes back as it
    is between the first slice's centre and the last's, and beyond them it stays at their values."""
    reference = Volume(
        np.zeros((3, 4, 20), np.float32), np.array([[2.0, 0, 0, -5], [0, 2, 0, 7], [0, 0, 2, 11], [0, 0, 0, 1]])
    )
    thick_affine = reference.affine @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 4, 1.5], [0, 0, 0, 1]])
    centres = 1.5 + 4 * np.arange(5)
    thick = Volume(np.broadcast_to(centres.astype(np.float32), (3, 4, 5)).copy(), thick_affine)
    result = linear(thick, reference)
    np.testing.assert_allclose(result.data[1, 2], np.clip(np.arange(20), 1.5, 17.5), atol=1e-5)
    np.testing.assert_array_equal(result.affine, reference.affine)


def test_the_linear_method_reads_the_thick_slices(tmp_path: Path) -> None:
    low, mask = write_scan(tmp_path, "sub-a")
    thick = low[:, :, ::4] + 50
    affine = np.diag([2.0, 2, 8, 1])
    save_volume(anat(tmp_path / "lowfield", "sub-a", "T1w.nii.gz"), thick, affine)
    folders = tmp_path / "cohort", tmp_path / "lowfield"
    enhance_scans(["sub-a"], *folders, None, tmp_path / "out", "T1w", {"kind": "linear"}, 1, "float32")
    result = read_volume(flat(tmp_path / "out", "sub-a", "T1w.nii.gz")).data
    expected = linear(Volume(thick, affine), Volume(low, np.diag([2.0, 2, 2, 1]))).data
    np.testing.assert_allclose(result, expected * mask / intensity_scale(expected, mask), rtol=1e-5)


def test_a_jobs_memory_on_a_gpu_is_its_share_of_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (3e9, 80e9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 2e9)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 1e9)
    cuda = torch.device("cuda")
    assert memory.available_bytes(cuda) == 4e9, "of a single scan, what is free"
    assert memory.available_bytes(cuda, 6000) == 80e9, "of a job, the card, whatever is free"
    monkeypatch.setenv("IQT_GPU_SHARING", "2")
    assert memory.available_bytes(cuda, 6000) == 40e9
