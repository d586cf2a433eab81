"""Report: tables, figures and the page, drawn from metrics/ alone.

in:  metrics/
out: tables/{benchmark,similarity,statistics,structures}.{csv,md,tex} (tables/<set>/ for sets other than main),
     figures/*, report.html
"""


rule write_tables:
    """Write a low-field set's tables: benchmark, further similarity, paired statistics and structures."""
    input:
        subjects=gathered("subjects.csv"),
        structures=gathered("structures.csv"),
        code=code("iqt.report.tables", "iqt.report.comparisons", "iqt.report.structure_table"),
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


rule draw_slices:
    """Draw a person's low-field scan, every method, the reference and the errors in three planes."""
    input:
        panel=gathered("panels/main/{scan}.npz"),
        subjects=gathered("subjects.csv"),
        code=code("iqt.report.figures"),
    output:
        png=report(
            f"{R}/figures/slices_{{scan}}.png",
            caption="../report/slices.rst",
            category="Slices",
            labels={"person": "{scan}"},
        ),
        svg=f"{R}/figures/slices_{{scan}}.svg",
    log:
        f"{R}/logs/draw_slices/{{scan}}.log",
    benchmark:
        f"{R}/benchmarks/draw_slices/{{scan}}.tsv"
    conda:
        "../../envs/iqt.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(15),
    shell:
        r"""
        iqt draw slices \
            --panel {input.panel:q} \
            --subjects {input.subjects:q} \
            --set main \
            --out {output.png:q} \
            --out {output.svg:q} \
            >{log:q} 2>&1
        """


rule draw_parcellation:
    """Draw the parcellator's labels over a person's reference and results."""
    input:
        panel=gathered("panels/main/{scan}.npz"),
        lut=LUT,
        subjects=gathered("subjects.csv"),
        code=code("iqt.report.figures"),
    output:
        png=report(
            f"{R}/figures/parcellation_{{scan}}.png",
            caption="../report/parcellation.rst",
            category="Parcellation",
            labels={"person": "{scan}"},
        ),
        svg=f"{R}/figures/parcellation_{{scan}}.svg",
    log:
        f"{R}/logs/draw_parcellation/{{scan}}.log",
    benchmark:
        f"{R}/benchmarks/draw_parcellation/{{scan}}.tsv"
    conda:
        "../../envs/iqt.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(15),
    shell:
        r"""
        iqt draw parcellation \
            --panel {input.panel:q} \
            --lut {input.lut:q} \
            --subjects {input.subjects:q} \
            --set main \
            --out {output.png:q} \
            --out {output.svg:q} \
            >{log:q} 2>&1
        """


rule draw_metrics:
    """Draw the spread of each metric over the test people."""
    input:
        subjects=gathered("subjects.csv"),
        code=code("iqt.report.figures"),
    output:
        png=report(
            f"{R}/figures/metrics.png",
            caption="../report/metrics.rst",
            category="Benchmark",
            labels={"table": "metrics"},
        ),
        svg=f"{R}/figures/metrics.svg",
    log:
        f"{R}/logs/draw_metrics.log",
    benchmark:
        f"{R}/benchmarks/draw_metrics.tsv"
    conda:
        "../../envs/iqt.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(15),
    shell:
        r"""
        iqt draw metrics \
            --subjects {input.subjects:q} \
            --set main \
            --out {output.png:q} \
            --out {output.svg:q} \
            >{log:q} 2>&1
        """


rule draw_training:
    """Draw the training curves of every network."""
    input:
        history=gathered("history.csv"),
        code=code("iqt.report.figures"),
    output:
        png=report(
            f"{R}/figures/training.png",
            caption="../report/training.rst",
            category="Training",
            labels={"curve": "training"},
        ),
        svg=f"{R}/figures/training.svg",
    log:
        f"{R}/logs/draw_training.log",
    benchmark:
        f"{R}/benchmarks/draw_training.tsv"
    conda:
        "../../envs/iqt.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(15),
    shell:
        r"""
        iqt draw training \
            --history {input.history:q} \
            --out {output.png:q} \
            --out {output.svg:q} \
            >{log:q} 2>&1
        """


rule draw_overlap:
    """Draw overlap and volume bias of every structure and method."""
    input:
        structures=f"{R}/tables/structures.csv",
        code=code("iqt.report.structure_figure"),
    output:
        png=report(
            f"{R}/figures/overlap.png",
            caption="../report/overlap.rst",
            category="Structures",
            labels={"table": "figure"},
        ),
        svg=f"{R}/figures/overlap.svg",
    log:
        f"{R}/logs/draw_overlap.log",
    benchmark:
        f"{R}/benchmarks/draw_overlap.tsv"
    conda:
        "../../envs/iqt.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(15),
    shell:
        r"""
        iqt draw overlap \
            --structures {input.structures:q} \
            --out {output.png:q} \
            --out {output.svg:q} \
            >{log:q} 2>&1
        """


rule draw_published:
    """Draw published reference figures beside this run's, definition by definition."""
    input:
        subjects=gathered("subjects.csv"),
        published=here(WORKFLOW.parent / "resources" / "published.csv"),
        code=code("iqt.report.published"),
    output:
        png=report(
            f"{R}/figures/published.png",
            caption="../report/published.rst",
            category="Benchmark",
            labels={"table": "published"},
        ),
        svg=f"{R}/figures/published.svg",
    log:
        f"{R}/logs/draw_published.log",
    benchmark:
        f"{R}/benchmarks/draw_published.tsv"
    conda:
        "../../envs/iqt.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(15),
    shell:
        r"""
        iqt draw published \
            --subjects {input.subjects:q} \
            --published {input.published:q} \
            --set main \
            --out {output.png:q} \
            --out {output.svg:q} \
            >{log:q} 2>&1
        """


rule draw_reliability:
    """Draw the true error over the one that the samples' spread makes one expect."""
    input:
        reliability=gathered("reliability/main.csv"),
        code=code("iqt.report.sampling"),
    output:
        png=report(
            f"{R}/figures/reliability.png",
            caption="../report/reliability.rst",
            category="Samples",
            labels={"figure": "reliability"},
        ),
        svg=f"{R}/figures/reliability.svg",
    log:
        f"{R}/logs/draw_reliability.log",
    benchmark:
        f"{R}/benchmarks/draw_reliability.tsv"
    conda:
        "../../envs/iqt.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(1000),
        runtime=per_attempt(15),
    params:
        methods=",".join(CONFIG.methods),
    shell:
        r"""
        iqt draw reliability \
            --reliability {input.reliability:q} \
            --methods {params.methods} \
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
            "iqt.report.page", files=["report/page.html", "report/page.css", "report/page.js", "report/viewer.js"]
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
