"""Whether a result explains its input."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from iqt.enhance.consistency import Consistency, consistency
from iqt.enhance.single import _disagreement
from iqt.imaging.acquisition import Acquisition
from iqt.io.volumes import Volume
from people import person


def acquire(volume: np.ndarray, affine: np.ndarray, edges: tuple[int, int, int]) -> Volume:
    """Slices of a volume by the operator that stacks are combined with, written independently of what is tested."""
    shape = tuple(size // edge for size, edge in zip(volume.shape, edges, strict=True))
    thick = affine @ nib.affines.from_matvec(np.diag(edges), (np.array(edges) - 1) / 2)
    return Volume(Acquisition((volume.shape, affine), (shape, thick)).forward(volume.astype(np.float32)), thick)


@pytest.mark.parametrize("edges", [(1, 1, 3), (3, 1, 1), (2, 2, 2)])
def test_a_result_that_is_the_truth_explains_all_of_its_input(edges: tuple[int, int, int]) -> None:
    made = person("01", 2.0)
    truth = np.where(made.mask, made.T1w, 0)
    found = consistency(Volume(truth / 500, made.affine), made.mask, acquire(truth, made.affine, edges))
    assert found.unexplained < 0.1  # the two sample their Gaussians at other places
    blurred = np.full(truth.shape, truth[made.mask].mean())
    rng = np.random.default_rng(1)
    nothing = Volume(np.where(made.mask, blurred + rng.normal(size=truth.shape), 0), made.affine)
    assert consistency(nothing, made.mask, acquire(truth, made.affine, edges)).unexplained > 0.9


def test_what_a_result_invents_shows_where_it_is_and_as_large_as_it_is() -> None:
    made = person("01", 2.0)
    truth = np.where(made.mask, made.T1w, 0).astype(np.float32) / 500
    acquired = acquire(truth, made.affine, (1, 1, 3))
    centre = tuple(int(np.median(where)) for where in np.nonzero(made.mask))
    lesion = tuple(slice(at - 4, at + 4) for at in centre)
    invented = truth.copy()
    invented[lesion] += 0.4
    before, after = (consistency(Volume(image, made.affine), made.mask, acquired) for image in (truth, invented))
    assert after.unexplained > 2 * before.unexplained
    place = np.unravel_index(np.argmin(after.difference.data), acquired.data.shape)
    world = nib.affines.apply_affine(acquired.affine, place)
    middle = nib.affines.apply_affine(made.affine, np.array(centre) - 0.5)
    assert np.abs(world - middle).max() < 12
    assert after.difference.data.min() == pytest.approx(-0.4, abs=0.1)


def test_axes_in_another_order_and_an_oblique_scan_change_nothing() -> None:
    made = person("01", 2.0)
    truth = np.where(made.mask, made.T1w, 0).astype(np.float32)
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", (8, -5, 3), degrees=True).as_matrix()
    acquired, result = acquire(truth, turn @ made.affine, (1, 1, 3)), Volume(truth, turn @ made.affine)
    turned = nib.Nifti1Image(acquired.data, acquired.affine).as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(acquired.affine), nib.orientations.axcodes2ornt("PSR"))
    )
    stored = Volume(np.ascontiguousarray(turned.get_fdata(dtype=np.float32)), turned.affine)
    one, other = (consistency(result, made.mask, each) for each in (acquired, stored))
    assert one.unexplained == pytest.approx(other.unexplained, abs=1e-4)
    assert one.unexplained < 0.05


def test_too_small_a_brain_says_nothing() -> None:
    mask = np.zeros((20, 20, 20), bool)
    mask[9:11, 9:11, 9:11] = True
    image = Volume(np.random.default_rng(1).normal(size=mask.shape).astype(np.float32), np.eye(4))
    assert consistency(image, mask, image) is None


def test_bright_and_dark_in_each_others_place_explain_nothing() -> None:
    made = person("01", 2.0)
    truth = np.where(made.mask, made.T1w, 0).astype(np.float32)
    found = consistency(
        Volume(np.where(made.mask, 900 - truth, 0), made.affine), made.mask, acquire(truth, made.affine, (1, 1, 3))
    )
    assert found.unexplained == 1.0
    assert np.abs(found.difference.data).max() < 20


@pytest.mark.parametrize(("unexplained", "limit", "said"), [(0.4, 0.3, True), (0.2, 0.3, False), (0.9, None, False)])
def test_a_warning_comes_beyond_the_limit_of_the_card_alone(
    unexplained: float, limit: float | None, said: bool
) -> None:
    nothing = Volume(np.zeros((1, 1, 1), np.float32), np.eye(4))
    card = {"consistency": None if limit is None else {"limit": limit}}
    text = _disagreement(Consistency(unexplained, nothing), card)
    assert (text is not None) == said
    assert not said or "40 %" in text
