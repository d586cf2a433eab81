"""Degrade: simulated low-field scans of every person, for each set of the configuration.

in:  cohort/sub-X/anat/* with tissue posteriors
out: lowfield/<set>/sub-X/anat/*
"""

for batch in batches("all"):

    rule:
        """Simulate a batch's low-field scans."""
        name:
            f"degrade_{batch}"
        input:
            scans=scan_list("all", batch),
            cohort=sidecars("cohort", "all", batch),
            code=code("degrade"),
        output:
            sidecars("lowfield/{set}", "all", batch),
        log:
            f"{R}/logs/degrade/{{set}}/batch-{batch}.log",
        benchmark:
            f"{R}/benchmarks/degrade/{{set}}/batch-{batch}.tsv"
        conda:
            "../../envs/iqt.yaml"
        threads: CONFIG.compute.batch_threads
        resources:
            mem_mb=lambda wildcards, attempt: 4000 * attempt,
            runtime=lambda wildcards, attempt: 60 * attempt,
        params:
            suffix=SUFFIX,
            seed=SEED,
            cohort=R / "cohort",
            out=lambda wildcards: R / "lowfield" / wildcards.set,
            settings=lambda wildcards: as_json(CONFIG.lowfield[wildcards.set]),
        shell:
            r"""
            iqt --threads {threads} degrade \
                --list {input.scans:q} \
                --cohort {params.cohort:q} \
                --out {params.out:q} \
                --suffix {params.suffix} \
                --set {wildcards.set} \
                --seed {params.seed} \
                --settings {params.settings:q} \
                >{log:q} 2>&1
            """
