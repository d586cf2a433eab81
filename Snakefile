"""DiffusionIQT as a benchmark: cohort -> degrade -> train -> enhance -> parcellate -> evaluate -> report.

Without --configfile this is the demo of config/config.yaml, which needs no download. Targets: all (the default),
cohort, lowfield, models, figures, sampling_sweep, experiments, and experiment_<name> for each of them.
"""

from pathlib import Path

from snakemake.utils import min_version

min_version("9.0")

# A configuration file given on the command line stands alone: nothing of the demo is merged into it.
if not workflow.overwrite_configfiles:

    configfile: str(Path(workflow.basedir) / "config" / "config.yaml")


# A study of one's own scans has rules of its own.
if "study" in config:

    include: "workflow/iqt/study/Snakefile"

    rule all:
        """Every scan, the tables and the page."""
        default_target: True
        input:
            rules.study.input,

else:

    include: "workflow/rules/common.smk"
    include: "workflow/rules/inputs.smk"
    include: "workflow/rules/preflight.smk"
    include: "workflow/rules/cohort.smk"
    include: "workflow/rules/degrade.smk"
    include: "workflow/rules/train.smk"
    include: "workflow/rules/enhance.smk"
    include: "workflow/rules/parcellate.smk"
    include: "workflow/rules/evaluate.smk"
    include: "workflow/rules/experiments.smk"
    include: "workflow/rules/report.smk"
    include: "workflow/rules/provenance.smk"

    rule all:
        """The benchmark table, the page, and how they were made."""
        default_target: True
        input:
            table_files(),
            assessment_files(),
            rules.write_page.output,
            rules.write_provenance.output,

    rule cohort:
        """The high-quality scans."""
        input:
            rules.list_participants.output,

    rule lowfield:
        """Every low-field set."""
        input:
            [
                sidecars(f"lowfield/{name}", "all" if name in CONFIG.training_sets else "test")
                for name in CONFIG.lowfield
            ],

    rule models:
        """Every trained network."""
        input:
            [model_files(model.method, model.seed) for model in TRAINED],

    rule sampling_sweep:
        """Quality against cost of the configuration's samplers: see config/sweep.yaml."""
        input:
            f"{R}/tables/benchmark.csv",
            [f"{R}/figures/{name}.{ending}" for name in ("sampling_sweep", "reliability") for ending in ("png", "svg")],

    rule experiments:
        """Every experiment of the configuration."""
        input:
            [path for name in CONFIG.experiments for path in experiment_files(name)],

    for experiment in CONFIG.experiments:

        rule:
            """The table and figure of one experiment, from its own methods and sets alone."""
            name:
                f"experiment_{experiment}"
            input:
                experiment_files(experiment),

    rule figures:
        """Every figure and table, drawn from metrics/ alone."""
        input:
            table_files(),
            figure_files("png", "svg"),
