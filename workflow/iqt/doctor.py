"""What is installed on this machine and whether it works, for `iqt doctor` and for reports of faults."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from iqt import __version__
from iqt.errors import UserError

OK, ABSENT, FAILED = "ok", "not there", "FAILED"
LITTLE_GB = 10
"""Free space below which a run of any size is in danger."""
SHOWN = ("iqt", "torch", "numpy", "nibabel", "lightning", "snakemake", "dipy", "deepbet", "dcm2niix")
"""Packages whose versions a report names."""


HIDDEN = "(hidden)"
WORD = r"[a-z][a-z_]{0,24}|iqt-\d+x|64mT|T1w|T2w|FLAIR|[RASt]|x0"
"""Texts that are shown."""
PRIVATE = (
    *("participants", "subjects", "people", "profile", "split", "dataset", "out", "path", "root", "table", "given"),
    *("train", "val", "test", "name", "series", "home", "license", "lpips", "results", "key", "secret", "token"),
)
"""Keys whose values are not."""


class Finding(NamedTuple):
    """A thing that was looked at, how it is, and what that means."""

    name: str
    state: str
    told: str


def examine(smoke: bool = True) -> list[Finding]:
    """Look at everything; `smoke` also runs a network on a small phantom."""
    looks: list[Callable[[], Finding]] = [_python, _torch, _gpu, _models, _masks, _dicom, _workflow, _fsl, _fastsurfer]
    found = [look() for look in [*looks, _disk]]
    return [*found, _smoke()] if smoke else found


def table(found: list[Finding]) -> str:
    """Findings as aligned text."""
    widths = [max(len(getattr(one, key)) for one in found) for key in ("name", "state")]
    return "\n".join(f"{one.name:<{widths[0]}}  {one.state:<{widths[1]}}  {one.told}" for one in found)


def bug_report(config: Path | None = None) -> str:
    """Markdown to paste: versions, machine, findings, and a configuration without paths, keys and people."""
    lines = ["### Versions", *(f"- {name} {version(name)}" for name in SHOWN)]
    lines += [f"- Python {platform.python_version()}, {platform.system()} {platform.release()} {platform.machine()}"]
    lines += ["", "### This machine", "```", table(examine(smoke=False)), "```"]
    if config is not None:
        try:
            content = yaml.safe_load(config.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"{config}: cannot be read as YAML ({' '.join(str(error).split())})") from None
        shown = yaml.safe_dump(without_private(content), sort_keys=False)
        lines += ["", "### Configuration, without paths and keys", "```yaml", shown.rstrip(), "```"]
    return "\n".join(lines)


def version(package: str) -> str:
    """The version of a package that is installed."""
    try:
        return __version__ if package == "iqt" else metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def without_private(content: Any) -> Any:
    """A configuration whose texts are hidden but for short lower-case words and a few others, such as kinds of methods
    and presets; of whom and what the cohort and the report consist is never shown."""
    if isinstance(content, Mapping):
        return {key: HIDDEN if _private(key) else without_private(value) for key, value in content.items()}
    if isinstance(content, list):
        return [without_private(each) for each in content]
    if isinstance(content, str) and not re.fullmatch(WORD, content):
        return HIDDEN
    return content


def _private(key: Any) -> bool:
    """Whether what a key holds may tell of people or places."""
    return not isinstance(key, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", key) or key in PRIVATE


def _python() -> Finding:
    return Finding("iqt", OK, f"{__version__}, Python {platform.python_version()}")


def _torch() -> Finding:
    try:
        import torch
    except ImportError as error:
        return Finding("torch", FAILED, f"cannot be imported ({error}); run `make setup` again")
    return Finding("torch", OK, f"{torch.__version__}, {torch.get_num_threads()} threads")


def _gpu() -> Finding:
    from iqt.compute.gpus import visible_gpus

    try:
        import torch
    except ImportError:
        return Finding("GPU", ABSENT, "torch is not there to see one")
    cards = visible_gpus()
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        return Finding("GPU", OK, f"{torch.cuda.get_device_name()}, {memory:.0f} GB; {len(cards)} in all")
    if cards:
        return Finding("GPU", FAILED, f"the machine has {len(cards)}, but this torch cannot use them")
    return Finding("GPU", ABSENT, "networks run on the CPU: seconds to a minute a scan, hours of training")


def _models() -> Finding:
    from iqt.io.shipped import PARCELLATOR, enhancement_models, find_model

    try:
        find_model(None, "T1w")
    except UserError as error:
        return Finding("shipped models", FAILED, str(error))
    return Finding("shipped models", OK, ", ".join([PARCELLATOR.name, *enhancement_models()]))


def _masks() -> Finding:
    engines = [name for name in ("deepbet", "brainextractor") if importlib.util.find_spec(name)]
    engines += ["bet"] if shutil.which("bet") else []
    if "deepbet" in engines:
        return Finding("brain masks", OK, ", ".join(engines))
    told = f"only {', '.join(engines)}: name it with --mask-engine" if engines else "give masks with --mask"
    return Finding("brain masks", ABSENT, f"deepbet is not installed (pip install 'iqt[masks]'); {told}")


def _dicom() -> Finding:
    lacking = [name for name in ("dcm2niix", "pydicom") if not importlib.util.find_spec(name)]
    if lacking and not (lacking == ["dcm2niix"] and shutil.which("dcm2niix")):
        return Finding("DICOM", ABSENT, f"{', '.join(lacking)} not installed (pip install 'iqt[dicom]')")
    own = importlib.util.find_spec("dcm2niix") is not None
    return Finding("DICOM", OK, f"dcm2niix {version('dcm2niix')}" if own else "dcm2niix on PATH")


def _workflow() -> Finding:
    if not importlib.util.find_spec("snakemake"):
        return Finding("Snakemake", ABSENT, "no `iqt study`, no benchmark (pip install 'iqt[workflow]')")
    return Finding("Snakemake", OK, version("snakemake"))


def _fsl() -> Finding:
    found = shutil.which("fast") or shutil.which("bet")
    if found is None:
        return Finding("FSL", ABSENT, "only for tissues.engine: fast and mask.engine: bet")
    return Finding("FSL", OK, "on PATH")


def _fastsurfer() -> Finding:
    from iqt.parcellate.fastsurfer.program import find_program

    try:
        find_program(None)
    except UserError:
        return Finding("FastSurfer", ABSENT, "only for parcellate.engine: fastsurfer; a parcellator ships with iqt")
    return Finding("FastSurfer", OK, "found")


def _disk() -> Finding:
    free = shutil.disk_usage(".").free / 1e9
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    told = f"{free:.0f} GB free here, {memory:.0f} GB of memory, {len(os.sched_getaffinity(0))} cores"
    if free < LITTLE_GB:
        return Finding("disk", FAILED, f"{told}; free some space before a run")
    return Finding("disk", OK, told)


def _smoke() -> Finding:
    """A phantom enhanced by the shipped model: reading, the network and writing."""
    import nibabel as nib
    import numpy as np

    try:
        from iqt.enhance.single import enhance_file
        from iqt.io.shipped import find_model

        start = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="iqt-") as folder:
            shape, voxel = (48, 56, 12), (3.0, 3.0, 12.0)
            affine = nib.affines.from_matvec(np.diag(voxel), [-72, -84, -72])
            world = nib.affines.apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
            distance = np.linalg.norm(world / [62, 74, 60], axis=-1)
            noise = np.random.default_rng(0).normal(0, 20, shape)
            brain = np.where(distance < 1, 300 + 200 * (distance < 0.8) + noise, 0).astype(np.float32)
            given = Path(folder, "phantom_T1w.nii.gz")
            nib.save(nib.Nifti1Image(brain, affine), given)
            out = Path(folder, "enhanced.nii.gz")
            enhance_file(given, out, find_model(None, "T1w"), {}, {}, stripped=True, keep_doubtful_mask=True)
            if not np.isfinite(nib.load(out).get_fdata()).all():
                return Finding("enhancing", FAILED, "the result holds numbers that are not finite")
    except Exception as error:  # whatever it is, it is what the table is for
        return Finding("enhancing", FAILED, f"{type(error).__name__}: {error}")
    return Finding("enhancing", OK, f"a phantom in {time.monotonic() - start:.0f} s")
