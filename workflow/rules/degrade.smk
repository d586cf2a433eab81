"""Degrade: low-field scans for each set: simulated (with tissue posteriors where the cohort brings none), or real ones.

in:  cohort/sub-X/anat/* with tissue posteriors, or with labels, or with a brain mask alone; for real low-field scans the
     files that the cohort's sidecars name
out: fast/*, tissues/sub-X/anat/* (as `tissues.engine` asks), lowfield/<set>/sub-X/anat/*; sets that are trained on are of
     everybody, the others of the test people
"""

ENGINE = CONFIG.tissues.engine
POSTERIORS = R / ("cohort" if ENGINE == "cohort" else "tissues")


def posteriors(group, batch):
    """The sidecars that say whether there are posteriors; nothing more where the cohort brings them."""
    return [] if ENGINE == "cohort" else sidecars("tissues", group, batch, "probseg.json")


for batch in batches("all") if ENGINE == "fast" else []:

    rule:
        """Segment a batch by FSL FAST and record its exit status."""
        name:
            f"run_fast_{batch}"
        input:
            scans=scan_list("all", batch),
            cohort=sidecars("cohort", "all", batch),
            code=code("iqt.degrade.fast"),
        output:
            sidecars("fast", "all", batch, "fast.json", flat),
        log:
            f"{R}/logs/run_fast/batch-{batch}.log",
        benchmark:
            f"{R}/benchmarks/run_fast/batch-{batch}.tsv"
        conda:
            "../../envs/fsl.yaml"
        threads: 1
        resources:
            mem_mb=per_attempt(4000),
            runtime=minutes(20, "all", batch),
        params:
            suffix=SUFFIX,
            cohort=R / "cohort",
            out=R / "fast",
            settings=as_json(CONFIG.tissues.fast),
        shell:
            r"""
            iqt --threads {threads} stage run-fast \
                --list {input.scans:q} \
                --cohort {params.cohort:q} \
                --out {params.out:q} \
                --suffix {params.suffix} \
                --settings {params.settings:q} \
                >{log:q} 2>&1
            """


for batch in batches("all") if ENGINE != "cohort" else []:

    rule:
        """Make a batch's tissue posteriors by the engine of the configuration."""
        name:
            f"make_tissues_{batch}"
        input:
            scans=scan_list("all", batch),
            cohort=sidecars("cohort", "all", batch),
            fast=sidecars("fast", "all", batch, "fast.json", flat) if ENGINE == "fast" else [],
            code=code("iqt.degrade.tissues"),
        output:
            sidecars("tissues", "all", batch, "probseg.json"),
        log:
            f"{R}/logs/make_tissues/batch-{batch}.log",
        benchmark:
            f"{R}/benchmarks/make_tissues/batch-{batch}.tsv"
        conda:
            "../../envs/iqt.yaml"
        threads: CONFIG.compute.batch_threads
        resources:
            mem_mb=per_attempt(8000),
            runtime=minutes(5, "all", batch),
        params:
            suffix=SUFFIX,
            cohort=R / "cohort",
            out=POSTERIORS,
            fast=f"--fast {R / 'fast'}" if ENGINE == "fast" else "",
            settings=as_json(CONFIG.tissues.model_dump(mode="json", include={"engine", ENGINE})),
        shell:
            r"""
            iqt --threads {threads} stage tissues \
                --list {input.scans:q} \
                --cohort {params.cohort:q} \
                --out {params.out:q} \
                {params.fast} \
                --suffix {params.suffix} \
                --settings {params.settings:q} \
                >{log:q} 2>&1
            """


# A set's name is no wildcard: Snakemake compares every file with each output that begins with the same words as far as
# its first wildcard, which for tens of thousands of people takes an hour.
for set_name, entry in CONFIG.lowfield.items():
    group = "all" if set_name in CONFIG.training_sets else "test"
    suffix_of_set = suffix_of(set_name)
    for batch in batches(group) if not entry.registration else []:

        rule:
            """Simulate a batch's low-field scans."""
            name:
                f"degrade{suffix_of_set}_{batch}"
            input:
                scans=scan_list(group, batch),
                cohort=sidecars("cohort", group, batch),
                posteriors=posteriors(group, batch),
                code=code("iqt.degrade.run"),
            output:
                sidecars(f"lowfield/{set_name}", group, batch),
            log:
                f"{R}/logs/degrade/{set_name}/batch-{batch}.log",
            benchmark:
                f"{R}/benchmarks/degrade/{set_name}/batch-{batch}.tsv"
            priority: SOON
            conda:
                "../../envs/iqt.yaml"
            threads: CONFIG.compute.batch_threads
            resources:
                mem_mb=per_attempt(4000),
                runtime=minutes(2 * entry.draws, group, batch),
            params:
                suffix=SUFFIX,
                seed=SEED,
                set=set_name,
                cohort=R / "cohort",
                posteriors="" if ENGINE == "cohort" else f"--posteriors {POSTERIORS}",
                out=R / "lowfield" / set_name,
                settings=as_json(entry),
            shell:
                r"""
                iqt --threads {threads} stage degrade \
                    --list {input.scans:q} \
                    --cohort {params.cohort:q} \
                    {params.posteriors} \
                    --out {params.out:q} \
                    --suffix {params.suffix} \
                    --set {params.set} \
                    --seed {params.seed} \
                    --settings {params.settings:q} \
                    >{log:q} 2>&1
                """

    for batch in batches(group) if entry.registration else []:

        rule:
            """Register a batch's real low-field scans to the high-quality ones."""
            name:
                f"register{suffix_of_set}_{batch}"
            input:
                scans=scan_list(group, batch),
                cohort=sidecars("cohort", group, batch),
                code=code("iqt.degrade.register"),
            output:
                sidecars(f"lowfield/{set_name}", group, batch),
            log:
                f"{R}/logs/register/{set_name}/batch-{batch}.log",
            benchmark:
                f"{R}/benchmarks/register/{set_name}/batch-{batch}.tsv"
            conda:
                "../../envs/iqt.yaml"
            threads: CONFIG.compute.batch_threads
            resources:
                mem_mb=per_attempt(4000),
                runtime=minutes(10, group, batch),
            params:
                suffix=SUFFIX,
                set=set_name,
                cohort=R / "cohort",
                out=R / "lowfield" / set_name,
                settings=as_json(entry),
            shell:
                r"""
                iqt --threads {threads} stage register \
                    --list {input.scans:q} \
                    --cohort {params.cohort:q} \
                    --out {params.out:q} \
                    --suffix {params.suffix} \
                    --set {params.set} \
                    --settings {params.settings:q} \
                    >{log:q} 2>&1
                """
