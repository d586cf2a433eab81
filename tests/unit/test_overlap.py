"""Overlap of structures against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from textured import SHAPE, random_labels

from iqt.errors import UserError
from iqt.imaging.overlap import mean_overlap, missed, n_present, overlap

NAMES = {1: "one", 2: "two", 3: "three", 9: "nowhere"}


def test_overlap_is_scikit_learns():
    from sklearn.metrics import f1_score, jaccard_score

    reference, result = random_labels(1), random_labels(2)
    affine = np.diag([-2.0, 1.5, 3.0, 1.0])
    found = overlap(reference, result, affine, NAMES)
    assert [structure.index for structure in found] == [1, 2, 3, 9]
    assert np.isnan([found[3].iou, found[3].dice]).all(), "neither map holds it"
    assert n_present(found) == 3
    found = found[:3]
    truth = {"labels": [1, 2, 3], "average": None}
    np.testing.assert_allclose([one.iou for one in found], jaccard_score(reference.ravel(), result.ravel(), **truth))
    np.testing.assert_allclose([one.dice for one in found], f1_score(reference.ravel(), result.ravel(), **truth))
    np.testing.assert_allclose([one.volume_mm3 for one in found], [9 * (result == k).sum() for k in (1, 2, 3)])
    np.testing.assert_allclose(
        [one.volume_reference_mm3 for one in found], [9 * (reference == k).sum() for k in (1, 2, 3)]
    )


def test_structures_in_one_map_count_as_zero_and_in_neither_not_at_all():
    reference = np.zeros(SHAPE, np.int16)
    reference[:5] = 1
    reference[5:10] = 2
    result = np.where(reference == 2, 3, reference)
    found = overlap(reference, result, np.eye(4), NAMES)
    present = [one for one in found if one.index != 9]
    assert [(one.index, one.iou, one.dice) for one in present] == [(1, 1, 1), (2, 0, 0), (3, 0, 0)]
    assert mean_overlap(found) == pytest.approx((1 / 3, 1 / 3))
    lost = missed(reference, np.eye(4), NAMES)
    assert [(one.index, one.iou) for one in lost if one.volume_reference_mm3 > 0] == [(1, 0), (2, 0)]
    assert all(np.isnan(one.volume_mm3) for one in lost)
    assert n_present(lost) == 2
    with pytest.raises(UserError, match="label 3"):
        overlap(reference, result, np.eye(4), {1: "one", 2: "two"})
