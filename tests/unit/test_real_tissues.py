"""The simulator's tissue engines on real brains, where IQT_REAL_DATA points at some."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from iqt.config import LowField, Tissues
from iqt.degrade.single import Extras, degrade_file
from iqt.degrade.tissues import TissueFiles, tissues_of_file
from iqt.errors import UserError
from iqt.io.files import read_json
from iqt.io.volumes import Volume, read_volume

pytestmark = pytest.mark.real_data


def test_engines_agree_on_a_real_brain(real: Path) -> None:
    """Every second voxel of 900001, which is quick; docs/simulator.md has the whole brains."""
    folder = real / "hcp_layout" / "HCP_1200" / "900001" / "T1w"
    volume = read_volume(folder / "T1w_acpc_dc_restore_brain.nii.gz")
    coarse = Volume(volume.data[::2, ::2, ::2].copy(), volume.affine @ np.diag([2.0, 2.0, 2.0, 1.0]))
    given = TissueFiles(labels=folder / "aparc+aseg.nii.gz", mask=folder / "brainmask_fs.nii.gz")
    name, labelled, _ = tissues_of_file(coarse, given, "T1w", Tissues())
    other, classified, _ = tissues_of_file(coarse, TissueFiles(), "T1w", Tissues())
    assert (name, other) == ("labels", "hmrf")
    for tissue in ("WM", "GM", "CSF"):
        one, two = labelled[tissue] > 0.5, classified[tissue] > 0.5
        assert 2 * (one & two).sum() / (one.sum() + two.sum()) > 0.6, tissue


@pytest.mark.slow
def test_a_portable_scanner_is_simulated_from_a_real_brain_with_its_labels(real: Path, tmp_path: Path) -> None:
    folder = real / "hcp_layout" / "HCP_1200" / "900001" / "T1w"
    image, out = folder / "T1w_acpc_dc_restore_brain.nii.gz", tmp_path / "low.nii.gz"
    given = TissueFiles(labels=folder / "aparc+aseg.nii.gz", mask=folder / "brainmask_fs.nii.gz")
    degrade_file(image, out, given, 1, LowField(preset="64mT"), Extras(tmp_path / "up.nii.gz", tmp_path / "steps.png"))
    volume, thick, up = read_volume(image), read_volume(out), read_volume(tmp_path / "up.nii.gz")
    np.testing.assert_allclose(thick.voxel_size, [1.6, 1.6, 5.0], rtol=0.01)
    assert up.data.shape == volume.data.shape
    brain = volume.data > 0
    assert 0.5 < np.corrcoef(up.data[brain], volume.data[brain])[0, 1] < 0.99
    record = read_json(tmp_path / "low.json")
    corner = thick.data[:6, :6]
    assert not brain[:9, :9].any()
    rayleigh = np.sqrt(np.pi / 2) * record["measured"]["sigma"]
    assert corner.mean() == pytest.approx(rayleigh, rel=0.1), "magnitude noise where there is no signal"


def test_true_low_field_scans_and_whole_heads_are_refused_clearly(real: Path, tmp_path: Path) -> None:
    thin = real / "lowfield_0.055T" / "F6A_lf0055_T1gre.nii.gz"
    with pytest.raises(UserError, match="only 4 along one axis"):
        degrade_file(thin, tmp_path / "x.nii.gz", TissueFiles(), 1, LowField())
    head = real / "full_head" / "visualqc_T1w.nii.gz"
    with pytest.raises(UserError, match="not skull-stripped"):
        degrade_file(head, tmp_path / "x.nii.gz", TissueFiles(), 1, LowField())
    assert not list(tmp_path.iterdir())
