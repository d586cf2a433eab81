"""Experiments: each one's table and figure, from the results of its own methods and sets alone.

in:  cohort/, enhanced/<set>/<method>/, parcellation/, models/ and benchmarks/ of the experiment's methods
out: metrics/experiments/<experiment>/{results,reliability}.csv, tables/experiments/<experiment>.*,
     figures/experiment_<experiment>.*
"""


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


def experiment_costs(wildcards):
    """Where the cost of its results was measured: cards of the models, benchmarks of the jobs."""
    name, found = wildcards.experiment, []
    for result in experiment_results(name):
        model = CONFIG.model_of(result.method)
        if model:
            found += [model_files(model, result.seed)[1], f"{R}/benchmarks/train/{model}/seed-{result.seed}.tsv"]
        found += [
            f"{R}/benchmarks/enhance/{set_name}/{result.folder}/batch-{batch}.tsv"
            for set_name in CONFIG.sets_of(name)
            for batch in batches("test")
        ]
    return list(dict.fromkeys(found))


def experiment_keys(name):
    """What the entries of its methods say under the keys that it shows."""
    experiment = CONFIG.experiments[name]
    return {method: {key: CONFIG.key_of(method, key) for key in experiment.keys} for method in experiment.methods}


wildcard_constraints:
    experiment="|".join(CONFIG.experiments) or "none",


rule score_experiment:
    """Score an experiment's results and gather what they cost: by itself, so that no other method is waited for."""
    input:
        scans=scan_lists("test"),
        cohort=sidecars("cohort", "test"),
        reference=sidecars("parcellation/hq", "test", ending="dseg.json", name=flat),
        lut=LUT,
        enhanced=lambda wildcards: [
            path
            for name in CONFIG.sets_of(wildcards.experiment)
            for path in enhanced_on(name, methods=CONFIG.experiments[wildcards.experiment].methods)
        ],
        parcellation=lambda wildcards: [
            path
            for name in CONFIG.sets_of(wildcards.experiment)
            for path in parcellated_on(name, methods=CONFIG.experiments[wildcards.experiment].methods)
        ],
        costs=experiment_costs,
        code=code("evaluate"),
    output:
        results=f"{R}/metrics/experiments/{{experiment}}/results.csv",
        reliability=f"{R}/metrics/experiments/{{experiment}}/reliability.csv",
    log:
        f"{R}/logs/score_experiment/{{experiment}}.log",
    benchmark:
        f"{R}/benchmarks/score_experiment/{{experiment}}.tsv"
    conda:
        "../../envs/iqt.yaml"
    threads: CONFIG.compute.batch_threads
    resources:
        mem_mb=growing(6000),
        runtime=minutes(60, "test", None),
    params:
        suffix=SUFFIX,
        root=R,
        lists=[f"--list {path}" for path in scan_lists("test")],
        sets=lambda wildcards: [f"--set {name}" for name in CONFIG.sets_of(wildcards.experiment)],
        results=lambda wildcards: ",".join(result.text for result in experiment_results(wildcards.experiment)),
        models=lambda wildcards: as_json(experiment_models(wildcards.experiment)),
        settings=as_json(CONFIG.evaluate.model_dump(mode="json", exclude={"bootstrap", "reference"})),
        out=lambda wildcards, output: Path(output.results).parent,
    shell:
        r"""
        iqt --threads {threads} score-experiment \
            {params.lists} \
            {params.sets} \
            --run {params.root:q} \
            --results {params.results} \
            --models {params.models:q} \
            --lut {input.lut:q} \
            --suffix {params.suffix} \
            --settings {params.settings:q} \
            --out {params.out:q} \
            >{log:q} 2>&1
        """


rule draw_experiment:
    """Write an experiment's table and draw its figure."""
    input:
        results=gathered("experiments/{experiment}/results.csv"),
        reliability=gathered("experiments/{experiment}/reliability.csv"),
        code=code(
            *(f"report/{name}.py" for name in ("experiments", "experiment_figures", "figures", "sampling")),
            *(f"report/{name}.py" for name in ("scores", "formats")),
            "statistics.py",
        ),
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
        f"{R}/logs/draw_experiment/{{experiment}}.log",
    benchmark:
        f"{R}/benchmarks/draw_experiment/{{experiment}}.tsv"
    conda:
        "../../envs/iqt.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(15),
    params:
        seed=SEED,
        bootstrap=CONFIG.evaluate.bootstrap,
        settings=lambda wildcards: as_json(experiment_settings(wildcards.experiment)),
        shown=lambda wildcards: as_json(experiment_keys(wildcards.experiment)),
    shell:
        r"""
        iqt draw experiment \
            --results {input.results:q} \
            --reliability {input.reliability:q} \
            --settings {params.settings:q} \
            --keys {params.shown:q} \
            --bootstrap {params.bootstrap} \
            --seed {params.seed} \
            --table {output.csv:q} \
            --out {output.png:q} \
            --out {output.svg:q} \
            >{log:q} 2>&1
        """
