"""The engines of cohort.mask on real heads: Dice with the brain of a label map, and seconds. Needs IQT_REAL_DATA.

`make bench-masks` runs it. The heads are the 24 of `ixi_muse` (2 mm; the brain is DLMUSE's labels above 0, which leaves
out CSF around the cortex) and that of 900002 (1 mm; FreeSurfer's mask).
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import time
from pathlib import Path

import numpy as np
from scipy import ndimage

from iqt.config import Mask
from iqt.errors import UserError
from iqt.imaging.brain_mask import make_mask
from iqt.imaging.checks import mask_problems
from iqt.io.volumes import Volume, read_on_grid, read_volume


def heads(real: Path) -> list[tuple[str, Volume, np.ndarray]]:
    """Name, head and brain (bool) of each."""
    found = []
    for path in sorted((real / "ixi_muse").glob("sub-*/anat/*_T1w.nii.gz")):
        scan = read_volume(path)
        labels = read_on_grid(str(path).replace("_T1w", "_desc-muse_dseg"), scan, np.int32)
        found.append((f"ixi_muse {path.name.split('_')[0]}", scan, ndimage.binary_fill_holes(labels > 0)))
    scan = read_volume(real / "full_head" / "visualqc_T1w.nii.gz")
    truth = read_on_grid(real / "hcp_layout/HCP_1200/900002/T1w/brainmask_fs.nii.gz", scan, np.uint8) > 0
    return [*found, ("900002", scan, truth)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", nargs="+", default=["deepbet", "brainextractor", "bet"])
    arguments = parser.parse_args()
    people = heads(Path(os.environ["IQT_REAL_DATA"]))
    make_mask(people[0][1], Mask())  # imports and the networks' loading are not what is timed
    print("| engine | head | Dice | lowest | seconds | refused |\n|---|---|---:|---:|---:|---:|")
    for engine in arguments.engines:
        if engine == "bet" and shutil.which("bet") is None:
            print("| bet | not measured: FSL is not installed here | | | | |")
            continue
        scores: dict[str, list[tuple[float, float, bool]]] = {}
        for name, scan, truth in people:
            start = time.perf_counter()
            try:
                found = make_mask(scan, Mask(engine=engine)).data > 0
            except UserError:
                found = np.zeros(truth.shape, bool)
            seconds = time.perf_counter() - start
            dice = 2 * float((found & truth).sum()) / max(1, float(found.sum() + truth.sum()))
            scores.setdefault(name.split()[0], []).append((dice, seconds, bool(mask_problems(found, scan.affine))))
        for name, rows in scores.items():
            dice, seconds, wrong = zip(*rows, strict=True)
            print(
                f"| {engine} | {len(rows)} of {name} | {np.mean(dice):.3f} | {min(dice):.3f} | "
                f"{np.median(seconds):.1f} | {sum(wrong)} |",
                flush=True,
            )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"\n{os.environ.get('OMP_NUM_THREADS', 'all')} threads; peak memory {peak:.1f} GB")


if __name__ == "__main__":
    main()
