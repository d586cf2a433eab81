"""How good a scan is without a reference: MRIQC's measures (Esteban et al. 2017) that need no air around the head, by
its own formulas (a test compares them with niimath's).

Tissue is white matter and cortex of the parcellation of the enhanced scan, white matter without its outermost voxels,
the same for the scan before and after.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import binary_erosion
from scipy.stats import median_abs_deviation

WHITE, CORTEX = (2, 41), (3, 42)
"""FreeSurfer's ids."""
MEASURES = {
    "snr_wm": "SNR of white matter: median over standard deviation; higher is better",
    "snr_gm": "SNR of the cortex: median over standard deviation; higher is better",
    "cnr": "contrast-to-noise of white matter and cortex (Magnotta & Friedman 2006, without air); higher is better",
    "cjv": "coefficient of joint variation (Ganzetti et al. 2016); lower is better",
    "efc": "entropy focus criterion (Atkinson et al. 1997) in the brain's box; lower is sharper",
}


def quality(image: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """`MEASURES` of an image (X, Y, Z) with the label map (X, Y, Z) of its structures; without those of a tissue that
    has fewer than two voxels."""
    white = image[binary_erosion(np.isin(labels, WHITE))]
    grey = image[np.isin(labels, CORTEX)]
    found = {"efc": entropy_focus(image)}
    for name, values in (("snr_wm", white), ("snr_gm", grey)):
        if values.size > 1:
            found[name] = float(np.median(values) / (values.std() * math.sqrt(values.size / (values.size - 1))))
    if min(white.size, grey.size) > 1:
        apart = abs(float(np.median(white) - np.median(grey)))
        found["cnr"] = apart / math.hypot(white.std(), grey.std())
        spreads = (median_abs_deviation(values, scale="normal") for values in (white, grey))
        found["cjv"] = float(sum(spreads)) / apart if apart else math.inf
    return {name: round(found[name], 4) for name in MEASURES if math.isfinite(found.get(name, math.nan))}


def entropy_focus(image: np.ndarray) -> float:
    """Entropy of the voxels as shares of the image's energy, over that of an image all of whose voxels are equal."""
    magnitude = np.abs(image.astype(np.float64)).ravel()
    energy = math.sqrt(float(np.square(magnitude).sum()))
    if not energy:
        return math.nan
    share = magnitude[magnitude > 0] / energy
    highest = magnitude.size * (1 / math.sqrt(magnitude.size)) * math.log(1 / math.sqrt(magnitude.size))
    return float((share * np.log(share)).sum() / highest)
