"""Brain masks for scans that come without one, by a program or library that needs no download of weights."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import shutil
import tempfile
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
from scipy import ndimage

from iqt.config import Grid, Mask
from iqt.errors import StopError, UserError
from iqt.imaging.checks import skull_stripped_brain
from iqt.imaging.orientation import to_ras
from iqt.io.volumes import Volume, as_stored_in, read_mask, save_volume

WORKING_MM = 1.0
"""Voxels that brainextractor works on: it wants cubes, and smaller ones only take longer."""


NOTICED = "noticed to be skull-stripped"
"""Where the mask of a scan comes from that shows the brain alone."""


def find_brain(scan: Volume, settings: Mask, notice: bool = True) -> tuple[Volume, str]:
    """The brain mask (uint8) of a scan that came without one, and what it comes from: with `notice` the scan itself,
    where it shows the brain alone, else the engine.

    Raises:
        StopError, UserError: as `make_mask`.
    """
    found = skull_stripped_brain(scan) if notice else None
    if found is not None:
        return Volume(found.astype(np.uint8), scan.affine), NOTICED
    return make_mask(scan, settings), settings.engine


def make_mask(head: Volume, settings: Mask) -> Volume:
    """A brain mask (uint8) of a whole-head image, on its grid: the engine's largest piece, holes filled.

    Raises:
        StopError: the engine is not installed.
        UserError: it fails on this image; the message names neither the image nor the key of a configuration.
    """
    engines = {"deepbet": _deepbet, "brainextractor": _brainextractor, "bet": _bet}
    found = engines[settings.engine](head, settings)
    parts, count = ndimage.label(found)
    if count == 0:
        raise UserError(f"{settings.engine} finds no brain; give a mask, or try another engine or fraction")
    largest = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    return Volume(ndimage.binary_fill_holes(largest).astype(np.uint8), head.affine)


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise StopError(
            f"the mask engine {name} is not installed; `make setup` or `pip install iqt[masks]` does it"
        ) from None


def _deepbet(head: Volume, settings: Mask) -> np.ndarray:
    """deepbet's two networks (Fisch et al., Computers in Biology and Medicine 2024), which its package brings."""
    import torch

    network = _library("deepbet").BrainExtraction(no_gpu=True)
    ras = to_ras(head)
    try:
        # The first network marks the brain's box, the second one reads it at 256 voxels a side.
        with torch.jit.optimized_execution(False):
            inside = network.run_model(ras.data.copy()) > settings.fraction
    except (AssertionError, ValueError, RuntimeError) as error:
        raise UserError(f"deepbet fails on this image ({error}); give a mask") from None
    turned = as_stored_in(Volume(inside.astype(np.uint8), ras.affine), head)
    return turned.data > 0


def _brainextractor(head: Volume, settings: Mask) -> np.ndarray:
    """The published method of BET (Smith, Human Brain Mapping 17, 2002) as the library brainextractor has it."""
    library = _library("brainextractor")
    from iqt.imaging.resample import isotropic

    cubes = isotropic(to_ras(head), Grid(voxel_size=WORKING_MM), "image")
    data = np.maximum(cubes.data, 0)  # cubic interpolation overshoots, and the method thinks of 0 as air
    with contextlib.redirect_stdout(io.StringIO()):  # it counts its thousand iterations
        try:
            extractor = library.BrainExtractor(nib.Nifti1Image(data, cubes.affine), bt=settings.fraction)
            extractor.run()
            found = np.asarray(extractor.compute_mask()) > 0
        except (ValueError, IndexError, FloatingPointError, ZeroDivisionError) as error:
            raise UserError(f"brainextractor fails on this image ({error}); give a mask") from None
    to_cubes = np.linalg.inv(cubes.affine) @ head.affine
    on_grid = ndimage.affine_transform(
        found.astype(np.float32), to_cubes[:3, :3], to_cubes[:3, 3], output_shape=head.data.shape, order=1
    )
    return on_grid >= 0.5


def _bet(head: Volume, settings: Mask) -> np.ndarray:
    """FSL's own BET, with its re-centring (-R), through nipype."""
    if shutil.which("bet") is None:
        raise StopError("the mask engine: FSL's bet is not on PATH; install FSL, use --use-conda, or another engine")
    os.environ.setdefault("NO_ET", "1")  # no call home
    from nipype.interfaces.fsl import BET

    os.environ.setdefault("FSLOUTPUTTYPE", "NIFTI_GZ")
    with tempfile.TemporaryDirectory(prefix="iqt-") as folder:
        save_volume(Path(folder, "head.nii.gz"), head.data, head.affine)
        bet = BET(in_file=f"{folder}/head.nii.gz", out_file=f"{folder}/brain.nii.gz", mask=True, robust=True)
        bet.inputs.frac, bet.inputs.output_type = settings.fraction, "NIFTI_GZ"
        try:
            bet.run(cwd=folder)
            return read_mask(f"{folder}/brain_mask.nii.gz", head).data
        except (RuntimeError, FileNotFoundError) as error:
            raise UserError(f"bet fails on this image ({error}); give a mask") from None
