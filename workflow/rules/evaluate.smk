"""Evaluate: every result against its reference, and what the report needs gathered in one folder.

in:  cohort/, enhanced/, parcellation/ of the test people
out: metrics/subjects.csv, structures.csv, history.csv, run.json, panels/<set>/<scan>.npz, calibration/, reliability/ and
     seams/<set>.csv
"""

for batch in batches("test"):

    rule:
        """Score a batch's results against the high-quality scans."""
        name:
            f"evaluate_{batch}"
        input:
            scans=scan_list("test", batch),
            cohort=sidecars("cohort", "test", batch),
            lut=LUT,
            enhanced=lambda wildcards, batch=batch: enhanced_on(wildcards.set, batch),
            reference=sidecars("parcellation/hq", "test", batch, "dseg.json", flat),
            parcellation=lambda wildcards, batch=batch: parcellated_on(wildcards.set, batch),
            code=code("evaluate/run.py", "evaluate/similarity.py", "evaluate/minmax.py", "evaluate/overlap.py"),
        output:
            subjects=part("{set}", batch, "subjects"),
            structures=part("{set}", batch, "structures"),
        log:
            f"{R}/logs/evaluate/{{set}}/batch-{batch}.log",
        benchmark:
            f"{R}/benchmarks/evaluate/{{set}}/batch-{batch}.tsv"
        conda:
            "../../envs/iqt.yaml"
        threads: CONFIG.compute.batch_threads
        resources:
            mem_mb=growing(6000),
            runtime=minutes(5, "test", batch),
        params:
            suffix=SUFFIX,
            cohort=R / "cohort",
            enhanced=lambda wildcards: R / "enhanced" / wildcards.set,
            parcellation=R / "parcellation",
            results=lambda wildcards: ",".join(result.text for result in CONFIG.results(wildcards.set)),
            settings=as_json(CONFIG.evaluate.model_dump(mode="json", exclude={"bootstrap", "reference"})),
        shell:
            r"""
            iqt --threads {threads} evaluate \
                --list {input.scans:q} \
                --cohort {params.cohort:q} \
                --enhanced {params.enhanced:q} \
                --parcellation {params.parcellation:q} \
                --results {params.results} \
                --lut {input.lut:q} \
                --set {wildcards.set} \
                --suffix {params.suffix} \
                --settings {params.settings:q} \
                --subjects {output.subjects:q} \
                --structures {output.structures:q} \
                >{log:q} 2>&1
            """


rule gather_metrics:
    """Gather the scores, the training curves and the facts of the run in metrics/."""
    input:
        subjects=parts("subjects"),
        structures=parts("structures"),
        participants=rules.list_participants.output.participants,
        models=[model_files(model.method, model.seed) for model in TRAINED],
        histories=[f"{model_folder(model.method, model.seed)}/history.csv" for model in TRAINED],
        lut=LUT,
        code=code("evaluate/gather.py", "provenance/collect.py"),
    output:
        subjects=f"{R}/metrics/subjects.csv",
        structures=f"{R}/metrics/structures.csv",
        history=f"{R}/metrics/history.csv",
        run=f"{R}/metrics/run.json",
    log:
        f"{R}/logs/gather_metrics.log",
    benchmark:
        f"{R}/benchmarks/gather_metrics.tsv"
    conda:
        "../../envs/iqt.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        results=R,
        out=R / "metrics",
        parts=[f"--subjects {path}" for path in parts("subjects")]
        + [f"--structures {path}" for path in parts("structures")],
        histories=[
            f"--history {model.folder}={model_folder(model.method, model.seed)}/history.csv" for model in TRAINED
        ],
        settings=as_json(RunFacts.of(CONFIG)),
    shell:
        r"""
        iqt gather \
            --results {params.results:q} \
            {params.parts} \
            {params.histories} \
            --settings {params.settings:q} \
            --lut {input.lut:q} \
            --out {params.out:q} \
            >{log:q} 2>&1
        """


rule score_parcellator:
    """Compare the parcellator's reading of the test people's high-quality scans with their own label maps."""
    input:
        participants=rules.list_participants.output.participants,
        parcellation=sidecars("parcellation/hq", "test", ending="dseg.json", name=flat),
        lut=LUT,
        code=code("labels.py", "evaluate/judge.py", "evaluate/overlap.py", "evaluate/run.py"),
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
        mem_mb=growing(3000),
        runtime=growing(60),
    params:
        suffix=SUFFIX,
        cohort=R / "cohort",
        parcellation=R / "parcellation" / "hq",
    shell:
        r"""
        iqt score-parcellator \
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
        reference=f"{R}/parcellation/hq/{{scan}}_dseg.json",
        parcellation=lambda wildcards: [
            flat(R / "parcellation" / wildcards.set / result.folder, wildcards.scan, "dseg.json")
            for result in first_on(wildcards.set)
        ],
        code=code("report/panels.py"),
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
        mem_mb=growing(3000),
        runtime=growing(30),
    params:
        suffix=SUFFIX,
        results=R,
        methods=lambda wildcards: ",".join(result.method for result in first_on(wildcards.set)),
    shell:
        r"""
        iqt panels \
            --scan {wildcards.scan} \
            --results {params.results:q} \
            --set {wildcards.set} \
            --methods {params.methods} \
            --suffix {params.suffix} \
            --out {output:q} \
            >{log:q} 2>&1
        """


rule assess_results:
    """Measure a set's calibration, sd against true error, and the seams of its results."""
    input:
        scans=scan_lists("test"),
        cohort=sidecars("cohort", "test"),
        enhanced=lambda wildcards: enhanced_on(wildcards.set),
        code=code("evaluate/assess.py", "evaluate/run.py", "evaluate/calibration.py", "evaluate/seams.py"),
    output:
        calibration=f"{R}/metrics/calibration/{{set}}.csv",
        reliability=f"{R}/metrics/reliability/{{set}}.csv",
        seams=f"{R}/metrics/seams/{{set}}.csv",
    log:
        f"{R}/logs/assess_results/{{set}}.log",
    benchmark:
        f"{R}/benchmarks/assess_results/{{set}}.tsv"
    conda:
        "../../envs/iqt.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        suffix=SUFFIX,
        cohort=R / "cohort",
        enhanced=lambda wildcards: R / "enhanced" / wildcards.set,
        results=lambda wildcards: ",".join(result.text for result in CONFIG.results(wildcards.set)),
        lists=[f"--list {path}" for path in scan_lists("test")],
    shell:
        r"""
        iqt assess \
            {params.lists} \
            --cohort {params.cohort:q} \
            --enhanced {params.enhanced:q} \
            --results {params.results} \
            --set {wildcards.set} \
            --suffix {params.suffix} \
            --calibration {output.calibration:q} \
            --reliability {output.reliability:q} \
            --seams {output.seams:q} \
            >{log:q} 2>&1
        """
