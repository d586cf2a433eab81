"""Reads and validates the configuration, and names things. Nothing is written here but a source's index, once, and links
to a user's files whose paths Snakemake cannot take."""

import functools
import hashlib
import json
import os
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

WORKFLOW = Path(workflow.basedir) / "workflow"
sys.path.insert(0, str(WORKFLOW))

from iqt.cohort.entries import Entry, index_path, list_entries
from iqt.planning.needs import check_needs
from iqt.cohort.split import split_scans, template_scans
from iqt.config import RunFacts, parse_config
from iqt.config.evaluate import LPIPS_FILES
from iqt.errors import UserError
from iqt.methods import module_of
from iqt.io.naming import PARTS, SCAN_PATTERN, Result, anat, batch_of, flat, part_folder
from iqt.planning.closure import closure
from iqt.planning.figures_only import figures_only
from iqt.io.shipped import RESOURCES, table_file
from iqt.io.shipped import PARCELLATOR as SHIPPED_PARCELLATOR

# Rules find python through PATH, and a Snakemake started by its full path would leave them the system's.
os.environ.update(PATH=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()]))

try:
    CONFIG = parse_config(config, ", ".join(map(str, workflow.configfiles)))
    R = Path("results") / CONFIG.name
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
            check_needs(CONFIG, ENTRIES, SCANS)
    SHOWN = CONFIG.report.shown(SCANS["test"])
except UserError as error:
    raise WorkflowError(str(error)) from None

# A function of each job's shell, so that a line of a log can be pasted where `iqt` is installed. PYTHONPATH is set in it,
# because --use-conda blanks an inherited one.
# The strict mode is Snakemake's own, which it leaves out where there is a prefix: without it `| tee` would hide a failure.
PACKAGE = shlex.quote(str(WORKFLOW)).replace("{", "{{").replace("}", "}}")
shell.prefix(f'set -euo pipefail; iqt() {{{{ PYTHONPATH={PACKAGE} python -m iqt "$@"; }}}}; ')
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
    """A user's file as an input, where Snakemake takes braces for wildcards whatever names it: by a link without."""
    path = Path(path)
    if not path.is_file():
        raise WorkflowError(f"{path}: no such file")
    if not set("{}") & set(str(path)):
        return str(path)
    link = R / "links" / (hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:12] + path.suffix)
    if workflow.is_main_process and not link.is_symlink():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.absolute())
    return str(link)


def here(path):
    """A file of the workflow, named from the working directory where it lies inside, so that a checkout can move."""
    return user_file(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def shipped(path):
    """A file of resources/, which the package sees as its own."""
    return here(WORKFLOW.parent / "resources" / path.relative_to(RESOURCES))


def lut_file(name):
    """A look-up table: one of resources/, or a user's own file."""
    return user_file(name) if name.endswith(".tsv") else shipped(table_file(name))


SYNTHESISED = CONFIG.cohort.source == "labelmaps"
INGEST_ENVIRONMENT = "iqt"
if any(entry.head and not (entry.mask or entry.brain) for entry in ENTRIES.values()):
    INGEST_ENVIRONMENT = f"mask_{CONFIG.cohort.mask.engine}"
PARCELLATOR = "parcellator"
SEEDS = CONFIG.training_seeds
TRAINED = [Result.of(name, seed, SEEDS[0]) for name in CONFIG.models() for seed in SEEDS]
TRAINED += [Result(PARCELLATOR, SEED)] if CONFIG.parcellate.trained else []
"""Every training: its model and seed."""
TABLE = CONFIG.parcellate.table(CONFIG.cohort.source)
PARCELLATED = CONFIG.parcellate.engine != "none"
LUT = [lut_file(TABLE)] if PARCELLATED else []
"""Look-up table of the parcellator's labels; nothing where there is no parcellator."""
TABLES = {name: "tables" if name == "main" else f"tables/{name}" for name in CONFIG.lowfield}
"""Folder of each low-field set's tables."""
TABLE_FILES = [
    *("benchmark.csv", "benchmark.md", "benchmark.tex", "similarity.md", "similarity.tex"),
    *(f"{name}.{ending}" for name in ("statistics", "structures") for ending in ("csv", "md", "tex")),
]
"""What each of these folders holds."""
GROUPS = {"all": ("train", "val", "test"), "trained": ("train", "val"), "test": ("test",)}


wildcard_constraints:
    set="|".join(CONFIG.lowfield),
    where="|".join(TABLES.values()),
    method="|".join(result.folder for result in CONFIG.results()),
    model="|".join([*CONFIG.models(), PARCELLATOR]),
    seed="|".join(map(str, SEEDS)),
    group="|".join(GROUPS),
    batch=r"\d+",
    scan=SCAN_PATTERN,


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


def readings(folder, batch):
    """The sidecars of the parcellator's label maps of a batch; nothing where there is no parcellator."""
    return sidecars(f"parcellation/{folder}", "test", batch, "dseg.json", flat) if PARCELLATED else []


def places(batch):
    """A few letters that change when the source's files of a batch's scans are elsewhere."""
    digests = [ENTRIES[scan].digest() for scan, _ in members("all", batch)]
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:12]


def model_files(name, seed):
    """Weights and card of a trained model."""
    folder = model_folder(name, seed)
    return [f"{folder}/model.safetensors", f"{folder}/model.json"]


def model_folder(name, seed):
    """Folder of a trained model."""
    return f"{R}/models/{name}/seed-{seed}"


def parcellator_files():
    """Weights and card of the built-in parcellator: the shipped one, or the run's own."""
    if CONFIG.parcellate.trained:
        return model_files(PARCELLATOR, SEED)
    return [shipped(SHIPPED_PARCELLATOR / name) for name in ("model.safetensors", "model.json")]


def first_on(set_name):
    """The results on a set that pictures show: of the first training seed."""
    return [result for result in CONFIG.results(set_name) if result.seed in (None, SEEDS[0])]


def result_of(folder):
    """The result that a wildcard {method} stands for."""
    return next(result for result in CONFIG.results() if result.folder == folder)


def verbatim(value):
    """A user's text as a parameter. Snakemake formats strings, where braces would be wildcards; what a function returns it
    takes as it is."""
    return lambda wildcards: value


def option(name, files):
    """An option with a user's file, quoted for the shell; nothing where there is no file."""
    return verbatim(" ".join(f"{name} {shlex.quote(str(path))}" for path in files))


def as_json(section):
    """A section of the configuration as one command-line argument: only what a rule uses, so only that reruns it.

    It is a section, a dictionary, or a function of the wildcards that returns one; the result is a function, which
    Snakemake calls and does not format.
    """

    def text(wildcards):
        content = section(wildcards) if callable(section) else section
        content = content if isinstance(content, dict) else content.model_dump(mode="json")
        return json.dumps(content, separators=(",", ":"))

    return text


def source_settings():
    """What fetching a scan depends on: not who else is read."""
    section = CONFIG.cohort.settings.model_dump(mode="json", exclude={"subjects"})
    return {"source": CONFIG.cohort.source, "downloads": CONFIG.cohort.downloads, CONFIG.cohort.source: section}


def source_lut():
    """The look-up table of the source's labels."""
    name = getattr(CONFIG.cohort.settings, "lut", "freesurfer" if CONFIG.cohort.source == "hcp" else "template")
    return lut_file(name)


def ingest_settings():
    """What a scan's volumes depend on besides its files."""
    grid, mask = (section.model_dump(mode="json") for section in (CONFIG.cohort.grid, CONFIG.cohort.mask))
    made = {"source": "labelmaps", "labelmaps": CONFIG.cohort.labelmaps.model_dump(mode="json")} if SYNTHESISED else {}
    return {"grid": grid, "mask": mask, **made}


def growing(amount):
    """A resource that grows with every attempt, so that a job killed for want of it comes back with more."""
    return lambda wildcards, attempt: amount * attempt


def minutes(each, group, batch):
    """Time limit of a batch's job: half an hour, and so many minutes a scan."""
    return growing(30 + each * len(members(group, batch)))


def code(*modules, files=(), without=()):
    """The package's files that a rule runs, as inputs, since Snakemake does not look into an imported package: the import
    closure of its modules, and files that these read."""
    found = [*closure(*modules, without=without), *map(Path, files)]
    return [here(WORKFLOW / "iqt" / path) for path in found]


def method_model(wildcards):
    """The trained model that a method uses; nothing for an interpolation."""
    result = result_of(wildcards.method)
    model = CONFIG.model_of(result.method)
    return model_files(model, result.seed) if model else []


def start_files(wildcards):
    """The model that training starts from: a flow's regression."""
    start = CONFIG.start_of(wildcards.model)
    return model_files(start, wildcards.seed) if start else []


def lpips_weights(wildcards):
    """The weights of the perceptual distance, where somebody has them."""
    folder = CONFIG.evaluate.lpips
    files = [f"{folder}/{name}" for name in LPIPS_FILES] if folder is not None else []
    for path in files:
        if not Path(path).is_file():
            raise WorkflowError(
                f"{path}: no such file; evaluate.lpips must name a folder with {' and '.join(LPIPS_FILES)}, or be null"
            )
    return [user_file(path) for path in files]


def parts(set_name, folder, batch):
    """The tables that are written of a batch of a result."""
    return [str(part_folder(R, set_name, folder, batch) / f"{table}.csv") for table in PARTS]


def parts_of(set_name, results):
    """The same of every batch of some results on a low-field set."""
    return [path for one in results for batch in batches("test") for path in parts(set_name, one.folder, batch)]


def gathered(name):
    """A file of metrics/, as an input function. Where it is there and nothing but figures is asked for, it is named in
    full, which no rule's output is, so that figures are drawn from metrics/ alone, whatever else has changed or is gone.
    """

    def found(wildcards):
        path = R / "metrics" / name.format(**wildcards)
        alone = list(workflow.dag_settings.targets) == ["figures"] and path.is_file()
        if METRICS_ONLY and not alone:
            raise WorkflowError("Ask for figures alone, or for other targets without it: it reads no source of scans")
        return str(path.absolute() if alone else path)

    return found


def figure_files(*endings):
    """Every figure as every ending."""
    names = ["metrics", "training", "published", *(["reliability"] if CONFIG.sampled() else [])]
    names += ["overlap"] if PARCELLATED else []
    kinds = ("slices", "parcellation") if PARCELLATED else ("slices",)
    names += [f"{kind}_{scan}" for scan in SHOWN for kind in kinds]
    names += [f"experiment_{name}" for name in CONFIG.experiments]
    return [f"{R}/figures/{name}.{ending}" for name in names for ending in endings]


def table_files():
    """Every table of every low-field set, and of every experiment."""
    found = [f"{R}/{folder}/{name}" for folder in TABLES.values() for name in TABLE_FILES]
    return found + [path for name in CONFIG.experiments for path in experiment_files(name) if "/tables/" in path]


def experiment_files(name):
    """Table and figure of an experiment."""
    table, figure = f"{R}/tables/experiments/{name}", f"{R}/figures/experiment_{name}"
    return [f"{table}.{ending}" for ending in ("csv", "md", "tex")] + [
        f"{figure}.{ending}" for ending in ("png", "svg")
    ]


def assessment_files():
    """Calibration, reliability and seams of every low-field set."""
    tables = ("calibration", "reliability", "seams")
    return [f"{R}/metrics/{table}/{name}.csv" for name in CONFIG.lowfield for table in tables]


def sweep_series():
    """The line of the sweep's figure that each diffusion method or flow is a point of: how it is sampled, and whether it
    is a mean."""
    found = {}
    for name, entry in CONFIG.methods.items():
        if entry.series is not None:
            found[name] = entry.series + (" mean" if entry.samples > 1 else "")
    return found


def read_by_fastsurfer(wildcards, batch):
    """The sidecars of the volumes that FastSurfer shall read."""
    if wildcards.judged == "hq":
        return []
    return sidecars(f"enhanced/{wildcards.judged}", "test", batch, name=flat)


def volumes_of(wildcards):
    """Folder and layout of the volumes that FastSurfer shall read."""
    return (R / "cohort", "anat") if wildcards.judged == "hq" else (R / "enhanced" / wildcards.judged, "flat")


def experiment_settings(name):
    """An experiment with its sets by name."""
    return CONFIG.experiments[name].model_copy(update={"sets": CONFIG.sets_of(name)})


def experiment_results(name):
    """Its results, one a method and training seed."""
    methods = CONFIG.experiments[name].methods
    return sorted(
        (result for result in CONFIG.results() if result.method in methods),
        key=lambda result: methods.index(result.method),
    )


def experiment_models(name):
    """The trained model of each of its methods that has one."""
    models = {method: CONFIG.model_of(method) for method in CONFIG.experiments[name].methods}
    return {method: model for method, model in models.items() if model}


def experiment_cards(name):
    """The cards of its models, which say what training cost. Benchmarks of its jobs are read where they are, and are no
    inputs: whoever deletes them loses figures of memory, and should not have to train again."""
    models = experiment_models(name)
    results = [result for result in experiment_results(name) if result.method in models]
    return list(dict.fromkeys(model_files(models[one.method], one.seed)[1] for one in results))


def experiment_keys(name):
    """What the entries of its methods say under the keys that it shows."""
    experiment = CONFIG.experiments[name]
    return {method: {key: CONFIG.key_of(method, key) for key in experiment.keys} for method in experiment.methods}
