"""Guard: what a run checks before its first job and says when one has failed. It has no rules."""

import re

from snakemake_interface_executor_plugins.settings import DeploymentMethod

from iqt.compute import gpus
from iqt.planning import preflight
from iqt.io.files import write_json

RUN = preflight.Run(Path(".snakemake"))
DRY_RUN = any(re.match(r"--dry|-[A-Za-z]*n[A-Za-z]*$", word) for word in sys.argv[1:])
GPU_JOBS = workflow.global_resources.get("gpu").value

# Before Snakemake looks for locks, and so before it says whether this is a dry run.
# A workflow that imports this one as a module has a folder, locks and handlers of its own.
if workflow.is_main_process and workflow.modifier.is_main_snakefile():
    if not DRY_RUN and RUN.drop_stale_locks(R):
        print(
            "An earlier run here was killed; its locks are dropped, and this one goes on where it was.", file=sys.stderr
        )
    RUN.claim()


def check_source():
    """Ask the source for every file before the first job reads one: no job of its own, since Snakemake would then not look
    at what is to be read anew for other reasons."""
    try:
        from iqt.cohort.fetch import check_source as check

        facts = check([scan for scan, _ in members("all")], SUFFIX, CONFIG.cohort, INDEX)
    except ImportError as error:
        print(f"Note: the source is not asked beforehand, since {error.name} is not installed here", file=sys.stderr)
        return
    write_json(R / "source" / "checked.json", facts)
    print(
        f"Note: the source has {facts['scans'] - len(facts['missing'])} of {facts['scans']} scans; "
        f"{facts['bytes_to_download'] / 1e9:.1f} GB are to be downloaded",
        file=sys.stderr,
    )


onstart:
    if workflow.is_main_process:
        RUN.start(workflow.local_exec)
        wanted = {job.rule.name.rpartition("_")[0] for job in workflow.dag.needrun_jobs()}
        try:
            preflight.check_folder(R)
            if not workflow.touch:
                preflight.check_name(R, CONFIG.cohort.source)
                preflight.check_clock(R)
            if DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method:
                preflight.check_image(IMAGE)
                preflight.check_engines(ENGINE, INGEST_ENVIRONMENT)
            if "fetch" in wanted and not workflow.touch:
                check_source()
        except UserError as error:
            raise WorkflowError(str(error)) from None
        if workflow.local_exec:
            os.environ[gpus.JOBS] = str(GPU_JOBS or 1)
            print(f"Note: {preflight.gpu_note()}", file=sys.stderr)


onsuccess:
    if workflow.is_main_process:
        RUN.end()


onerror:
    if workflow.is_main_process:
        RUN.end()
        if hint := preflight.failure_hint(R):
            print(f"Hint: {hint}", file=sys.stderr)
