"""A nipype interface to `run_fastsurfer.sh`: segmentation alone, with the options that the found version knows."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection
from pathlib import Path
from typing import Any

os.environ.setdefault("NO_ET", "1")  # else nipype asks a server for its newest version when it is imported

from nipype.interfaces.base import (
    CommandLine,
    CommandLineInputSpec,
    Directory,
    File,
    TraitedSpec,
    isdefined,
    traits,
)

from iqt.config import FastSurfer
from iqt.errors import StopError, UserError
from iqt.parcellate.fastsurfer.jobs import LABELS
from iqt.parcellate.fastsurfer.program import SCRIPT, environment, probe

LEFT_OUT = ("no_cereb", "no_hypothal", "no_hypvinn", "no_biasfield", "no_cc")
"""Modules that are not wanted; a version that does not know the option has no such module."""


class RunFastSurferInputSpec(CommandLineInputSpec):
    """The options of the segmentation pipeline; paths are absolute."""

    t1 = File(exists=True, mandatory=True, argstr="--t1 %s", desc="T1w volume, float32 without a slope")
    sid = traits.Str(mandatory=True, argstr="--sid %s", desc="name of the folder made in `sd`")
    sd = Directory(mandatory=True, argstr="--sd %s", desc="folder of the subjects")
    seg_only = traits.Bool(True, usedefault=True, argstr="--seg_only", desc="no surfaces (and so no licence)")
    no_cereb = traits.Bool(True, usedefault=True, argstr="--no_cereb", desc="no cerebellar lobules")
    no_hypothal = traits.Bool(True, usedefault=True, argstr="--no_hypothal", desc="no hypothalamus")
    no_hypvinn = traits.Bool(True, usedefault=True, argstr="--no_hypvinn", desc="the same, in some versions")
    no_biasfield = traits.Bool(True, usedefault=True, argstr="--no_biasfield", desc="no N4, no statistics")
    no_cc = traits.Bool(True, usedefault=True, argstr="--no_cc", desc="no corpus callosum")
    vox_size = traits.Either(
        traits.Enum("min"), traits.Range(low=0.7, high=1.0), argstr="--vox_size %s", desc="mm, or min: the input's own"
    )
    device = traits.Str(argstr="--device %s", desc="cpu, cuda or cuda:N")
    viewagg_device = traits.Str(argstr="--viewagg_device %s", desc="where the planes are added up")
    batch = traits.Range(low=1, argstr="--batch %d", desc="slices at once")
    threads = traits.Range(low=1, argstr="--threads %d", desc="CPU threads")
    allow_root = traits.Bool(argstr="--allow_root", desc="run as root all the same")


class RunFastSurferOutputSpec(TraitedSpec):
    """What it writes, in its conformed space."""

    labels = File(exists=True, desc="aparc.DKTatlas+aseg: 95 labels")
    orig = File(exists=True, desc="the conformed input")
    mask = File(exists=True, desc="brain mask")
    aseg = File(exists=True, desc="aseg without the corpus callosum")


class RunFastSurfer(CommandLine):
    """`run_fastsurfer.sh --seg_only`.

    Without `options` every option is passed; with them (see `program.probe`) those of modules that the found version
    has not are left out, and any other that it lacks is an error.
    """

    _cmd = SCRIPT
    input_spec = RunFastSurferInputSpec
    output_spec = RunFastSurferOutputSpec

    def __init__(self, options: Collection[str] | None = None, **inputs: Any) -> None:
        self._options = options
        super().__init__(**inputs)

    @classmethod
    def installed(cls, script: Path, **inputs: Any) -> RunFastSurfer:
        """The interface to a script, after asking it what it knows."""
        found = probe(script)
        interface = cls(
            options=found["options"], command=shlex.quote(str(script)), environ=environment(script), **inputs
        )
        interface._version = found["version"]
        return interface

    @property
    def version(self) -> str | None:
        return self._version

    def _parse_inputs(self, skip: Collection[str] | None = None) -> list[str]:
        return super()._parse_inputs(skip=[*(skip or ()), *self._left_out()])

    def _left_out(self) -> list[str]:
        """Inputs whose option the found version lacks; StopError where one is needed."""
        if self._options is None:
            return []
        left_out = []
        for name, spec in self.inputs.traits(argstr=lambda text: text is not None).items():
            option = (spec.argstr or "").split(" ")[0]
            if not isdefined(getattr(self.inputs, name)) or option in self._options or not option:
                continue
            if name not in LEFT_OUT:
                raise StopError(f"FastSurfer {self.version or ''}: does not know {option}; install 2.1 or newer")
            left_out.append(name)
        return left_out

    def _list_outputs(self) -> dict[str, str]:
        mri = Path(self.inputs.sd, self.inputs.sid, LABELS).parent
        names = {"labels": Path(LABELS).name, "orig": "orig.mgz", "mask": "mask.mgz", "aseg": "aseg.auto_noCCseg.mgz"}
        return {output: str(mri / name) for output, name in names.items() if (mri / name).is_file()}


def inputs_of(settings: FastSurfer, image: Path, subject: str, subjects: Path) -> dict[str, Any]:
    """The interface's inputs for one volume, less the number of threads, which whoever runs it decides."""
    inputs = {
        "t1": str(image.absolute()),
        "sid": subject,
        "sd": str(subjects.absolute()),
        "vox_size": settings.vox_size,
        "device": settings.device,
        "viewagg_device": settings.device,
        "batch": settings.batch_size,
    }
    return {**inputs, "allow_root": True} if settings.allow_root else inputs


def arguments(interface: RunFastSurfer) -> list[str]:
    """The command line after the program's name, one argument an entry."""
    return shlex.split(interface.cmdline)[1:]


def refuse_root(settings: FastSurfer) -> None:
    """UserError where the program would refuse this user."""
    if os.geteuid() == 0 and not settings.allow_root:
        raise UserError(
            "FastSurfer refuses to run as root; run as another user, or set parcellate.fastsurfer.allow_root: true"
        )
