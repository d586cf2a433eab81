"""Report: tables, figures and the page, drawn from metrics/ alone.

in:  metrics/
out: tables/{benchmark,statistics,structures}.{csv,md,tex}, tables/similarity.{md,tex} (tables/<set>/ for sets other than main),
     figures/*, report.html
"""


rule write_tables:
    """Write a low-field set's tables: benchmark, further similarity, paired statistics and structures."""
    input:
        subjects=gathered("subjects.csv"),
        structures=gathered("structures.csv"),
        code=code("iqt.report.tables.benchmark", "iqt.report.tables.comparisons", "iqt.report.tables.structures"),
    output:
        csv=report(
            f"{R}/{{where}}/benchmark.csv",
            caption="../report/benchmark.rst",
            category="Benchmark",
            labels={"table": "{where}"},
        ),
        markdown=f"{R}/{{where}}/benchmark.md",
        latex=f"{R}/{{where}}/benchmark.tex",
        statistics=report(
            f"{R}/{{where}}/statistics.csv",
            caption="../report/statistics.rst",
            category="Benchmark",
            labels={"table": "{where}, statistics"},
        ),
        structures=report(
            f"{R}/{{where}}/structures.csv",
            caption="../report/structures.rst",
            category="Structures",
            labels={"table": "{where}"},
        ),
        written=[
            f"{R}/{{where}}/{name}" for name in TABLE_FILES if not name.endswith(".csv") and "benchmark" not in name
        ],
    log:
        f"{R}/logs/write_{{where}}.log",
    benchmark:
        f"{R}/benchmarks/write_{{where}}.tsv"
    conda:
        "../../envs/iqt.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(1000),
        runtime=per_attempt(15),
    params:
        seed=SEED,
        set=lambda wildcards: {folder: name for name, folder in TABLES.items()}[wildcards.where],
        out=lambda wildcards, output: Path(output.csv).parent,
        bootstrap=CONFIG.evaluate.bootstrap,
        reference=[f"--reference {CONFIG.evaluate.reference}"] if CONFIG.evaluate.reference else [],
    shell:
        r"""
        iqt stage tables \
            --subjects {input.subjects:q} \
            --structures {input.structures:q} \
            {params.reference} \
            --set {params.set} \
            --bootstrap {params.bootstrap} \
            --seed {params.seed} \
            --out {params.out:q} \
            >{log:q} 2>&1
        """


rule plot:
    """Draw a figure: everybody's scores, training curves, structures, published values, samples, or one person."""
    input:
        unpack(figure_inputs),
        code=figure_code,
    output:
        png=report(
            f"{R}/figures/{{figure}}.png",
            caption="../report/figure.rst",
            category=lambda wildcards: FIGURES[figure_kind(wildcards.figure)].category,
            labels={"figure": "{figure}"},
        ),
        svg=f"{R}/figures/{{figure}}.svg",
    log:
        f"{R}/logs/plot/{{figure}}.log",
    benchmark:
        f"{R}/benchmarks/plot/{{figure}}.tsv"
    wildcard_constraints:
        figure=rf"(slices|parcellation)_{SCAN_PATTERN}|{'|'.join(name for name, one in FIGURES.items() if not one.of_scan)}",
    conda:
        "../../envs/iqt.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(15),
    params:
        kind=lambda wildcards: figure_kind(wildcards.figure),
        options=figure_options,
    shell:
        r"""
        iqt plot {params.kind} \
            {params.options} \
            --out {output.png:q} \
            --out {output.svg:q} \
            >{log:q} 2>&1
        """


rule write_page:
    """Write the page that a person opens: one file, without a network."""
    input:
        tables=table_files(),
        metrics=[
            rules.gather_metrics.output.subjects,
            rules.gather_metrics.output.structures,
            rules.gather_metrics.output.run,
            *([rules.score_parcellator.output[0]] if PARCELLATED else []),
            *assessment_files(),
        ],
        lut=LUT,
        panels=[f"{R}/metrics/panels/main/{scan}.npz" for scan in SHOWN],
        figures=figure_files("png"),
        vectors=figure_files("svg"),
        code=code(
            "iqt.report.page.write",
            files=[
                f"report/page/{name}"
                for name in ("page.html", "head.html", "viewer.html", "page.css", "page.js", "viewer.js")
            ],
        ),
    output:
        report(
            f"{R}/report.html",
            caption="../report/page.rst",
            category="Page",
            labels={"page": "report"},
        ),
    log:
        f"{R}/logs/write_page.log",
    benchmark:
        f"{R}/benchmarks/write_page.tsv"
    conda:
        "../../envs/iqt.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(1000),
        runtime=per_attempt(15),
    params:
        metrics=R / "metrics",
        tables=R / "tables",
        lut=option("--lut", LUT),
        figures=[f"--figure {path}" for path in figure_files("png")],
        experiments=as_json({name: experiment_settings(name).model_dump(mode="json") for name in CONFIG.experiments}),
        named="" if isinstance(CONFIG.report.people, int) else "--people-named",
        panels=lambda wildcards, input: [f"--panel {path}" for path in input.panels],
    shell:
        r"""
        iqt stage page \
            --metrics {params.metrics:q} \
            --tables {params.tables:q} \
            {params.lut} \
            {params.figures} \
            {params.panels} \
            --experiments {params.experiments:q} \
            {params.named} \
            --out {output:q} \
            >{log:q} 2>&1
        """
