"""Evaluate: every result against its reference, and what the report needs gathered in one folder.

in:  cohort/, lowfield/, enhanced/, parcellation/ of the test people
out: metrics/parts/<set>/batch-<n>/<method>/*.csv, and gathered from these metrics/subjects.csv, structures.csv,
     history.csv, run.json, calibration/, reliability/ and seams/<set>.csv; metrics/panels/<set>/<scan>.npz
"""


rule evaluate:
    """Score one result of a batch of scans against the high-quality ones."""
    input:
        scans=lambda wildcards: scan_list("test", wildcards.batch),
        cohort=lambda wildcards: sidecars("cohort", "test", wildcards.batch),
        lut=LUT,
        lowfield=lambda wildcards: sidecars(f"lowfield/{wildcards.set}", "test", wildcards.batch),
        enhanced=lambda wildcards: sidecars(
            f"enhanced/{wildcards.set}/{wildcards.method}", "test", wildcards.batch, name=flat
        ),
        reference=lambda wildcards: readings("hq", wildcards.batch),
        parcellation=lambda wildcards: readings(f"{wildcards.set}/{wildcards.method}", wildcards.batch),
        weights=lpips_weights,
        spread=spread_file,
        code=code("iqt.evaluate.run"),
    output:
        parts("{set}", "{method}", "{batch}"),
    log:
        f"{R}/logs/evaluate/{{set}}/{{method}}/batch-{{batch}}.log",
    benchmark:
        f"{R}/benchmarks/evaluate/{{set}}/{{method}}/batch-{{batch}}.tsv"
    conda:
        "../../envs/iqt.yaml"
    threads: CONFIG.compute.batch_threads
    resources:
        mem_mb=per_attempt(6000),
        runtime=lambda wildcards, attempt: minutes(2, "test", wildcards.batch)(wildcards, attempt),
    params:
        suffix=SUFFIX,
        root=R,
        result=lambda wildcards: result_of(wildcards.method).text,
        lut=option("--lut", LUT),
        spread=lambda wildcards, input: f"--spread {input.spread}" if input.spread else "",
        settings=as_json(CONFIG.evaluate.model_dump(mode="json", exclude={"bootstrap", "reference"})),
        out=lambda wildcards, output: Path(output[0]).parent,
    shell:
        r"""
        iqt --threads {threads} stage evaluate \
            --list {input.scans:q} \
            --run {params.root:q} \
            --result {params.result} \
            {params.lut} \
            {params.spread} \
            --set {wildcards.set} \
            --suffix {params.suffix} \
            --settings {params.settings:q} \
            --out {params.out:q} \
            >{log:q} 2>&1
        """


rule gather_metrics:
    """Gather the scores, the training curves and the facts of the run in metrics/."""
    input:
        parts=[path for name in CONFIG.lowfield for path in parts_of(name, PLAN.results(name))],
        participants=rules.list_participants.output.participants,
        models=[model_files(model.method, model.seed) for model in TRAINED],
        histories=[f"{model_folder(model.method, model.seed)}/history.csv" for model in TRAINED],
        lut=LUT,
        code=code("iqt.evaluate.gather", "iqt.provenance.collect"),
    output:
        subjects=f"{R}/metrics/subjects.csv",
        structures=f"{R}/metrics/structures.csv",
        history=f"{R}/metrics/history.csv",
        run=f"{R}/metrics/run.json",
        assessments=assessment_files(),
    log:
        f"{R}/logs/gather_metrics.log",
    benchmark:
        f"{R}/benchmarks/gather_metrics.tsv"
    conda:
        "../../envs/iqt.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(30),
    params:
        results=R,
        out=R / "metrics",
        lut=option("--lut", LUT),
        batches=",".join(map(str, batches("test"))),
        histories=[
            f"--history {model.folder}={model_folder(model.method, model.seed)}/history.csv" for model in TRAINED
        ],
        settings=as_json(PLAN.facts()),
    shell:
        r"""
        iqt stage gather \
            --run {params.results:q} \
            --batches {params.batches} \
            {params.histories} \
            --settings {params.settings:q} \
            {params.lut} \
            --out {params.out:q} \
            >{log:q} 2>&1
        """


rule score_parcellator:
    """Compare the parcellator's reading of the test people's high-quality scans with their own label maps."""
    input:
        participants=rules.list_participants.output.participants,
        parcellation=sidecars("parcellation/hq", "test", ending="dseg.json", name=flat),
        lut=LUT,
        code=code("iqt.evaluate.parcellator_qc"),
    output:
        f"{R}/metrics/parcellator.csv",
    log:
        f"{R}/logs/score_parcellator.log",
    benchmark:
        f"{R}/benchmarks/score_parcellator.tsv"
    conda:
        "../../envs/iqt.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(3000),
        runtime=per_attempt(60),
    params:
        suffix=SUFFIX,
        cohort=R / "cohort",
        parcellation=R / "parcellation" / "hq",
    shell:
        r"""
        iqt stage score-parcellator \
            --participants {input.participants:q} \
            --cohort {params.cohort:q} \
            --parcellation {params.parcellation:q} \
            --lut {input.lut:q} \
            --suffix {params.suffix} \
            --out {output:q} \
            >{log:q} 2>&1
        """


rule extract_panels:
    """Cut the slices that figures show out of a test person's volumes."""
    input:
        cohort=lambda wildcards: anat(R / "cohort", wildcards.scan, f"{SUFFIX}.json"),
        lowfield=lambda wildcards: anat(R / "lowfield" / wildcards.set, wildcards.scan, f"{SUFFIX}.json"),
        enhanced=lambda wildcards: [
            flat(R / "enhanced" / wildcards.set / result.folder, wildcards.scan, f"{SUFFIX}.json")
            for result in first_on(wildcards.set)
        ],
        parcellation=lambda wildcards: [
            flat(R / "parcellation" / folder, wildcards.scan, "dseg.json")
            for folder in (
                ["hq", *(f"{wildcards.set}/{result.folder}" for result in first_on(wildcards.set))]
                if PARCELLATED
                else []
            )
        ],
        code=code("iqt.report.panels"),
    output:
        f"{R}/metrics/panels/{{set}}/{{scan}}.npz",
    log:
        f"{R}/logs/extract_panels/{{set}}/{{scan}}.log",
    benchmark:
        f"{R}/benchmarks/extract_panels/{{set}}/{{scan}}.tsv"
    conda:
        "../../envs/iqt.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(3000),
        runtime=per_attempt(30),
    params:
        suffix=SUFFIX,
        results=R,
        methods=lambda wildcards: ",".join(result.method for result in first_on(wildcards.set)),
        unread="" if PARCELLATED else "--unread",
    shell:
        r"""
        iqt stage panels \
            --scan {wildcards.scan} \
            --results {params.results:q} \
            --set {wildcards.set} \
            --methods {params.methods} \
            {params.unread} \
            --suffix {params.suffix} \
            --out {output:q} \
            >{log:q} 2>&1
        """
