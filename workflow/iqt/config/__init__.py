"""The configuration: pydantic models are the only source of keys, defaults, bounds and their explanation.

`config/schema.json` and `config/README.md` are generated from here (`iqt config schema`, `iqt config readme`). One
module a part; everything that the stages use can be imported from here.
"""

from iqt.config.benchmark import Compute, Config, Evaluate, Report, RunFacts
from iqt.config.cohort import Cohort, Grid, Mask, Split, Template
from iqt.config.lowfield import LowField
from iqt.config.methods import (
    KINDS,
    Cubic,
    Diffusion,
    DiffusionIQTMethod,
    Learned,
    Method,
    Sampling,
    Tiling,
    UNetMethod,
)
from iqt.config.networks import CrossBatch, DiffusionIQTNetwork, UNetNetwork
from iqt.config.parcellate import Parcellate, Parcellator, ParcellatorTraining
from iqt.config.parse import merge, parse_config, parse_section
from iqt.config.section import Section
from iqt.config.sources import BIDS, HCP, S3, Folder, LabelMaps
from iqt.config.training import Patches, Training

__all__ = [
    "BIDS", "HCP", "KINDS", "S3", "Cohort", "Compute", "Config", "CrossBatch", "Cubic", "Diffusion",
    "DiffusionIQTMethod", "DiffusionIQTNetwork", "Evaluate", "Folder", "Grid", "LabelMaps", "Learned", "LowField",
    "Mask", "Method", "Parcellate", "Parcellator", "ParcellatorTraining", "Patches", "Report", "RunFacts", "Sampling",
    "Section", "Split", "Template", "Tiling", "Training", "UNetMethod", "UNetNetwork", "merge", "parse_config",
    "parse_section",
]  # fmt: skip
