"""Enhance: each method on the low-field scans of the test people; and what its samples' spread says of the error, learnt
on the validation people.

in:  cohort/, lowfield/<set>/, models/<model>/
out: enhanced/<set>/<method>/*, models/<model>/seed-<n>/spread_<method>.json
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


rule calibrate:
    """Learn on the validation people what the spread of a method's samples says of its error."""
    input:
        participants=rules.list_participants.output.participants,
        cohort=sidecars("cohort", "trained"),
        lowfield=lambda wildcards: sidecars(f"lowfield/{trained_on(wildcards.model)}", "trained"),
        model=lambda wildcards: model_files(wildcards.model, wildcards.seed),
        code=calibrate_code,
    output:
        f"{R}/models/{{model}}/seed-{{seed}}/spread_{{name}}.json",
    log:
        f"{R}/logs/calibrate/{{model}}/seed-{{seed}}/{{name}}.log",
    benchmark:
        f"{R}/benchmarks/calibrate/{{model}}/seed-{{seed}}/{{name}}.tsv"
    wildcard_constraints:
        name="|".join(PLAN.sampled()) or "none",
    conda:
        "../../envs/iqt.yaml"
    threads: CONFIG.compute.batch_threads
    resources:
        mem_mb=per_attempt(MEMORY),
        runtime=per_attempt(240),
        gpu=1,
    params:
        suffix=SUFFIX,
        precision=PRECISION,
        memory=MEMORY,
        cohort=R / "cohort",
        lowfield=lambda wildcards: R / "lowfield" / trained_on(wildcards.model),
        model=lambda wildcards, input: Path(input.model[0]).parent,
        settings=as_json(lambda wildcards: PLAN.used_by(wildcards.name)),
    shell:
        r"""
        iqt --threads {threads} stage calibrate \
            --participants {input.participants:q} \
            --cohort {params.cohort:q} \
            --lowfield {params.lowfield:q} \
            --model {params.model:q} \
            --out {output:q} \
            --suffix {params.suffix} \
            --seed {wildcards.seed} \
            --precision {params.precision} \
            --memory-mb {params.memory} \
            --settings {params.settings:q} \
            >{log:q} 2>&1
        """
