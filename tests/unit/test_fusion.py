"""Stacks of one session: the acquisition as an operator, and what combining them brings."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from iqt.degrade.register import Alignment, center, on_grid
from iqt.errors import UserError
from iqt.evaluate.similarity import masked_psnr
from iqt.imaging.acquisition import Acquisition
from iqt.imaging.resample import lost_between
from iqt.io.volumes import Volume, intensity_scale
from iqt.study import fusion
from iqt.study.fusion import Stack, average, combine, reconstruct
from people import person

GRID = ((18, 20, 22), np.diag([1.0, 1.0, 1.0, 1.0]))


def tilted(shape: tuple[int, int, int], size: tuple[float, float, float]) -> tuple[tuple[int, ...], np.ndarray]:
    turn = Rotation.from_euler("xyz", (4, -3, 5), degrees=True).as_matrix()
    return shape, nib.affines.from_matvec(turn @ np.diag(size), (1.5, 0.7, -0.4))


@pytest.mark.parametrize(
    "acquired", [tilted((12, 9, 5), (1.4, 1.9, 4.0)), tilted((6, 18, 20), (3.0, 1.0, 1.0))], ids=["axial", "sagittal"]
)
def test_the_transpose_is_the_transpose(acquired: tuple[tuple[int, ...], np.ndarray]) -> None:
    operator, rng = Acquisition(GRID, acquired), np.random.default_rng(1)
    volume, voxels = rng.normal(size=GRID[0]).astype(np.float32), rng.normal(size=acquired[0]).astype(np.float32)
    left = float((operator.forward(volume).astype(float) * voxels).sum())
    right = float((volume.astype(float) * operator.transpose(voxels)).sum())
    assert left == pytest.approx(right, rel=1e-4)


def test_an_acquisition_is_the_simulators_profile_at_the_voxels_centres() -> None:
    volume = np.random.default_rng(1).normal(size=(16, 16, 24)).astype(np.float32)
    acquired = (16, 16, 8), nib.affines.from_matvec(np.diag([1, 1, 3.0]), (0, 0, 1))
    found = Acquisition((volume.shape, np.eye(4)), acquired).forward(volume)
    wanted = gaussian_filter1d(volume, float(lost_between(1, 3)), axis=2, mode="nearest", truncate=6)[:, :, 1::3]
    assert np.abs(found - wanted).max() < 2e-3 * wanted.std()
    flat = Acquisition((volume.shape, np.eye(4)), acquired).forward(np.full(volume.shape, 3.0, np.float32))
    assert flat == pytest.approx(3.0, rel=1e-5)


@pytest.mark.parametrize("edge", [1.5 - 1e-7, 1.5 + 1e-7, 2.5 - 1e-7, 2.5 + 1e-7, 3 - 1e-7, 3 + 1e-7])
def test_the_profile_has_the_width_that_is_wanted_and_no_step_at_a_rounding_error(edge: float) -> None:
    """What a voxel sees of an impulse moved through it; linear interpolation adds at most a quarter to a variance."""
    volume, seen = np.zeros((1, 1, 61), np.float32), []
    acquired = (1, 1, 9), nib.affines.from_matvec(np.diag([1, 1, edge]), (0, 0, 30 - 4 * edge))
    operator = Acquisition((volume.shape, np.eye(4)), acquired)
    for position in range(61):
        volume[:] = 0
        volume[0, 0, position] = 1
        seen.append(float(operator.forward(volume)[0, 0, 4]))
    places = np.arange(61) - 30
    deviation = np.sqrt(np.average(places**2, weights=seen))
    wanted = float(lost_between(1, edge))
    assert wanted - 0.01 < deviation < np.hypot(wanted, 0.5) + 0.01


@pytest.fixture(scope="module")
def scanned() -> tuple[Volume, np.ndarray, list[Stack], list[np.ndarray]]:
    """A template person at 2 mm, its mask, three stacks of 6 mm, and how the head had moved before each."""
    made = person("01", 2.0)
    high, middle = Volume(made.T1w, made.affine), center(made.mask, made.affine)
    moves, stacks = [np.eye(4)], []
    for angles, shift in (((2.5, -1.5, 2), (2, -1.5, 2.5)), ((-2, 3, 1), (-3, 1, 2))):
        turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
        moves.append(nib.affines.from_matvec(turn, middle + shift - turn @ middle))
    for axis, move in zip((2, 1, 0), moves, strict=True):
        edges = np.ones(3)
        edges[axis] = 3
        shape = tuple(int(size) for size in np.array(made.T1w.shape) // edges)
        affine = made.affine @ nib.affines.from_matvec(np.diag(edges), (edges - 1) / 2)
        # The head moves, the scanner's grid stays: seen from the head the grid moves the other way.
        operator = Acquisition((made.T1w.shape, made.affine), (shape, np.linalg.inv(move) @ affine))
        thick = operator.forward(made.T1w.astype(np.float32))
        inside = operator.forward(made.mask.astype(np.float32)) >= 0.5
        noise = np.random.default_rng(axis).normal(0, 0.02 * intensity_scale(made.T1w, made.mask), shape)
        stacks.append(Stack("RAS"[axis], Volume((thick + noise).astype(np.float32), affine), inside))
    return high, made.mask, stacks, moves


@pytest.mark.slow
def test_moved_stacks_are_put_in_their_place_and_tell_more_than_one(
    scanned: tuple[Volume, np.ndarray, list[Stack], list[np.ndarray]],
) -> None:
    high, mask, stacks, moves = scanned
    found = combine(stacks)  # each registration takes a minute
    assert found.warnings == []
    points = nib.affines.apply_affine(high.affine, np.argwhere(mask)[::100])
    for told, move in zip(found.stacks[1:], moves[1:], strict=True):
        matrix = np.array(told["matrix"])
        apart = nib.affines.apply_affine(matrix, points) - nib.affines.apply_affine(move, points)
        assert np.linalg.norm(apart, axis=1).mean() < 0.5
    truth = np.where(mask, high.data, 0) / intensity_scale(high.data, mask)

    def score(volume: Volume) -> float:
        moved = np.where(mask, on_grid(volume, high), 0)
        return masked_psnr(truth, moved / intensity_scale(moved, mask), mask)

    assert score(found.volume) > score(stacks[0].scan) + 1
    overlap = (on_grid(Volume(found.mask.astype(np.float32), found.volume.affine), high) >= 0.5) & mask
    assert overlap.sum() > 0.95 * mask.sum()


def test_least_squares_find_more_than_the_mean(
    scanned: tuple[Volume, np.ndarray, list[Stack], list[np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    high, mask, stacks, moves = scanned
    monkeypatch.setattr(fusion, "VOXEL_MM", 2.0)
    placed = [
        Volume(stack.scan.data, np.linalg.inv(move) @ stack.scan.affine)
        for stack, move in zip(stacks, moves, strict=True)
    ]
    errors = [float(np.square((made - high.data)[mask]).mean()) for made in (
        average(placed, high), reconstruct(placed, high),
    )]  # fmt: skip
    assert errors[1] < 0.7 * errors[0]


def test_a_stack_that_cannot_be_registered_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    made = person("01", 4.0)
    monkeypatch.setattr(fusion, "VOXEL_MM", 4.0)
    scan = Volume(made.T1w.astype(np.float32), made.affine)
    stacks = [Stack(name, scan, made.mask) for name in ("one", "two", "three")]

    def register(low: Volume, high: Volume, mask: np.ndarray, kind: str) -> Alignment:
        if register.calls == 0:
            register.calls += 1
            raise UserError("nothing in common was found")
        return Alignment(np.eye(4), [0.1] * 8, 1.0)

    register.calls = 0
    monkeypatch.setattr(fusion, "register", register)
    found = combine(stacks)
    assert found.warnings == ["two is not used: nothing in common was found"]
    assert [one["name"] for one in found.stacks] == ["one", "three"]
    register.calls = 0
    with pytest.raises(UserError, match=r"no two of the 2 stacks can be combined: two is not used"):
        combine(stacks[:2])
