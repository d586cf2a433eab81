"""Series of DICOM files as a scanner writes them, one file a slice."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write_series(
    folder: Path,
    data: np.ndarray,
    affine: np.ndarray,
    description: str,
    patient: str = "P 01",
    date: str = "20260301",
    study: str = "1.2.826.0.1.1",
    number: int = 1,
    modality: str = "MR",
    image_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "M", "ND"),
) -> None:
    """Write a volume (X, Y, Z) in any orientation, its slices along the last axis, as 16-bit numbers up to 1000."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = np.rint(1000 * np.clip(data / data.max(), 0, 1)).astype(np.uint16)
    lps, size = TO_LPS @ affine, nib.affines.voxel_sizes(affine)
    series = generate_uid()
    for index in range(data.shape[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = MRImageStorage if modality == "MR" else CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = folder / f"{number:02}-{index:04}"
        file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        file.PatientID, file.PatientName = patient, "Somebody^Real"
        file.StudyInstanceUID, file.SeriesInstanceUID, file.FrameOfReferenceUID = study, series, f"{study}.9"
        file.StudyDate, file.StudyTime, file.SeriesNumber, file.InstanceNumber = date, "101500", number, index + 1
        file.Modality, file.SeriesDescription, file.Manufacturer = modality, description, "Hyperfine"
        file.ImageType, file.PatientPosition, file.MagneticFieldStrength = list(image_type), "HFS", 0.064
        file.RepetitionTime, file.EchoTime, file.AcquisitionNumber = 1500, 6, 1
        columns, rows = lps[:3, 0] / size[0], lps[:3, 1] / size[1]
        file.ImageOrientationPatient = [float(value) for value in (*columns, *rows)]
        file.ImagePositionPatient = [float(value) for value in (lps @ [0, 0, index, 1])[:3]]
        file.PixelSpacing = [float(size[1]), float(size[0])]
        file.SliceThickness = file.SpacingBetweenSlices = float(size[2])
        file.Rows, file.Columns = data.shape[1], data.shape[0]
        file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
        file.BitsAllocated = file.BitsStored = 16
        file.HighBit, file.PixelRepresentation = 15, 0
        file.PixelData = np.ascontiguousarray(whole[:, :, index].T).tobytes()
        file.save_as(path, enforce_file_format=True)
