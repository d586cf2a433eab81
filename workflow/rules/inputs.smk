"""Inputs and parameters of single rules, by the file of the rule: Snakemake wants functions and rules in files apart."""

import json
import shlex

from iqt.planning.figures import FigureOf

SYNTHESISED = CONFIG.cohort.source == "labelmaps"
TABLE_FILES = [
    *("benchmark.csv", "benchmark.md", "benchmark.tex", "similarity.md", "similarity.tex"),
    *(f"{name}.{ending}" for name in ("statistics", "structures") for ending in ("csv", "md", "tex")),
]
"""What the folder of a low-field set's tables holds."""


# cohort.smk


def places(batch):
    """A few letters that change when the source's files of a batch's scans are elsewhere."""
    digests = [ENTRIES[scan].digest() for scan, _ in members("all", batch)]
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:12]


def source_files():
    """The records of all that is fetched; the template's people are made here."""
    return [] if CONFIG.cohort.source == "template" else sidecars("source", "all", None, "files.json", flat)


def source_settings():
    """What a scan's files depend on: not who else is read, nor how they are brought."""
    section = CONFIG.cohort.settings.model_dump(mode="json", exclude=NOT_OF_A_SCAN)
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


# train.smk


def train_code(wildcards):
    """What trains a model of its kind, and builds the network whose size it takes or that it starts from."""
    kinds = [CONFIG.methods[name].kind for name in PLAN.involved(wildcards.model)]
    return code("iqt.training.enhancement", *map(module_of, kinds))


def trained_on(model):
    """The low-field set that a model is trained on."""
    return CONFIG.methods[model].trained_on


def start_files(wildcards):
    """The trained regression that training starts from, where it starts from one."""
    start = PLAN.start_of(wildcards.model)
    return model_files(start, wildcards.seed) if start else []


# enhance.smk


def method_model(wildcards):
    """The trained model that a method uses; nothing for an interpolation."""
    result = result_of(wildcards.method)
    model = PLAN.model_of(result.method)
    return model_files(model, result.seed) if model else []


def modules_of(method):
    """The modules of a method's kind, and of that of the regression it starts from."""
    start = [CONFIG.methods[method.starts_from].kind] if method.starts_from else []
    return [module_of(kind) for kind in (method.kind, *start)]


def enhance_code(wildcards):
    """What runs a method of its kind: no training, and no network where there is none."""
    method = CONFIG.methods[result_of(wildcards.method).method]
    network = () if method.trained else ("iqt.enhance.models", "iqt.training.checkpoints", "iqt.training.card")
    return code("iqt.enhance.run", *modules_of(method), without=("iqt.training.tasks", *network))


def calibrate_code(wildcards):
    """What draws a method's samples and compares them with the truth."""
    modules = modules_of(CONFIG.methods[wildcards.name])
    return code("iqt.enhance.calibrate", *modules, without=("iqt.training.tasks",))


def spread_path(method, seed):
    """What validation people tell of the spread of a method's samples lies with the model that draws them."""
    return f"{model_folder(PLAN.model_of(method), seed)}/spread_{method}.json"


def spread_file(wildcards):
    """The same of a result; nothing for one that has a single sample."""
    result = result_of(wildcards.method)
    return spread_path(result.method, result.seed) if result.method in PLAN.sampled() else []


# parcellate_builtin.smk


def parcellator_files():
    """Weights and card of the built-in parcellator: the shipped one, or the run's own."""
    if CONFIG.parcellate.trained:
        return model_files(PARCELLATOR, SEED)
    return [shipped(SHIPPED_PARCELLATOR / name) for name in ("model.safetensors", "model.json")]


# parcellate_fastsurfer.smk


def read_by_fastsurfer(wildcards, batch):
    """The sidecars of the volumes that FastSurfer shall read."""
    if wildcards.judged == "hq":
        return []
    return sidecars(f"enhanced/{wildcards.judged}", "test", batch, name=flat)


def volumes_of(wildcards):
    """Folder and layout of the volumes that FastSurfer shall read."""
    return (R / "cohort", "anat") if wildcards.judged == "hq" else (R / "enhanced" / wildcards.judged, "flat")


# evaluate.smk


def assessment_files():
    """Calibration, reliability and seams of every low-field set."""
    tables = ("calibration", "reliability", "seams")
    return [f"{R}/metrics/{table}/{name}.csv" for name in CONFIG.lowfield for table in tables]


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


def parts(set_name, folder, batch):
    """The tables that are written of a batch of a result."""
    return [str(part_folder(R, set_name, folder, batch) / f"{table}.csv") for table in PARTS]


def parts_of(set_name, results):
    """The same of every batch of some results on a low-field set."""
    return [path for one in results for batch in batches("test") for path in parts(set_name, one.folder, batch)]


def readings(folder, batch):
    """The sidecars of the parcellator's label maps of a batch; nothing where there is no parcellator."""
    return sidecars(f"parcellation/{folder}", "test", batch, "dseg.json", flat) if PARCELLATED else []


def first_on(set_name):
    """The results on a set that pictures show: of the first training seed."""
    return [result for result in PLAN.results(set_name) if result.seed in (None, SEEDS[0])]


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


# experiments.smk


def experiment_results(name):
    """Its results, one per method and training seed."""
    methods = CONFIG.experiments[name].methods
    return sorted(
        (result for result in PLAN.results() if result.method in methods),
        key=lambda result: methods.index(result.method),
    )


def experiment_models(name):
    """The trained model of each of its methods that has one."""
    models = {method: PLAN.model_of(method) for method in CONFIG.experiments[name].methods}
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
    return {method: {key: PLAN.key_of(method, key) for key in experiment.keys} for method in experiment.methods}


# report.smk


def sweep_series():
    """The line of the sweep's figure that each diffusion method or flow is a point of: how it is sampled, and whether it
    is a mean."""
    found = {}
    for name, entry in CONFIG.methods.items():
        if entry.series is not None:
            found[name] = entry.series + (" mean" if entry.samples > 1 else "")
    return found


PANEL = {"panel": "panels/main/{scan}.npz", "subjects": "subjects.csv"}
MAIN = {"set": "main"}
FIGURES = {
    "slices": FigureOf(PANEL, "slices", "Slices", options=MAIN, of_scan=True),
    "parcellation": FigureOf(PANEL, "slices", "Parcellation", {"lut": LUT}, MAIN, of_scan=True),
    "metrics": FigureOf({"subjects": "subjects.csv"}, "scores", "Benchmark", options=MAIN),
    "training": FigureOf({"history": "history.csv"}, "training", "Training"),
    "overlap": FigureOf({}, "structures", "Structures", {"structures": f"{R}/tables/structures.csv"}),
    "published": FigureOf(
        {"subjects": "subjects.csv"},
        "published",
        "Benchmark",
        {"published": here(WORKFLOW.parent / "resources" / "published.csv")},
        MAIN,
    ),
    "reliability": FigureOf(
        {"reliability": "reliability/main.csv"}, "sampling", "Samples", options={"methods": ",".join(CONFIG.methods)}
    ),
    "sampling_sweep": FigureOf(
        {},
        "sampling",
        "Samples",
        {"benchmark": f"{R}/tables/benchmark.csv"},
        {"series": json.dumps(sweep_series())},
    ),
}
"""Kinds of figures, by what their files' names are or begin with."""


def figure_kind(figure):
    """The kind of a figure, by its name."""
    return figure if figure in FIGURES else figure.partition("_")[0]


def figure_inputs(wildcards):
    """What a figure is drawn from, by the option that names it."""
    kind = FIGURES[figure_kind(wildcards.figure)]
    scan = wildcards.figure.partition("_")[2]
    found = {name: gathered(path)({"scan": scan}) for name, path in kind.gathered.items()}
    return {**found, **kind.other}


def figure_code(wildcards):
    """The code that draws a figure."""
    return code(f"iqt.report.figures.{FIGURES[figure_kind(wildcards.figure)].drawn_by}")


def figure_options(wildcards, input):
    """A figure's command line without its outputs."""
    kind = FIGURES[figure_kind(wildcards.figure)]
    files = {name: path for name, path in input.items() if name != "code"}
    return " ".join(f"--{name} {shlex.quote(str(value))}" for name, value in {**files, **kind.options}.items())


def figure_files(*endings):
    """Every figure as every ending."""
    names = ["metrics", "training", "published", *(["reliability"] if PLAN.sampled() else [])]
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
