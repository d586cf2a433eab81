"""Why a FastSurfer job failed: the volume's fault, which is recorded, or the installation's, which stops the run."""

from __future__ import annotations

import re

CHECKPOINTS = "aparc_vinn_axial_v2.0.0.pkl, aparc_vinn_coronal_v2.0.0.pkl and aparc_vinn_sagittal_v2.0.0.pkl"
INSTALLATION = (
    (
        r"as root\. We advice|may pass --allow_root",
        "it refuses to run as root; run as another user, or set parcellate.fastsurfer.allow_root: true",
    ),
    (
        r"No server reachable|nor download checkpoints|checkpoint.*(?:not found|does not exist|No such file)"
        r"|No such file or directory.*\.pkl|PytorchStreamReader|UnpicklingError|invalid load key",
        f"its checkpoints are missing or damaged and could not be downloaded; put {CHECKPOINTS} (Zenodo record "
        "10390573) into the folder checkpoints/ of FastSurfer",
    ),
    (
        r"Cannot find the python interpreter|No module named|ModuleNotFoundError|command not found"
        r"|python3[.\d]*\S*: No such file or directory",
        "its Python or a package of it is missing; run with --use-conda or --sdm apptainer, or install what "
        "envs/fastsurfer.yaml lists",
    ),
    (r"unrecognized|Invalid option for", "it does not know an option; report its version"),
    (
        r"No CUDA GPUs|CUDA driver|NVIDIA driver|cuda not available|not compiled with CUDA|CUDA out of memory"
        r"|OutOfMemoryError",
        "its GPU is absent or too small; set parcellate.fastsurfer.device: cpu, or lower batch_size",
    ),
    (
        # Its shell reports a child that the system killed, and ends itself with 1.
        r"MemoryError|Cannot allocate memory|DefaultCPUAllocator|\bKilled\b",
        "memory is short; give the job more (mem_mb)",
    ),
    (r"No space left on device|Disk quota exceeded|Permission denied", "its files could not be written"),
)
"""What its output says when every volume would fail alike, and what to do about it."""
VOLUME = (
    (
        r"AssertionError",
        "it found no white matter (AssertionError), which a volume far from a T1w brain can do",
    ),
    (r"failed QC checks", "its segmentation did not pass its own volume check"),
    (r"inconsistency in nifti-header", "it finds the NIfTI header inconsistent"),
)
KILLED = (-9, 137)
WRAPPER = r"ERROR: FastSurfer .* failed"
"""What the script says last of any failure."""


def installation_fault(exit_code: int, output: str) -> str | None:
    """What to put right, where the failure would meet every volume; None where it is the volume's own."""
    if exit_code in KILLED:
        return "it was killed, most likely because memory is short; give the job more (mem_mb)"
    # A warning stops nothing: torch tells of an old GPU driver on its way to the CPU.
    output = "\n".join(line for line in output.splitlines() if "Warning:" not in line)
    return next((remedy for pattern, remedy in INSTALLATION if re.search(pattern, output, re.IGNORECASE)), None)


def explain(exit_code: int, output: str) -> str:
    """The failure of one volume as a sentence."""
    reason = _volume_fault(output)
    if reason is None:
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        lines = [line for line in lines if not re.search(WRAPPER, line)]
        telling = [line for line in lines if re.search(r"error|exception", line, re.IGNORECASE)]
        reason = (telling or lines or ["it said nothing"])[-1][:300]
    return f"FastSurfer failed with exit code {exit_code}: {reason}"


def _volume_fault(output: str) -> str | None:
    return next((reason for pattern, reason in VOLUME if re.search(pattern, output)), None)
