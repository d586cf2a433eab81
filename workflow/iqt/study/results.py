"""Where the results of a study's scans lie."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from iqt.io.files import read_table
from iqt.io.naming import beside
from iqt.parcellate.volumes import VOLUMES_ENDING
from iqt.study.scans import StudyScan


class Results(NamedTuple):
    """Where a scan's results lie."""

    enhanced: Path
    sd: Path
    residual: Path
    """The scan minus the result acquired again, in the scan's voxels."""
    mask: Path
    labels: Path
    prepared: Path
    """What is enhanced, where that is not a file of the dataset: a converted series, or stacks combined."""
    page: Path
    record: Path
    """Its status, and everything that is known of it; a sidecar without a volume would be none of BIDS."""

    @classmethod
    def of(cls, out: Path, scan: StudyScan, suffix: str) -> Results:
        """Those of a scan below the folder of the results."""
        start = out / scan.folder / scan.name
        return cls(
            *(
                start.with_name(f"{start.name}_{ending}.nii.gz")
                for ending in (
                    f"desc-enhanced_{suffix}",
                    f"desc-sd_{suffix}",
                    f"desc-residual_{suffix}",
                    "desc-brain_mask",
                    "desc-enhanced_dseg",
                )
            ),
            out / "sourcedata" / scan.folder / f"{scan.name}_{suffix}.nii.gz",
            out / "pages" / f"{scan.name}.html",
            out / "records" / f"{scan.name}.json",
        )

    @property
    def sidecar(self) -> Path:
        """Of the enhanced scan."""
        return beside(self.enhanced, ".json")

    @property
    def prepared_mask(self) -> Path:
        """Of stacks that were combined."""
        return self.prepared.with_name(self.mask.name)

    @property
    def all(self) -> list[Path]:
        """Everything that is written of a scan but its record."""
        images = [
            self.enhanced,
            self.sidecar,
            self.sd,
            self.residual,
            self.mask,
            beside(self.mask, ".json"),
            self.labels,
        ]
        images += [beside(path, ".json") for path in (self.sd, self.residual)]
        prepared = [self.prepared, beside(self.prepared, ".json"), self.prepared_mask]
        return [*images, *self.volumes, *prepared, self.page]

    @property
    def volumes(self) -> list[Path]:
        """What lies beside the label map."""
        return [beside(self.labels, ending) for ending in (".json", ".tsv", VOLUMES_ENDING)]


def structure_volumes(results: Results) -> dict[str, float]:
    """Volume in mm3 by structure; empty where the scan was not labelled."""
    path = beside(results.labels, VOLUMES_ENDING)
    rows = read_table(path, required=("name", "volume_mm3")) if path.is_file() else []
    return {row["name"]: float(row["volume_mm3"]) for row in rows}
