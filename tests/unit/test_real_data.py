"""Real scans, where IQT_REAL_DATA points at some: headers and intensities that nobody made up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from iqt.config import LowField
from iqt.degrade.single import Extras, degrade_file
from iqt.degrade.tissues import TissueFiles
from iqt.errors import UserError
from iqt.io.files import read_json
from iqt.io.volumes import intensity_scale, read_on_grid, read_volume, save_volume

pytestmark = pytest.mark.real_data
WHITE = (2, 41, 7, 46, 77, 85, 251, 252, 253, 254, 255)
FLUID = (4, 5, 14, 15, 24, 43, 44, 63)


@pytest.mark.slow
@pytest.mark.parametrize("person", ["900001", "900002"])
def test_a_real_brain_goes_through_the_simulator(real: Path, person: str, tmp_path: Path) -> None:
    folder = real / "hcp_layout" / "HCP_1200" / person / "T1w"
    image = folder / "T1w_acpc_dc_restore_brain.nii.gz"
    volume = read_volume(image)
    labels = read_on_grid(folder / "aparc+aseg.nii.gz", volume, np.int32)
    white, fluid = np.isin(labels, WHITE), np.isin(labels, FLUID)
    posteriors = {"WM": white, "GM": (labels > 0) & ~white & ~fluid, "CSF": fluid}
    paths = {}
    for name, tissue in posteriors.items():
        paths[name] = tmp_path / f"{name}.nii.gz"
        save_volume(paths[name], tissue.astype(np.float32), volume.affine)

    extras = Extras(tmp_path / "on_grid.nii.gz")
    degrade_file(image, tmp_path / "thick.nii.gz", TissueFiles(paths), 1, LowField(), extras)
    thick, on_grid = read_volume(tmp_path / "thick.nii.gz"), read_volume(tmp_path / "on_grid.nii.gz")
    np.testing.assert_allclose(sorted(thick.voxel_size / volume.voxel_size), [1, 1, 4], rtol=1e-6)
    assert on_grid.data.shape == volume.data.shape
    np.testing.assert_allclose(on_grid.affine, volume.affine, atol=1e-4)
    mask = labels > 0
    scaled = on_grid.data / intensity_scale(on_grid.data, mask)
    reference = volume.data / intensity_scale(volume.data, mask)
    assert 0.7 < np.corrcoef(scaled[mask], reference[mask])[0, 1] < 0.999
    drawn = read_json(tmp_path / "thick.json")
    background = thick.data[: max(2, thick.data.shape[0] // 30)]
    assert background.std() == pytest.approx(drawn["measured"]["sigma"], rel=0.1), "noise of the drawn SNR"


@pytest.mark.slow
def test_every_real_volume_is_read_or_refused_with_a_sentence(real: Path) -> None:
    paths = sorted(real.rglob("*.nii.gz"))
    assert len(paths) > 20
    refused = {}
    for path in [path for path in paths if "label_maps" not in path.parts]:
        try:
            volume = read_volume(path)
        except UserError as error:
            refused[path] = str(error)
        else:
            assert volume.data.ndim == 3
            assert np.isfinite(volume.data).all()
    assert all(str(path) in message for path, message in refused.items())
