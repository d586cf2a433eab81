"""FastSurfer as the parcellator: find it, plan what it reads, run it, read what it wrote.

in:  cohort/, enhanced/<set>/<method>/
out: fastsurfer/ (its inputs, subjects and exit codes), parcellation/hq/*, parcellation/<set>/<method>/*

It runs in an environment of its own, which needs nothing of iqt's: the standard library's Python calls its script.
"""

FASTSURFER = CONFIG.parcellate.fastsurfer
HOME = f"--home {shlex.quote(FASTSURFER.home)}" if FASTSURFER.home else ""


wildcard_constraints:
    judged=rf"hq|(?:{'|'.join(CONFIG.lowfield)})/(?:{'|'.join(result.folder for result in PLAN.results())})",


rule find_fastsurfer:
    """Find run_fastsurfer.sh where it will run, and record its version and the options that it knows."""
    input:
        code=code("iqt.parcellate.fastsurfer.__main__", without=("iqt.parcellate.fastsurfer.jobs",)),
    output:
        f"{R}/fastsurfer/program.json",
    log:
        f"{R}/logs/find_fastsurfer.log",
    benchmark:
        f"{R}/benchmarks/find_fastsurfer.tsv"
    conda:
        "../../envs/fastsurfer.yaml"
    container:
        FASTSURFER.container
    threads: 1
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(15),
    params:
        package=verbatim(WORKFLOW),
        home=verbatim(HOME),
    shell:
        r"""
        PYTHONPATH={params.package:q} python3 -m iqt.parcellate.fastsurfer find \
            {params.home} \
            --out {output:q} \
            2>&1 | tee {log:q}
        """


for batch in batches("test"):

    rule:
        """Write what FastSurfer shall read of a batch, and its command lines."""
        name:
            f"plan_fastsurfer_{batch}"
        input:
            scans=scan_list("test", batch),
            program=rules.find_fastsurfer.output,
            cohort=sidecars("cohort", "test", batch),
            enhanced=lambda wildcards, batch=batch: read_by_fastsurfer(wildcards, batch),
            code=code("iqt.parcellate.fastsurfer.plan"),
        output:
            f"{R}/fastsurfer/{{judged}}/batch-{batch}_jobs.json",
        log:
            f"{R}/logs/plan_fastsurfer/{{judged}}/batch-{batch}.log",
        benchmark:
            f"{R}/benchmarks/plan_fastsurfer/{{judged}}/batch-{batch}.tsv"
        conda:
            "../../envs/iqt.yaml"
        threads: 1
        resources:
            mem_mb=per_attempt(3000),
            runtime=minutes(1, "test", batch),
        params:
            suffix=SUFFIX,
            cohort=R / "cohort",
            images=lambda wildcards: volumes_of(wildcards)[0],
            layout=lambda wildcards: volumes_of(wildcards)[1],
            work=lambda wildcards, output: Path(output[0]).parent,
            settings=as_json(FASTSURFER.model_dump(mode="json", exclude={"home", "image", "threads"})),
        shell:
            r"""
            iqt stage plan-fastsurfer \
                --list {input.scans:q} \
                --images {params.images:q} \
                --layout {params.layout} \
                --cohort {params.cohort:q} \
                --program {input.program:q} \
                --work {params.work:q} \
                --suffix {params.suffix} \
                --settings {params.settings:q} \
                --out {output:q} \
                >{log:q} 2>&1
            """

    rule:
        """Run FastSurfer on a batch and record its exit codes; a volume that it finished is never run twice."""
        name:
            f"run_fastsurfer_{batch}"
        input:
            jobs=f"{R}/fastsurfer/{{judged}}/batch-{batch}_jobs.json",
            code=code("iqt.parcellate.fastsurfer.__main__"),
        output:
            f"{R}/fastsurfer/{{judged}}/batch-{batch}_runs.json",
        log:
            f"{R}/logs/run_fastsurfer/{{judged}}/batch-{batch}.log",
        benchmark:
            f"{R}/benchmarks/run_fastsurfer/{{judged}}/batch-{batch}.tsv"
        conda:
            "../../envs/fastsurfer.yaml"
        container:
            FASTSURFER.container
        threads: FASTSURFER.threads
        resources:
            mem_mb=per_attempt(8000),
            runtime=minutes(30, "test", batch),
            gpu=int(FASTSURFER.device == "cuda"),
        params:
            package=verbatim(WORKFLOW),
            home=verbatim(HOME),
        shell:
            r"""
            PYTHONPATH={params.package:q} python3 -m iqt.parcellate.fastsurfer run \
                {params.home} \
                --jobs {input.jobs:q} \
                --threads {threads} \
                --out {output:q} \
                2>&1 | tee {log:q}
            """

    rule:
        """Bring a batch's labels by FastSurfer to the grids of the volumes that it read."""
        name:
            f"parcellate_{batch}"
        input:
            scans=scan_list("test", batch),
            cohort=sidecars("cohort", "test", batch),
            enhanced=lambda wildcards, batch=batch: read_by_fastsurfer(wildcards, batch),
            jobs=f"{R}/fastsurfer/{{judged}}/batch-{batch}_jobs.json",
            runs=f"{R}/fastsurfer/{{judged}}/batch-{batch}_runs.json",
            lut=LUT,
            code=code("iqt.parcellate.fastsurfer.read"),
        output:
            sidecars("parcellation/{judged}", "test", batch, "dseg.json", flat),
        log:
            f"{R}/logs/parcellate/{{judged}}/batch-{batch}.log",
        benchmark:
            f"{R}/benchmarks/parcellate/{{judged}}/batch-{batch}.tsv"
        conda:
            "../../envs/iqt.yaml"
        threads: CONFIG.compute.batch_threads
        resources:
            mem_mb=per_attempt(3000),
            runtime=minutes(1, "test", batch),
        params:
            suffix=SUFFIX,
            cohort=R / "cohort",
            images=lambda wildcards: volumes_of(wildcards)[0],
            layout=lambda wildcards: volumes_of(wildcards)[1],
            out=lambda wildcards: R / "parcellation" / wildcards.judged,
        shell:
            r"""
            iqt --threads {threads} stage read-fastsurfer \
                --list {input.scans:q} \
                --images {params.images:q} \
                --layout {params.layout} \
                --cohort {params.cohort:q} \
                --jobs {input.jobs:q} \
                --runs {input.runs:q} \
                --lut {input.lut:q} \
                --suffix {params.suffix} \
                --out {params.out:q} \
                >{log:q} 2>&1
            """
