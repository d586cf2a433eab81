"""Reads and validates the configuration, and names things. Nothing is written here but a source's index, once, and links
to a user's files whose paths Snakemake cannot take."""

import functools
import hashlib
import itertools
import os
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

WORKFLOW = Path(workflow.current_basedir).parent
sys.path.insert(0, str(WORKFLOW))

from iqt.cohort.entries import NOT_OF_A_SCAN, Entry, index_path, transport_of
from iqt.cohort.listing import list_entries, say_what_is_new
from iqt.cohort.split import split_scans, template_scans
from iqt.config import parse_config, require_plain_numbers
from iqt.config.evaluate import LPIPS_FILES
from iqt.errors import UserError
from iqt.io.naming import PARTS, SCAN_PATTERN, Result, anat, batch_of, flat, part_folder
from iqt.io.shipped import PARCELLATOR as SHIPPED_PARCELLATOR
from iqt.io.shipped import RESOURCES, table_file
from iqt.methods import module_of
from iqt.planning.closure import closure
from iqt.planning.figures_only import figures_only
from iqt.planning.needs import check_needs
from iqt.planning.parameters import as_json, command_prefix, option, per_attempt, verbatim, without_braces
from iqt.planning.plan import Plan

# Rules find python through PATH, and a Snakemake started by its full path would leave them the system's.
os.environ.update(PATH=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()]))

if workflow.modifier.path_modifier.prefix:
    raise WorkflowError("iqt takes no prefix: of a module; set the key `results` of its configuration")

try:
    for path in workflow.configfiles if workflow.is_main_process else ():
        require_plain_numbers(path)
    CONFIG = parse_config(config, ", ".join(map(str, workflow.configfiles)))
    PLAN = Plan(CONFIG)
    R = Path(CONFIG.results) / CONFIG.name
    INDEX = index_path(CONFIG.cohort, CONFIG.suffix, R)
    METRICS_ONLY = figures_only(CONFIG, R, sys.argv) if workflow.is_main_process else []
    if METRICS_ONLY:
        ENTRIES = {scan: Entry(scan) for scan in METRICS_ONLY}
        SCANS = {"train": [], "val": [], "test": METRICS_ONLY}
    elif CONFIG.cohort.source == "template":
        ENTRIES, SCANS = {}, template_scans(CONFIG.cohort.split)
    else:
        ENTRIES = list_entries(CONFIG.cohort, CONFIG.suffix, INDEX)
        SCANS = split_scans(ENTRIES, CONFIG.cohort.split, CONFIG.seed)
        if workflow.is_main_process:
            say_what_is_new(CONFIG.cohort, CONFIG.suffix, INDEX)
            check_needs(CONFIG, ENTRIES, SCANS)
    SHOWN = CONFIG.report.shown(SCANS["test"])
except UserError as error:
    raise WorkflowError(str(error)) from None

shell.prefix(command_prefix(WORKFLOW))
# For --sdm apptainer; built by hand from envs/iqt.def, since nobody publishes it.
IMAGE = WORKFLOW.parent / "envs" / "iqt.sif"


container: str(IMAGE)


SUFFIX = CONFIG.suffix
SEED = CONFIG.seed
PRECISION = CONFIG.compute.precision
if CONFIG.cohort.source == "hcp" and CONFIG.cohort.split.family is None and not workflow.remote_exec:
    logger.warning(
        "cohort.split.family is not set: many of HCP's people are siblings, who may then be in training and in test. "
        "Hint: table: <the restricted CSV>, family: Family_ID"
    )


def user_file(path):
    """A user's file as an input."""
    path = Path(path)
    if not path.is_file():
        raise WorkflowError(f"{path}: no such file")
    return without_braces(path, R / "links", make=workflow.is_main_process)


def here(path):
    """A file of the workflow, named from the working directory where it lies inside, so that a checkout can move."""
    return user_file(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def shipped(path):
    """A file of resources/, which the package sees as its own."""
    return here(WORKFLOW.parent / "resources" / path.relative_to(RESOURCES))


def lut_file(name):
    """A look-up table: one of resources/, or a user's own file."""
    return user_file(name) if name.endswith(".tsv") else shipped(table_file(name))


INGEST_ENVIRONMENT = "iqt"
if any(entry.head and not (entry.mask or entry.brain) for entry in ENTRIES.values()):
    INGEST_ENVIRONMENT = f"mask_{CONFIG.cohort.mask.engine}"
PARCELLATOR = "parcellator"
SEEDS = CONFIG.training_seeds
TRAINED = [Result.of(name, seed, SEEDS[0]) for name in PLAN.models() for seed in SEEDS]
TRAINED += [Result(PARCELLATOR, SEED)] if CONFIG.parcellate.trained else []
"""Every training: its model and seed."""
TABLE = CONFIG.parcellate.table(CONFIG.cohort.source)
PARCELLATED = CONFIG.parcellate.engine != "none"
LUT = [lut_file(TABLE)] if PARCELLATED else []
"""Look-up table of the parcellator's labels; nothing where there is no parcellator."""
TABLES = {name: "tables" if name == "main" else f"tables/{name}" for name in CONFIG.lowfield}
"""Folder of each low-field set's tables."""
SOON = 1
"""Priority of training and what it waits for: it takes longest, so it begins before everything that can wait."""
GROUPS = {"all": ("train", "val", "test"), "trained": ("train", "val"), "test": ("test",)}


wildcard_constraints:
    set="|".join(CONFIG.lowfield),
    where="|".join(TABLES.values()),
    method="|".join(result.folder for result in PLAN.results()),
    model="|".join([*PLAN.models(), PARCELLATOR]),
    seed="|".join(map(str, SEEDS)),
    group="|".join(GROUPS),
    batch=r"\d+",
    scan=SCAN_PATTERN,


def suffix_of(set_name):
    """What the rules of a low-field set are called besides: nothing for `main`."""
    return "" if set_name == "main" else f"_{set_name}"


def members(group, batch=None):
    """(scan, split) of a group of splits, all of them or a batch's."""
    if batch is not None:
        return by_batch(group).get(int(batch), [])
    return [(scan, split) for split in GROUPS[group] for scan in SCANS[split]]


@functools.cache
def by_batch(group):
    """The members of each batch that has any: sorted once, since every job on a cluster reads this file anew."""
    found = {}
    for pair in members(group):
        found.setdefault(batch_of(pair[0], CONFIG.compute.batches), []).append(pair)
    return dict(sorted(found.items()))


def batches(group):
    """The batches of a group that have a scan."""
    return list(by_batch(group))


def sidecars(stage, group, batch=None, ending=f"{SUFFIX}.json", name=anat):
    """A stage's sidecars: the files that say whether there is a volume."""
    return [str(name(R / stage, scan, ending)) for scan, _ in members(group, batch)]


def scan_list(group, batch):
    """The list of a batch's scans."""
    return f"{R}/lists/{group}_batch-{batch}.tsv"


def scan_lists(group):
    """The lists of a group's batches."""
    return [scan_list(group, batch) for batch in batches(group)]


def model_files(name, seed):
    """Weights and card of a trained model."""
    folder = model_folder(name, seed)
    return [f"{folder}/model.safetensors", f"{folder}/model.json"]


def model_folder(name, seed):
    """Folder of a trained model."""
    return f"{R}/models/{name}/seed-{seed}"


def result_of(folder):
    """The result that a wildcard {method} stands for."""
    return next(result for result in PLAN.results() if result.folder == folder)


def minutes(each, group, batch):
    """Time limit of a batch's job: half an hour, and so many minutes a scan."""
    return per_attempt(30 + each * len(members(group, batch)))


def code(*modules, files=(), without=()):
    """The import closure of the package's modules, and files that these read, as inputs, since Snakemake does not look
    into an imported package."""
    found = [*closure(*modules, without=without), *map(Path, files)]
    return [here(WORKFLOW / "iqt" / path) for path in found]


def experiment_settings(name):
    """An experiment with its sets by name."""
    return CONFIG.experiments[name].model_copy(update={"sets": CONFIG.sets_of(name)})
