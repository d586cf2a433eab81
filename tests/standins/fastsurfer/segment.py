"""The stand-in's segmentation: conform as FastSurfer does, then label by intensity and by side of the world."""

import sys
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.processing import conform

image, mri, vox_size, side = nib.load(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
if image.header.get_data_dtype() != np.float32 or image.dataobj.slope != 1:
    print("WARNING: an integer image is not rescaled")
size = float(min(1.0, *image.header.get_zooms())) if vox_size == "min" else float(vox_size)
conformed = conform(image, (side,) * 3, (size,) * 3, order=1, orientation="LIA")
data = np.asarray(conformed.dataobj)
scale = data.max() or 1
orig = np.clip(255 * data / scale, 0, 255).astype(np.uint8)
nib.save(nib.MGHImage(orig, conformed.affine), mri / "orig.mgz")
left = nib.affines.apply_affine(conformed.affine, np.argwhere(orig > 0))[:, 0] < 0
white, grey = orig > 150, (orig > 60) & (orig <= 150)
assert data[white].max(initial=0) > 0.1, "assume at least 1 CC"  # as get_largest_cc does
labels = np.zeros(orig.shape, np.int16)
labels[orig > 0] = np.where(
    white[orig > 0], np.where(left, 2, 41), np.where(grey[orig > 0], np.where(left, 1028, 2028), np.where(left, 4, 43))
)
for name, content in (
    ("aparc.DKTatlas+aseg.deep", labels),
    ("aseg.auto_noCCseg", np.where(labels > 1000, np.where(labels > 2000, 42, 3), labels).astype(np.uint8)),
    ("mask", (labels > 0).astype(np.uint8)),
):
    nib.save(nib.MGHImage(content, conformed.affine), mri / f"{name}.mgz")
