"""Sampling: quality against cost, and the reliability of the samples' spread.

in:  tables/benchmark.csv, metrics/reliability/main.csv
out: figures/sampling_sweep.*, figures/reliability.*
"""


rule draw_sweep:
    """Draw each measure of the diffusion methods over their network calls."""
    input:
        table=f"{R}/tables/benchmark.csv",
        code=code("report/sampling.py", "report/figures.py", "report/scores.py"),
    output:
        png=f"{R}/figures/sampling_sweep.png",
        svg=f"{R}/figures/sampling_sweep.svg",
    log:
        f"{R}/logs/draw_sweep.log",
    benchmark:
        f"{R}/benchmarks/draw_sweep.tsv"
    conda:
        "../../envs/iqt.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(15),
    params:
        series=as_json(sweep_series()),
    shell:
        r"""
        iqt draw sweep \
            --benchmark {input.table:q} \
            --series {params.series:q} \
            --out {output.png:q} \
            --out {output.svg:q} \
            >{log:q} 2>&1
        """


rule draw_reliability:
    """Draw the true error over the one that the samples' spread makes one expect."""
    input:
        reliability=f"{R}/metrics/reliability/main.csv",
        code=code("report/sampling.py", "report/figures.py", "report/scores.py"),
    output:
        png=f"{R}/figures/reliability.png",
        svg=f"{R}/figures/reliability.svg",
    log:
        f"{R}/logs/draw_reliability.log",
    benchmark:
        f"{R}/benchmarks/draw_reliability.tsv"
    conda:
        "../../envs/iqt.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(15),
    shell:
        r"""
        iqt draw reliability \
            --reliability {input.reliability:q} \
            --out {output.png:q} \
            --out {output.svg:q} \
            >{log:q} 2>&1
        """
