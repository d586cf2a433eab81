"""`provenance.json`: how one run's results were made, in one file that stays with them."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from iqt import __version__
from iqt.compute.devices import machine
from iqt.config import Config
from iqt.io.files import read_json, read_table, write_json
from iqt.io.naming import Result
from iqt.provenance.chain import Chain, checksum, code_checksum, walk
from iqt.provenance.records import find_workdir, read_records

FORMAT = 1
PACKAGES = ("lightning", "monai", "nibabel", "nilearn", "numpy", "pandas", "scikit-image", "scipy", "torch")


def write_provenance(root: Path, results: Sequence[Path], config: Config, snakemake: str, out: Path) -> None:
    """Write how the run in `root` was made.

    Args:
        root: folder of the run, with benchmarks/ and models/.
        results: the files it was all for, recorded with their checksums.
        config: the whole configuration, every default filled in.
        snakemake: version of Snakemake, which need not be in this environment.
    """
    cards = {}
    for path in sorted((root / "models").glob("*/seed-*/model.json")):
        model, seed = path.parts[-3], int(path.parts[-2].removeprefix("seed-"))
        cards[Result.of(model, seed, config.training_seeds[0]).folder] = read_json(path)
    workdir = find_workdir(root)
    write_json(
        out,
        {
            "format": FORMAT,
            "name": config.name,
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
            "git": git_state(Path(__file__).parent),
            "versions": {
                "iqt": __version__,
                "snakemake": snakemake,
                "python": platform.python_version(),
                **_packages(),
            },
            "seeds": {
                "run": config.seed,
                "models": {name: card.get("seed") for name, card in cards.items()},
            },
            "host": {**machine(), "cores": os.cpu_count(), "system": f"{platform.system()} {platform.machine()}"},
            "trained_on": {name: card.get("machine", {}) for name, card in cards.items()},
            "durations": durations(root / "benchmarks"),
            "results": {str(path.relative_to(root)): checksum(path) for path in results},
            **_chain(workdir, results),
            "config": config.model_dump(mode="json"),
        },
    )


def git_state(folder: Path) -> dict[str, str | bool | None]:
    """The commit of the checkout that `folder` is a part of, and whether tracked files differ from it; None without
    git, or where the checkout around it is another project's, which a package may be installed into."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None or not _git(folder, "ls-files", "."):
        return {"commit": None, "modified": None}
    return {"commit": commit, "modified": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}


def durations(folder: Path) -> dict[str, dict[str, float | int]]:
    """Jobs, their seconds in all, and the largest memory of one in MB, a rule, from Snakemake's benchmarks."""
    found: dict[str, dict[str, float | int]] = {}
    for path in sorted(folder.rglob("*.tsv")):
        rule = path.relative_to(folder).parts[0].removesuffix(".tsv")
        entry = found.setdefault(rule, {"jobs": 0, "seconds": 0.0, "max_rss_mb": 0.0})
        for row in read_table(path, required=("s", "max_rss")):
            entry["jobs"] += 1
            entry["seconds"] = round(entry["seconds"] + _number(row["s"]), 1)
            entry["max_rss_mb"] = max(entry["max_rss_mb"], _number(row["max_rss"]))
    return found


def _chain(workdir: Path | None, results: Sequence[Path]) -> dict:
    """Which rule read which, the source files and the code; nothing where Snakemake keeps no records."""
    records = read_records(workdir) if workdir else {}
    names = [str(path.absolute().relative_to(workdir)) for path in results] if records else []
    known = [name for name in names if name in records]
    if not known:
        return {"rules": {}, "sources": {}, "code": None}
    chain: Chain = walk(workdir, records, known)
    return {
        "rules": {step.rule: sorted(step.reads) for step in chain.steps},
        "sources": chain.sources,
        "code": {"files": len(chain.code), "sha256": code_checksum(chain)},
    }


def _packages() -> Mapping[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:  # NA: too short to be measured
        return 0.0
