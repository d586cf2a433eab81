"""Cohort: high-quality scans with brain mask, and tissue posteriors and labels where the source has them.

in:  the configuration (source `template`: the MNI152 maps that nilearn ships; else an archive or a folder)
out: source/*_files.json (where each file came from), lists/ of each batch's scans, cohort/sub-X/anat/*, cohort/participants.tsv, cohort/dseg.tsv
"""


rule list_scans:
    """Write the list of a batch's scans."""
    output:
        f"{R}/lists/{{group}}_batch-{{batch}}.tsv",
    log:
        f"{R}/logs/list_scans/{{group}}_batch-{{batch}}.log",
    benchmark:
        f"{R}/benchmarks/list_scans/{{group}}_batch-{{batch}}.tsv"
    localrule: True
    conda:
        "../../envs/iqt.yaml"
    threads: 1
    resources:
        mem_mb=100,
        runtime=5,
    params:
        rows=lambda wildcards: [f"{scan}\t{split}" for scan, split in members(wildcards.group, wildcards.batch)],
    shell:
        r"""
        printf '%s\n' $'scan\tsplit' {params.rows:q} >{output:q} 2>{log:q}
        """


for batch in batches("all") if CONFIG.cohort.source == "template" else []:

    rule:
        """Make a batch of people from the template."""
        name:
            f"make_template_{batch}"
        input:
            scans=scan_list("all", batch),
            code=code("iqt.cohort.build"),
        output:
            sidecars("cohort", "all", batch),
        log:
            f"{R}/logs/make_template/batch-{batch}.log",
        benchmark:
            f"{R}/benchmarks/make_template/batch-{batch}.tsv"
        conda:
            "../../envs/iqt.yaml"
        threads: CONFIG.compute.batch_threads
        resources:
            mem_mb=per_attempt(4000),
            runtime=minutes(1, "all", batch),
        params:
            suffix=SUFFIX,
            seed=SEED,
            out=R / "cohort",
            settings=as_json(CONFIG.cohort.template),
        shell:
            r"""
            iqt --threads {threads} stage template \
                --list {input.scans:q} \
                --out {params.out:q} \
                --suffix {params.suffix} \
                --seed {params.seed} \
                --settings {params.settings:q} \
                >{log:q} 2>&1
            """


for batch in batches("all") if CONFIG.cohort.source != "template" else []:

    rule:
        """Have the source's files of a batch of scans at hand; an edit of the package never repeats a download."""
        name:
            f"fetch_{batch}"
        input:
            scans=scan_list("all", batch),
            code=ancient(code("iqt.cohort.fetch")),
        output:
            sidecars("source", "all", batch, "files.json", flat),
        log:
            f"{R}/logs/fetch/batch-{batch}.log",
        benchmark:
            f"{R}/benchmarks/fetch/batch-{batch}.tsv"
        conda:
            "../../envs/iqt.yaml"
        threads: 1
        resources:
            mem_mb=per_attempt(1000),
            runtime=minutes(10, "all", batch),
            # Not among the params: how files are found and brought changes none of them.
            index=str(INDEX),
            transport=json.dumps(transport_of(CONFIG.cohort)),
        params:
            suffix=SUFFIX,
            out=R / "source",
            places=places(batch),
            settings=as_json(source_settings()),
        shell:
            r"""
            iqt stage fetch \
                --list {input.scans:q} \
                --out {params.out:q} \
                --index {resources.index:q} \
                --suffix {params.suffix} \
                --settings {params.settings:q} \
                --transport {resources.transport:q} \
                2>&1 | tee {log:q}
            """

    rule:
        """Check a batch's scans, extract the brain and write them on the wanted grid."""
        name:
            f"ingest_{batch}"
        input:
            scans=scan_list("all", batch),
            files=sidecars("source", "all", batch, "files.json", flat),
            code=code("iqt.cohort.ingest", without=() if SYNTHESISED else ("iqt.cohort.synthesize",)),
            lut=source_lut(),
        output:
            sidecars("cohort", "all", batch),
        log:
            f"{R}/logs/ingest/batch-{batch}.log",
        benchmark:
            f"{R}/benchmarks/ingest/batch-{batch}.tsv"
        conda:
            f"../../envs/{INGEST_ENVIRONMENT}.yaml"
        threads: CONFIG.compute.batch_threads
        resources:
            mem_mb=per_attempt(4000),
            runtime=minutes(5, "all", batch),
        params:
            suffix=SUFFIX,
            seed=SEED if SYNTHESISED else 0,
            files=R / "source",
            out=R / "cohort",
            settings=as_json(ingest_settings()),
        shell:
            r"""
            iqt --threads {threads} stage ingest \
                --list {input.scans:q} \
                --files {params.files:q} \
                --out {params.out:q} \
                --suffix {params.suffix} \
                --seed {params.seed} \
                --settings {params.settings:q} \
                >{log:q} 2>&1
            """


rule list_participants:
    """Collect the cohort's statuses into participants.tsv, with the split and the look-up table of the labels."""
    input:
        lists=scan_lists("all"),
        sidecars=sidecars("cohort", "all"),
        lut=source_lut(),
        code=code("iqt.cohort.participants"),
    output:
        participants=f"{R}/cohort/participants.tsv",
        description=f"{R}/cohort/dataset_description.json",
        lut=f"{R}/cohort/dseg.tsv",
    log:
        f"{R}/logs/list_participants.log",
    benchmark:
        f"{R}/benchmarks/list_participants.tsv"
    conda:
        "../../envs/iqt.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(1000),
        runtime=per_attempt(10),
    params:
        suffix=SUFFIX,
        lists=[f"--list {path}" for path in scan_lists("all")],
        out=R / "cohort",
        source=CONFIG.cohort.source,
        max_missing=CONFIG.cohort.max_missing,
    shell:
        r"""
        iqt stage participants \
            {params.lists} \
            --out {params.out:q} \
            --suffix {params.suffix} \
            --source {params.source} \
            --max-missing {params.max_missing} \
            >{log:q} 2>&1
        """
