"""Degrade: low-field scans for each set: simulated (with tissue posteriors where the cohort brings none), or real ones.

in:  cohort/sub-X/anat/* with tissue posteriors, or with labels, or with a brain mask alone
    with `registration`, the low-field scans that the cohort's records name
out: fast/*, tissues/sub-X/anat/* (as `tissues.engine` asks), lowfield/<set>/sub-X/anat/*; `main` is of everybody, the
     other sets are of the test people
"""

ENGINE = CONFIG.tissues.engine
POSTERIORS = R / ("cohort" if ENGINE == "cohort" else "tissues")
REAL = [name for name, entry in CONFIG.lowfield.items() if entry.registration]
"""The sets of real scans."""


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
            code=code("degrade/fast.py"),
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
            mem_mb=growing(4000),
            runtime=growing(600),
        params:
            suffix=SUFFIX,
            cohort=R / "cohort",
            out=R / "fast",
            settings=as_json(CONFIG.tissues.fast),
        shell:
            r"""
            iqt --threads {threads} run-fast \
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
            code=code("degrade/tissues.py", "degrade/labels.py", "degrade/classify.py", "degrade/fast.py"),
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
            mem_mb=growing(8000),
            runtime=growing(600),
        params:
            suffix=SUFFIX,
            cohort=R / "cohort",
            out=POSTERIORS,
            fast=f"--fast {R / 'fast'}" if ENGINE == "fast" else "",
            settings=as_json(CONFIG.tissues.model_dump(mode="json", include={"engine", ENGINE})),
        shell:
            r"""
            iqt --threads {threads} tissues \
                --list {input.scans:q} \
                --cohort {params.cohort:q} \
                --out {params.out:q} \
                {params.fast} \
                --suffix {params.suffix} \
                --settings {params.settings:q} \
                >{log:q} 2>&1
            """


def sets_of(group, real):
    """The sets that a group has scans in, simulated or real: everybody is in `main`, the test people in every set."""
    return [name for name in CONFIG.lowfield if (name == "main") == (group == "all") and (name in REAL) == real]


for group in ("all", "test"):
    for batch in batches(group) if sets_of(group, real=False) else []:

        rule:
            """Simulate a batch's low-field scans."""
            name:
                f"degrade_{batch}" if group == "all" else f"degrade_shifted_{batch}"
            input:
                scans=scan_list(group, batch),
                cohort=sidecars("cohort", group, batch),
                posteriors=posteriors(group, batch),
                code=code("degrade"),
            output:
                sidecars("lowfield/{set}", group, batch),
            log:
                f"{R}/logs/degrade/{{set}}/batch-{batch}.log",
            benchmark:
                f"{R}/benchmarks/degrade/{{set}}/batch-{batch}.tsv"
            wildcard_constraints:
                set="|".join(sets_of(group, real=False)),
            conda:
                "../../envs/iqt.yaml"
            threads: CONFIG.compute.batch_threads
            resources:
                mem_mb=growing(4000),
                runtime=growing(60),
            params:
                suffix=SUFFIX,
                seed=SEED,
                cohort=R / "cohort",
                posteriors="" if ENGINE == "cohort" else f"--posteriors {POSTERIORS}",
                out=lambda wildcards: R / "lowfield" / wildcards.set,
                settings=lambda wildcards: as_json(CONFIG.lowfield[wildcards.set]),
            shell:
                r"""
                iqt --threads {threads} degrade \
                    --list {input.scans:q} \
                    --cohort {params.cohort:q} \
                    {params.posteriors} \
                    --out {params.out:q} \
                    --suffix {params.suffix} \
                    --set {wildcards.set} \
                    --seed {params.seed} \
                    --settings {params.settings:q} \
                    >{log:q} 2>&1
                """

    for batch in batches(group) if sets_of(group, real=True) else []:

        rule:
            """Register a batch's real low-field scans to the high-quality ones."""
            name:
                f"register_{batch}" if group == "all" else f"register_test_{batch}"
            input:
                scans=scan_list(group, batch),
                cohort=sidecars("cohort", group, batch),
                code=code("degrade/register.py"),
            output:
                sidecars("lowfield/{set}", group, batch),
            log:
                f"{R}/logs/register/{{set}}/batch-{batch}.log",
            benchmark:
                f"{R}/benchmarks/register/{{set}}/batch-{batch}.tsv"
            wildcard_constraints:
                set="|".join(sets_of(group, real=True)),
            conda:
                "../../envs/iqt.yaml"
            threads: CONFIG.compute.batch_threads
            resources:
                mem_mb=growing(4000),
                runtime=growing(240),
            params:
                suffix=SUFFIX,
                cohort=R / "cohort",
                out=lambda wildcards: R / "lowfield" / wildcards.set,
                settings=lambda wildcards: as_json(CONFIG.lowfield[wildcards.set]),
            shell:
                r"""
                iqt --threads {threads} register \
                    --list {input.scans:q} \
                    --cohort {params.cohort:q} \
                    --out {params.out:q} \
                    --suffix {params.suffix} \
                    --set {wildcards.set} \
                    --settings {params.settings:q} \
                    >{log:q} 2>&1
                """
