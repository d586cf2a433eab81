"""Provenance: how the run's results were made, beside them.

in:  the tables, the page and the trained models; Snakemake's own records of the jobs behind them
out: provenance.json
"""

from snakemake import __version__ as snakemake_version


rule write_provenance:
    """Write commit, configuration, versions, seeds, host, durations, source files and checksums of the finished run."""
    input:
        results=[
            *table_files(),
            *(path for model in TRAINED for path in model_files(model.method, model.seed)),
            *rules.write_page.output,
        ],
        code=code("iqt.provenance.collect"),
    output:
        f"{R}/provenance.json",
    log:
        f"{R}/logs/write_provenance.log",
    benchmark:
        f"{R}/benchmarks/write_provenance.tsv"
    conda:
        "../../envs/iqt.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(30),
    params:
        root=R,
        results=lambda wildcards, input: [f"--result {path}" for path in input.results],
        snakemake=snakemake_version,
        # A function, since the patterns of a folder's files hold braces of their own.
        settings=as_json(lambda wildcards: CONFIG),
    shell:
        r"""
        iqt stage record-provenance \
            --root {params.root:q} \
            {params.results} \
            --snakemake {params.snakemake} \
            --settings {params.settings:q} \
            --out {output:q} \
            >{log:q} 2>&1
        """
