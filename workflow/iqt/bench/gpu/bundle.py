"""A folder with all that a session needs on a machine that has torch, numpy, scipy, lightning, safetensors and pandas,
and from which nothing can be fetched."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path

from iqt.bench.gpu.data import pack_store, write_template_volume
from iqt.config import read_config
from iqt.errors import UserError
from iqt.io.files import new_folder
from iqt.io.shipped import RESOURCES
from iqt.terminal import warn

LIMIT = 45e6
"""Bytes of a whole bundle, which may have to travel with a checkout."""
PACKAGES = (
    *("pydantic", "pydantic-core", "annotated-types", "typing-inspection", "typing-extensions"),
    *("typer", "annotated-doc", "shellingham", "nibabel", "monai", "einops"),
    *("tensorboard", "protobuf", "absl-py"),
)
"""What the session imports and such a machine may lack."""
COMPILED = "pydantic-core"
"""The one of them that is made for one Python."""
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
UNNEEDED = ("tests", "test", "__pycache__", "webfiles.zip")
"""Parts of packages that are left out."""
START = """\
#!/bin/sh
# sh start.sh [--check] [--minutes 8] [--out FOLDER]: on a GPU, or with --check on the CPU at toy size.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
"$python" -c "import torch, numpy, scipy, safetensors, pandas
from lightning.pytorch.callbacks import EMAWeightAveraging" || {
    echo "Needed here: torch, numpy, scipy, lightning from 2.6 on, safetensors, pandas ($python lacks some)" >&2
    exit 1
}
if [ ! -d "$here/packages" ]; then
    rm -rf "$here/packages.part"
    "$python" -m zipfile -e "$here/packages.zip" "$here/packages.part"
    mv "$here/packages.part" "$here/packages"
fi
PYTHONPATH="$here/packages:$here/project${PYTHONPATH:+:$PYTHONPATH}"
TYPER_USE_RICH=0 # which is not packed
export PYTHONPATH TYPER_USE_RICH
[ -e "$here/store.zip" ] && set -- --packed "$here/store.zip" "$@"
exec "$python" -m iqt bench gpu --config "$here/openneuro-full.yaml" --volume "$here/volume.npz" "$@"
"""


def make_bundle(
    out: Path,
    config: Path,
    run: Path | None = None,
    pythons: tuple[str, ...] = PYTHONS,
) -> tuple[int, dict[str, int]]:
    """Write the folder `out`, with a script `start.sh`; returns its bytes and how many scans of each split it holds.

    Args:
        config: the configuration of the full-size networks.
        run: a run to take scans to train on from; as many as fit are packed, without their names.
        pythons: versions of Python that it shall run with besides this one.

    Raises:
        UserError: a package is not installed here, or the bundle would be too large.
    """
    read_config(config)  # or a fault of it would be found on the other machine
    with new_folder(out) as folder:
        shutil.copytree(
            Path(__file__).parents[2], folder / "project" / "iqt", ignore=shutil.ignore_patterns(*UNNEEDED, "resources")
        )
        # The shipped models are not run in a session.
        shutil.copytree(RESOURCES, folder / "project" / "iqt" / "resources", ignore=shutil.ignore_patterns("models"))
        shutil.copy(config, folder / "openneuro-full.yaml")
        with tempfile.TemporaryDirectory() as packages:
            for name in PACKAGES:
                _copy_package(name, Path(packages))
            _fetch_compiled(Path(packages), pythons)
            shutil.make_archive(str(folder / "packages"), "zip", packages)
        write_template_volume(folder / "volume.npz")
        (folder / "start.sh").write_text(START, encoding="utf-8")
        left = LIMIT - _size(folder)
        counts = {} if run is None else pack_store(run, folder / "store.zip", left)
        if counts:
            warn(
                f"the bundle holds scans of {run} as volumes: whoever receives it must be allowed to have them, as the "
                "data's terms say (HCP's forbid it without their acceptance)"
            )
        size = _size(folder)
        if size > LIMIT:
            raise UserError(f"{out}: would take {size / 1e6:.0f} MB, and {LIMIT / 1e6:.0f} are allowed")
    return size, counts


def _copy_package(name: str, folder: Path) -> None:
    try:
        package = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise UserError(f"{name} is not installed here, and a bundle needs it; run `make setup`") from None
    for file in package.files or []:
        if file.parts[0] == ".." or set(file.parts) & set(UNNEEDED):
            continue
        target = folder / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(package.locate_file(file), target)


def _fetch_compiled(folder: Path, pythons: tuple[str, ...]) -> None:
    """Add the compiled modules for other versions of Python; only a warning where they cannot be had."""
    own, version = sysconfig.get_python_version(), metadata.version(COMPILED)
    lacking = []
    for python in (python for python in pythons if python != own):
        with tempfile.TemporaryDirectory() as wheels:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            command += ["--python-version", python, "--implementation", "cp", "--platform", "manylinux_2_17_x86_64"]
            command += ["--platform", "manylinux2014_x86_64", "--dest", wheels, f"{COMPILED}=={version}"]
            if subprocess.run(command, capture_output=True).returncode:
                lacking.append(python)
                continue
            for wheel in Path(wheels).glob("*.whl"):
                with zipfile.ZipFile(wheel) as packed:
                    packed.extractall(folder, [name for name in packed.namelist() if name.endswith(".so")])
    if lacking:
        warn(
            f"{COMPILED} {version} could not be downloaded for Python {', '.join(lacking)}, so the bundle needs another"
        )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
