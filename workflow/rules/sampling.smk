"""Sampling: quality against cost.

in:  tables/benchmark.csv
out: figures/sampling_sweep.*
"""


rule draw_sweep:
    """Draw each measure of the diffusion methods over their network calls."""
    input:
        table=f"{R}/tables/benchmark.csv",
        code=code("iqt.report.sampling"),
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
        mem_mb=per_attempt(1000),
        runtime=per_attempt(15),
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
