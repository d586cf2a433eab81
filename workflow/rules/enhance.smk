"""Enhance: each method on the low-field scans of the test people.

in:  lowfield/<set>/, models/<model>/
out: enhanced/<set>/<method>/*
"""

MEMORY = 6000
"""Megabytes that a job asks for at first."""


for batch in batches("test"):

    rule:
        """Enhance a batch of test people with one method."""
        name:
            f"enhance_{batch}"
        input:
            scans=scan_list("test", batch),
            cohort=sidecars("cohort", "test", batch),
            lowfield=sidecars("lowfield/{set}", "test", batch),
            model=method_model,
            code=enhance_code,
        output:
            sidecars("enhanced/{set}/{method}", "test", batch, name=flat),
        log:
            f"{R}/logs/enhance/{{set}}/{{method}}/batch-{batch}.log",
        benchmark:
            f"{R}/benchmarks/enhance/{{set}}/{{method}}/batch-{batch}.tsv"
        conda:
            "../../envs/iqt.yaml"
        threads: CONFIG.compute.batch_threads
        resources:
            mem_mb=per_attempt(MEMORY),
            runtime=minutes(20, "test", batch),
            gpu=lambda wildcards: 1 if PLAN.model_of(result_of(wildcards.method).method) else 0,
        params:
            suffix=SUFFIX,
            seed=SEED,
            precision=PRECISION,
            # What tiles are chosen by: not what a job that was killed is given on top, or its retry would tile anew.
            memory=MEMORY,
            cohort=R / "cohort",
            lowfield=lambda wildcards: R / "lowfield" / wildcards.set,
            out=lambda wildcards: R / "enhanced" / wildcards.set / wildcards.method,
            model=lambda wildcards, input: f"--model {Path(input.model[0]).parent}" if input.model else "",
            settings=as_json(lambda wildcards: PLAN.used_by(result_of(wildcards.method).method)),
        shell:
            r"""
            iqt --threads {threads} stage enhance \
                --list {input.scans:q} \
                --cohort {params.cohort:q} \
                --lowfield {params.lowfield:q} \
                {params.model} \
                --out {params.out:q} \
                --suffix {params.suffix} \
                --seed {params.seed} \
                --precision {params.precision} \
                --memory-mb {params.memory} \
                --settings {params.settings:q} \
                >{log:q} 2>&1
            """
