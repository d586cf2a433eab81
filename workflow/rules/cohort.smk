"""Cohort: high-quality scans with brain mask, tissue posteriors and labels.

in:  the configuration (source `template`: the MNI152 maps that nilearn ships)
out: lists/ of each batch's scans, cohort/sub-X/anat/*, cohort/participants.tsv, cohort/dseg.tsv
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


for batch in batches("all"):

    rule:
        """Make a batch of people from the template."""
        name:
            f"make_template_{batch}"
        input:
            scans=scan_list("all", batch),
            code=code("cohort/template.py", "cohort/build.py"),
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
            mem_mb=lambda wildcards, attempt: 4000 * attempt,
            runtime=lambda wildcards, attempt: 60 * attempt,
        params:
            suffix=SUFFIX,
            seed=SEED,
            out=R / "cohort",
            settings=as_json(CONFIG.cohort.template),
        shell:
            r"""
            iqt --threads {threads} template \
                --list {input.scans:q} \
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
        lut=here(WORKFLOW.parent / "resources" / "template_dseg.tsv"),
        code=code("cohort/build.py"),
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
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        suffix=SUFFIX,
        lists=[f"--list {path}" for path in scan_lists("all")],
        out=R / "cohort",
        source=CONFIG.cohort.source,
    shell:
        r"""
        iqt participants \
            {params.lists} \
            --out {params.out:q} \
            --suffix {params.suffix} \
            --source {params.source} \
            >{log:q} 2>&1
        """
