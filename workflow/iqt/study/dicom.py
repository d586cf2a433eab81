"""Folders of DICOM: the series that they hold, and one of them as NIfTI, by dcm2niix (Li et al. 2016)."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from iqt.errors import StopError, UserError
from iqt.io.files import read_json, replacing, write_json
from iqt.io.naming import beside
from iqt.terminal import detail

MAGIC = b"DICM"
"""Bytes 128 to 131 of a DICOM file (PS3.10, section 7.1)."""
READ = {
    "uid": "SeriesInstanceUID",
    "study": "StudyInstanceUID",
    "patient": "PatientID",
    "date": "StudyDate",
    "number": "SeriesNumber",
    "description": "SeriesDescription",
    "protocol": "ProtocolName",
    "modality": "Modality",
    "image_type": "ImageType",
}
"""What is read of a file's header; the two UIDs are kept as hashes."""
DAMAGED = "damaged"
"""In the place of a header that cannot be read."""
KEPT = (
    "Modality",
    "MagneticFieldStrength",
    "ImagingFrequency",
    "Manufacturer",
    "ManufacturersModelName",
    "SoftwareVersions",
    "SeriesDescription",
    "ProtocolName",
    "ScanningSequence",
    "SequenceVariant",
    "SequenceName",
    "MRAcquisitionType",
    "ImageType",
    "SliceThickness",
    "SpacingBetweenSlices",
    "EchoTime",
    "RepetitionTime",
    "InversionTime",
    "FlipAngle",
    "PixelBandwidth",
    "ConversionSoftware",
    "ConversionSoftwareVersion",
)
"""What is kept of the JSON that dcm2niix writes: nothing of people, places, days or free text but what the series is
called."""
REFORMATTED = ("LOCALIZER", "MPR", "MIP", "PROJECTION IMAGE", "SCREEN SAVE", "CSA REPORT", "ADC", "FA")
"""Values of ImageType of what is no scan as it was acquired."""
INSTALL = "reading DICOM needs dcm2niix and pydicom; `make setup` or `pip install iqt[dicom]` does it"


class Series(NamedTuple):
    """A series of DICOM files, in the words of their headers (`READ`)."""

    header: dict[str, str]
    files: tuple[Path, ...]

    @property
    def described(self) -> str:
        """What the scanner's operator called it."""
        return self.header["description"] or self.header["protocol"]

    @property
    def no_scan(self) -> str | None:
        """Why it is no scan as it was acquired, if its header says so."""
        if self.header["modality"] not in ("MR", ""):
            return f"a series of modality {self.header['modality']}"
        kinds = [kind for kind in REFORMATTED if kind in self.header["image_type"].split("\\")]
        return f"no scan as it was acquired, by its image type ({kinds[0]})" if kinds else None


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do."""
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == MAGIC
    except OSError:
        return False


def read_series(root: Path, files: Iterable[Path], known: Path | None) -> tuple[list[Series], list[Path]]:
    """The series among files below a folder, in the order of patient, day, number and first file, and the damaged DICOM
    files.

    Args:
        known: a JSON that keeps what was read, so that no unchanged file is opened again; None to keep nothing.

    Raises:
        StopError: pydicom is not installed.
    """
    before = read_json(known) if known is not None and known.is_file() else {}
    before = before if isinstance(before, dict) else {}
    damaged = []
    now: dict[str, list[Any]] = {}
    series: dict[str, list[Path]] = defaultdict(list)
    headers: dict[str, dict[str, str]] = {}
    for path in files:
        try:
            stat = path.stat()
        except OSError:
            continue
        stamp = [stat.st_size, stat.st_mtime_ns]
        name = path.relative_to(root).as_posix()
        old = before.get(name)
        header = old[1] if old and old[0] == stamp else _header(path)
        now[name] = [stamp, header]
        if header == DAMAGED:
            damaged.append(path)
        elif header is not None:
            series[header["uid"]].append(path)
            headers.setdefault(header["uid"], header)
    if known is not None and now != before:
        write_json(known, now)
    found = [Series(headers[uid], tuple(paths)) for uid, paths in series.items()]
    return sorted(found, key=lambda one: (one.header["patient"], one.header["date"], _number(one))), damaged


def to_nifti(files: tuple[Path, ...], out: Path) -> list[str]:
    """Write a series to `out` (.nii.gz) and what dcm2niix says of the acquisition, without names and dates, to the JSON
    beside it. Returns what dcm2niix warns of.

    Raises:
        StopError: dcm2niix is not installed.
        UserError: it fails, or makes none or several volumes of the series.
    """
    with tempfile.TemporaryDirectory(prefix="iqt-") as folder:
        given, made = Path(folder, "given"), Path(folder, "made")
        given.mkdir()
        made.mkdir()
        for number, path in enumerate(files):
            (given / f"{number:06}.dcm").symlink_to(path.resolve())
        command = [_program(), "-z", "n", "-b", "y", "-ba", "y", "-f", "scan", "-o", str(made), str(given)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        detail(f"dcm2niix: {done.stdout.strip()}")
        volumes = sorted(made.glob("*.nii"))
        if len(volumes) != 1:
            told = ", ".join(path.stem for path in volumes) or _last_line(done.stdout + done.stderr)
            raise UserError(
                f"{files[0].parent}: dcm2niix makes {len(volumes)} volumes of these {len(files)} DICOM files ({told}); "
                "convert them yourself, and give the study the NIfTI file that it shall enhance"
            )
        import nibabel as nib

        image = nib.load(volumes[0])
        image.header["descrip"], image.header["aux_file"] = b"", b""  # which may hold a time, or what somebody wrote
        with replacing(out) as pending:
            nib.save(image, pending)
        sidecar = volumes[0].with_suffix(".json")
        told = read_json(sidecar) if sidecar.is_file() else {}
        write_json(beside(out, ".json"), {key: told[key] for key in KEPT if key in told})
    said = re.findall(r"^(?:Warning|Error): (.*)$", done.stdout, re.MULTILINE)
    if done.returncode and not said:
        said = [_last_line(done.stdout + done.stderr)]
    return [f"dcm2niix: {text}" for text in dict.fromkeys(said)]


def _header(path: Path) -> dict[str, str] | str | None:
    """`READ` of a file as text; None where it is no DICOM file or holds no image of a series (a DICOMDIR, a report),
    `DAMAGED` where it cannot be read."""
    if not is_dicom(path):
        return None
    try:
        import pydicom
        from pydicom.uid import MediaStorageDirectoryStorage
    except ImportError:
        raise StopError(INSTALL) from None
    try:
        found = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=[*READ.values(), "Rows"])
    except Exception:  # a damaged header makes pydicom raise what it may
        return DAMAGED
    if "SeriesInstanceUID" not in found:
        index = found.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage
        return None if index else DAMAGED
    if "Rows" not in found:
        return None
    header = {key: _text(found.get(name)) for key, name in READ.items()}
    return header | {key: hashlib.sha256(header[key].encode()).hexdigest()[:12] for key in ("uid", "study")}


def _text(value: Any) -> str:
    if value is None:
        return ""
    return "\\".join(map(str, value)) if not isinstance(value, str) and hasattr(value, "__iter__") else str(value)


def _number(series: Series) -> tuple[int, Path]:
    number = series.header["number"]
    return (int(number) if number.isdecimal() else 0, series.files[0])


def _program() -> str:
    """dcm2niix: what its package brings, else what is on PATH."""
    try:
        import dcm2niix
    except ImportError:
        found = shutil.which("dcm2niix")
        if found is None:
            raise StopError(INSTALL) from None
        return found
    return str(dcm2niix.bin)


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it says nothing"
