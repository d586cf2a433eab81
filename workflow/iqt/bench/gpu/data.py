"""The volume and the patch store of a session: given, packed in a bundle, or made from the template brain."""

from __future__ import annotations

import io
import itertools
import json
import zipfile
import zlib
from pathlib import Path

import numpy as np

from iqt.bench.gpu.setup import read_volume
from iqt.errors import UserError
from iqt.io.batch import OK
from iqt.io.files import read_json, read_table, replacing, write_json, write_table
from iqt.io.naming import anat, flat
from iqt.io.volumes import bounding_box, save_volume
from iqt.training.store import MARGIN, build_store

TOY_STEP = 6
"""Of a toy volume every so many voxels of the template's grid are kept along each axis."""
PARTICIPANTS = "participants.tsv"
MANIFEST = 20_000
"""Bytes kept for the table and the sidecars of a packed store."""
SLAB = 4
"""Slices that are averaged in the template's low-field copy."""
TEMPLATE_SCANS = {"sub-template1": "train", "sub-template2": "train", "sub-template3": "val"}


def write_template_volume(out: Path) -> None:
    """Write the template brain at 1 mm on 256^3 voxels, standardised in the brain, and its mask."""
    from iqt.bench.cost import template_volume

    data, mask = template_volume()
    data = np.where(mask, (data - data[mask].mean()) / data[mask].std(), 0)
    with replacing(out) as temporary, temporary.open("wb") as handle:
        np.savez_compressed(handle, data=data.astype(np.float16), mask=mask)


def shrink_volume(volume: Path, out: Path) -> None:
    """A toy volume: every so many voxels of another."""
    data, mask = (each[(slice(None, None, TOY_STEP),) * 3] for each in read_volume(volume))
    with replacing(out) as temporary, temporary.open("wb") as handle:
        np.savez_compressed(handle, data=data, mask=mask)


def template_store(volume: Path, folder: Path) -> Path:
    """A store of three noisy copies of a volume, whose low-field version is the mean of slabs of slices: enough to time
    a training, and nothing to judge a method by."""
    data, mask = read_volume(volume)
    box = bounding_box(mask, MARGIN)
    data, mask = data[box].astype(np.float32), mask[box]
    bright = np.where(mask, data - data[mask].min() + 1, 0)
    depth = data.shape[2] // SLAB * SLAB
    for number, scan in enumerate(TEMPLATE_SCANS):
        noise = np.random.default_rng(number).standard_normal(data.shape, dtype=np.float32)
        high = np.where(mask, bright + 0.1 * noise, 0)
        low = high.copy()
        slabs = high[:, :, :depth].reshape(*data.shape[:2], -1, SLAB).mean(axis=3)
        low[:, :, :depth] = np.repeat(slabs, SLAB, axis=2)
        files = (
            ("cohort", "T1w.nii.gz", high),
            ("cohort", "desc-brain_mask.nii.gz", mask),
            ("lowfield", "space-HQ_T1w.nii.gz", low),
        )
        for stage, ending, values in files:
            save_volume(anat(folder / stage, scan, ending), values, np.eye(4))
        for stage in ("cohort", "lowfield"):
            write_json(anat(folder / stage, scan, "T1w.json"), {"status": OK})
    store = folder / "store"
    build_store(TEMPLATE_SCANS, folder / "cohort", folder / "lowfield", store, "T1w")
    write_table(store / PARTICIPANTS, [{"scan": scan, "split": split} for scan, split in TEMPLATE_SCANS.items()])
    return store


def store_of(run: Path) -> tuple[Path, Path]:
    """The patch store of a run's set `main`, and the table of its people; UserError where it has none."""
    store, participants = run / "store" / "main", run / "cohort" / PARTICIPANTS
    for path in (store, participants):
        if not path.exists():
            raise UserError(f"{path}: no such file or folder; name the folder of a run whose models were trained")
    return store, participants


def pack_store(run: Path, out: Path, limit: float) -> dict[str, int]:
    """Pack what fits into a ZIP of `limit` bytes of a run's training and validation people, one for validation to every
    four, each with one acquisition and a number for a name. Returns how many of each split it holds.

    Raises:
        UserError: the run has no store, or not even two for training and one for validation fit.
    """
    store, participants = store_of(run)
    waiting: dict[str, list[str]] = {"train": [], "val": []}
    for row in read_table(participants, required=("scan", "split")):
        if row["split"] in waiting and read_json(flat(store, row["scan"], "pair.json"))["status"] == OK:
            waiting[row["split"]].append(row["scan"])
    rows: list[dict[str, str]] = []
    with replacing(out) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for split in itertools.cycle(("train", "val", "train", "train", "train")):
            if not waiting[split]:
                break
            scan, name = waiting[split].pop(0), f"sub-{len(rows) + 1:02d}"
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as alone:
                for ending in ("pair.npy", "mask.npy"):
                    alone.write(flat(store, scan, ending), f"{name}_{ending}")
            if archive.fp.tell() + len(packed.getvalue()) > limit - MANIFEST:
                break
            record = read_json(flat(store, scan, "pair.json"))
            record.pop("further_draws", None)
            archive.writestr(f"{name}_pair.json", json.dumps(record))
            archive.writestr(f"{name}.zip", packed.getvalue(), zipfile.ZIP_STORED)
            rows.append({"scan": name, "split": split})
        lines = [f"{row['scan']}\t{row['split']}" for row in rows]
        archive.writestr(PARTICIPANTS, "\n".join(["scan\tsplit", *lines, ""]))
    counts = {split: sum(row["split"] == split for row in rows) for split in waiting}
    if counts["train"] < 2 or counts["val"] < 1:
        out.unlink()
        raise UserError(
            f"{store}: {counts['train']} scans for training and {counts['val']} for validation are usable and fit "
            f"into {limit / 1e6:.0f} MB; 2 and 1 are needed"
        )
    return counts


def unpack_store(archive: Path, folder: Path) -> Path:
    """Unpack what `pack_store` wrote; UserError where it is damaged."""
    try:
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(folder)
        for inner in folder.glob("sub-*.zip"):
            with zipfile.ZipFile(inner) as packed:
                packed.extractall(folder)
            inner.unlink()
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UserError(f"{archive}: not a packed store ({error}); pack it again") from None
    return folder
