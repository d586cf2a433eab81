"""Train: the patch store, and one network a model (methods that differ only in sampling share one).

in:  cohort/, lowfield/<set>/ of the training and validation people
out: store/<set>/*, models/<model>/seed-<n>/{model.safetensors, model.json, history.csv}
"""

for set_name, batch in itertools.product(CONFIG.training_sets, batches("trained")):

    rule:
        """Write a batch's uncompressed volumes for training."""
        name:
            f"store{suffix_of(set_name)}_{batch}"
        input:
            scans=scan_list("trained", batch),
            cohort=sidecars("cohort", "trained", batch),
            lowfield=sidecars(f"lowfield/{set_name}", "trained", batch),
            code=code("iqt.training.store"),
        output:
            sidecars(f"store/{set_name}", "trained", batch, "pair.json", flat),
        log:
            f"{R}/logs/store/{set_name}/batch-{batch}.log",
        benchmark:
            f"{R}/benchmarks/store/{set_name}/batch-{batch}.tsv"
        priority: SOON
        conda:
            "../../envs/iqt.yaml"
        threads: CONFIG.compute.batch_threads
        resources:
            mem_mb=per_attempt(4000),
            runtime=minutes(1, "trained", batch),
        params:
            suffix=SUFFIX,
            cohort=R / "cohort",
            lowfield=R / "lowfield" / set_name,
            out=R / "store" / set_name,
        shell:
            r"""
            iqt --threads {threads} stage store \
                --list {input.scans:q} \
                --cohort {params.cohort:q} \
                --lowfield {params.lowfield:q} \
                --out {params.out:q} \
                --suffix {params.suffix} \
                >{log:q} 2>&1
            """


rule train:
    """Train one model; started again after an interruption, it goes on from its last checkpoint."""
    input:
        participants=rules.list_participants.output.participants,
        store=lambda wildcards: sidecars(f"store/{trained_on(wildcards.model)}", "trained", None, "pair.json", flat),
        start=start_files,
        code=train_code,
    output:
        weights=f"{R}/models/{{model}}/seed-{{seed}}/model.safetensors",
        card=f"{R}/models/{{model}}/seed-{{seed}}/model.json",
        history=f"{R}/models/{{model}}/seed-{{seed}}/history.csv",
    log:
        f"{R}/logs/train/{{model}}/seed-{{seed}}.log",
    benchmark:
        f"{R}/benchmarks/train/{{model}}/seed-{{seed}}.tsv"
    wildcard_constraints:
        model="|".join(PLAN.models()) or "none",
    priority: SOON
    conda:
        "../../envs/iqt.yaml"
    threads: CONFIG.compute.train_threads
    resources:
        mem_mb=per_attempt(8000 * CONFIG.compute.gpus),
        runtime=per_attempt(1440),
        gpu=CONFIG.compute.gpus,
        # Not among the params: weights do not depend on it.
        workers=lambda wildcards: CONFIG.methods[wildcards.model].training.workers,
    params:
        precision=PRECISION,
        store=lambda wildcards: R / "store" / trained_on(wildcards.model),
        out=lambda wildcards, output: Path(output.card).parent,
        start=lambda wildcards, input: f"--start {Path(input.start[0]).parent}" if input.start else "",
        settings=as_json(lambda wildcards: PLAN.trained_by(wildcards.model)),
    shell:
        r"""
        iqt --threads {threads} stage train \
            --participants {input.participants:q} \
            --store {params.store:q} \
            --out {params.out:q} \
            --name {wildcards.model} \
            --seed {wildcards.seed} \
            --precision {params.precision} \
            --devices {resources.gpu} \
            --workers {resources.workers} \
            {params.start} \
            --settings {params.settings:q} \
            2>&1 | tee {log:q}
        """
