"""The built-in parcellator, shipped or trained on the training people's high-quality scans, run on the test people's.

in:  cohort/, enhanced/<set>/<method>/
out: models/parcellator/ where it is trained, parcellation/hq/*, parcellation/<set>/<method>/*
"""

if CONFIG.parcellate.trained:

    rule train_parcellator:
        """Train the built-in parcellator on the training people's high-quality scans."""
        input:
            participants=rules.list_participants.output.participants,
            lut=LUT,
            cohort=sidecars("cohort", "trained"),
            code=code("iqt.parcellate.train", without=("iqt.training.tasks",)),
        output:
            weights=model_files(PARCELLATOR, SEED)[0],
            card=model_files(PARCELLATOR, SEED)[1],
            history=f"{model_folder(PARCELLATOR, SEED)}/history.csv",
        log:
            f"{R}/logs/train_parcellator.log",
        benchmark:
            f"{R}/benchmarks/train_parcellator.tsv"
        conda:
            "../../envs/iqt.yaml"
        threads: CONFIG.compute.train_threads
        resources:
            mem_mb=per_attempt(8000),
            runtime=per_attempt(720),
            gpu=1,
            workers=CONFIG.parcellate.builtin.training.workers,
        params:
            suffix=SUFFIX,
            seed=SEED,
            precision=PRECISION,
            cohort=R / "cohort",
            out=lambda wildcards, output: Path(output.card).parent,
            settings=as_json(CONFIG.parcellate.builtin.training_settings),
        shell:
            r"""
            iqt --threads {threads} stage train-parcellator \
                --participants {input.participants:q} \
                --cohort {params.cohort:q} \
                --lut {input.lut:q} \
                --out {params.out:q} \
                --suffix {params.suffix} \
                --seed {params.seed} \
                --precision {params.precision} \
                --workers {resources.workers} \
                --settings {params.settings:q} \
                2>&1 | tee {log:q}
            """


OTHER_NETWORK = "iqt.parcellate.predict" if CONFIG.parcellate.shipped else "iqt.parcellate.volumetric"
"""Module of the kind of network that is not used."""
PARCELLATOR_FOLDER = model_folder(PARCELLATOR, SEED) if CONFIG.parcellate.trained else SHIPPED_PARCELLATOR
READER = code("iqt.parcellate.run", without=(OTHER_NETWORK, "iqt.training.tasks"))
PARCELLATE = r"""
            iqt --threads {threads} stage parcellate \
                --list {input.scans:q} \
                --images {params.images:q} \
                --layout {params.layout} \
                --cohort {params.cohort:q} \
                --model {params.model:q} \
                --out {params.out:q} \
                --suffix {params.suffix} \
                --precision {params.precision} \
                > {log:q} 2>&1
            """

for batch in batches("test"):

    rule:
        """Label the structures of a batch's high-quality scans."""
        name:
            f"parcellate_reference_{batch}"
        input:
            scans=scan_list("test", batch),
            cohort=sidecars("cohort", "test", batch),
            model=parcellator_files(),
            code=READER,
        output:
            sidecars("parcellation/hq", "test", batch, "dseg.json", flat),
        log:
            f"{R}/logs/parcellate/hq/batch-{batch}.log",
        benchmark:
            f"{R}/benchmarks/parcellate/hq/batch-{batch}.tsv"
        conda:
            "../../envs/iqt.yaml"
        threads: CONFIG.compute.batch_threads
        resources:
            mem_mb=per_attempt(6000),
            runtime=minutes(3, "test", batch),
            gpu=1,
        params:
            suffix=SUFFIX,
            precision=PRECISION,
            cohort=R / "cohort",
            images=R / "cohort",
            layout="anat",
            model=verbatim(PARCELLATOR_FOLDER),
            out=R / "parcellation" / "hq",
        shell:
            PARCELLATE

    rule:
        """Label the structures of a batch's results by one method."""
        name:
            f"parcellate_result_{batch}"
        input:
            scans=scan_list("test", batch),
            cohort=sidecars("cohort", "test", batch),
            enhanced=sidecars("enhanced/{set}/{method}", "test", batch, name=flat),
            model=parcellator_files(),
            code=READER,
        output:
            sidecars("parcellation/{set}/{method}", "test", batch, "dseg.json", flat),
        log:
            f"{R}/logs/parcellate/{{set}}/{{method}}/batch-{batch}.log",
        benchmark:
            f"{R}/benchmarks/parcellate/{{set}}/{{method}}/batch-{batch}.tsv"
        conda:
            "../../envs/iqt.yaml"
        threads: CONFIG.compute.batch_threads
        resources:
            mem_mb=per_attempt(6000),
            runtime=minutes(3, "test", batch),
            gpu=1,
        params:
            suffix=SUFFIX,
            precision=PRECISION,
            cohort=R / "cohort",
            images=lambda wildcards: R / "enhanced" / wildcards.set / wildcards.method,
            layout="flat",
            model=verbatim(PARCELLATOR_FOLDER),
            out=lambda wildcards: R / "parcellation" / wildcards.set / wildcards.method,
        shell:
            PARCELLATE
