"""The configuration: pydantic models are the only source of keys, defaults, bounds and their explanation.

`config/schema.json` and `config/README.md` are generated from here (`iqt config schema`, `iqt config readme`). One
module a part; everything that the stages use can be imported from here.
"""

from iqt.config.benchmark import Compute, Config
from iqt.config.cohort import Cohort, Grid, Mask, Split, Template
from iqt.config.evaluate import Evaluate
from iqt.config.experiments import Experiment
from iqt.config.lowfield import PRESETS, Artefacts, LowField, Relaxation, Shift
from iqt.config.methods import KINDS, Method
from iqt.config.networks import CrossBatch, DiffusionIQTNetwork, ESRGANNetwork, UNetNetwork
from iqt.config.parcellate import (
    FastSurfer,
    Painting,
    Parcellate,
    Parcellator,
    ParcellatorTraining,
    VolumetricNetwork,
    VolumetricParcellator,
)
from iqt.config.parse import merge, parse_config, parse_section, read_config, require_plain_numbers
from iqt.config.report import Report
from iqt.config.section import Section
from iqt.config.sources import BIDS, HCP, S3, Folder, LabelMaps
from iqt.config.tissues import FAST, HMRF, LabelTissues, Tissues
from iqt.config.training import Patches, Training

__all__ = [
    "BIDS",
    "FAST",
    "HCP",
    "HMRF",
    "KINDS",
    "PRESETS",
    "S3",
    "Artefacts",
    "Cohort",
    "Compute",
    "Config",
    "CrossBatch",
    "DiffusionIQTNetwork",
    "ESRGANNetwork",
    "Evaluate",
    "Experiment",
    "FastSurfer",
    "Folder",
    "Grid",
    "LabelMaps",
    "LabelTissues",
    "LowField",
    "Mask",
    "Method",
    "Painting",
    "Parcellate",
    "Parcellator",
    "ParcellatorTraining",
    "Patches",
    "Relaxation",
    "Report",
    "Section",
    "Shift",
    "Split",
    "Template",
    "Tissues",
    "Training",
    "UNetNetwork",
    "VolumetricNetwork",
    "VolumetricParcellator",
    "merge",
    "parse_config",
    "parse_section",
    "read_config",
    "require_plain_numbers",
]  # fmt: skip
