"""Experiments: each one's table and figure, from the results of its own methods and sets alone.

in:  metrics/parts/<set>/batch-<n>/<method>/, models/ and benchmarks/ of the experiment's methods
out: metrics/experiments/<experiment>/{results,reliability}.csv, tables/experiments/<experiment>.*,
     figures/experiment_<experiment>.*
"""


wildcard_constraints:
    experiment="|".join(CONFIG.experiments) or "none",


rule gather_experiment:
    """Gather an experiment's scores and what its results cost: by itself, so that no other method is waited for."""
    input:
        scans=scan_lists("test"),
        parts=lambda wildcards: [
            path
            for name in CONFIG.sets_of(wildcards.experiment)
            for path in parts_of(name, experiment_results(wildcards.experiment))
        ],
        models=lambda wildcards: experiment_cards(wildcards.experiment),
        code=code("iqt.evaluate.experiment"),
    output:
        results=f"{R}/metrics/experiments/{{experiment}}/results.csv",
        reliability=f"{R}/metrics/experiments/{{experiment}}/reliability.csv",
    log:
        f"{R}/logs/gather_experiment/{{experiment}}.log",
    benchmark:
        f"{R}/benchmarks/gather_experiment/{{experiment}}.tsv"
    conda:
        "../../envs/iqt.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(30),
    params:
        root=R,
        batches=",".join(map(str, batches("test"))),
        lists=[f"--list {path}" for path in scan_lists("test")],
        sets=lambda wildcards: [f"--set {name}" for name in CONFIG.sets_of(wildcards.experiment)],
        results=lambda wildcards: ",".join(result.text for result in experiment_results(wildcards.experiment)),
        models=as_json(lambda wildcards: experiment_models(wildcards.experiment)),
        out=lambda wildcards, output: Path(output.results).parent,
    shell:
        r"""
        iqt stage gather-experiment \
            {params.lists} \
            --run {params.root:q} \
            --batches {params.batches} \
            {params.sets} \
            --results {params.results} \
            --models {params.models:q} \
            --out {params.out:q} \
            >{log:q} 2>&1
        """


rule plot_experiment:
    """Write an experiment's table and draw its figure."""
    input:
        results=gathered("experiments/{experiment}/results.csv"),
        reliability=gathered("experiments/{experiment}/reliability.csv"),
        code=code("iqt.report.tables.experiments", "iqt.report.figures.experiments"),
    output:
        csv=report(
            f"{R}/tables/experiments/{{experiment}}.csv",
            caption="../report/experiment.rst",
            category="Experiments",
            labels={"experiment": "{experiment}, table"},
        ),
        written=[f"{R}/tables/experiments/{{experiment}}.{ending}" for ending in ("md", "tex")],
        png=report(
            f"{R}/figures/experiment_{{experiment}}.png",
            caption="../report/experiment.rst",
            category="Experiments",
            labels={"experiment": "{experiment}, figure"},
        ),
        svg=f"{R}/figures/experiment_{{experiment}}.svg",
    log:
        f"{R}/logs/plot_experiment/{{experiment}}.log",
    benchmark:
        f"{R}/benchmarks/plot_experiment/{{experiment}}.tsv"
    conda:
        "../../envs/iqt.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(15),
    params:
        seed=SEED,
        bootstrap=CONFIG.evaluate.bootstrap,
        settings=as_json(lambda wildcards: experiment_settings(wildcards.experiment)),
        shown=as_json(lambda wildcards: experiment_keys(wildcards.experiment)),
        methods=",".join(CONFIG.methods),
    shell:
        r"""
        iqt plot experiment \
            --results {input.results:q} \
            --reliability {input.reliability:q} \
            --settings {params.settings:q} \
            --keys {params.shown:q} \
            --methods {params.methods} \
            --bootstrap {params.bootstrap} \
            --seed {params.seed} \
            --table {output.csv:q} \
            --out {output.png:q} \
            --out {output.svg:q} \
            >{log:q} 2>&1
        """
