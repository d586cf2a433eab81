"""Guard: what a run checks before its first job and says when one has failed. It has no rules."""

from snakemake_interface_executor_plugins.settings import DeploymentMethod

from iqt import gpus, guard

RUN = guard.Run(Path(".snakemake"))
GPU_JOBS = workflow.global_resources.get("gpu").value

if GPU_JOBS:
    os.environ.update({gpus.JOBS: str(GPU_JOBS)})

if workflow.is_main_process and RUN.drop_stale_locks(R):
    print("An earlier run here was killed; its locks are dropped, and this one goes on where it was.", file=sys.stderr)


onstart:
    if workflow.is_main_process:
        RUN.start(workflow.local_exec)
        try:
            guard.check_folder(R)
            if not workflow.touch:
                guard.check_clock(R)
            if DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method:
                guard.check_image(IMAGE)
        except UserError as error:
            raise WorkflowError(str(error)) from None
        if workflow.local_exec:
            print(f"Note: {guard.gpu_note()}", file=sys.stderr)


onerror:
    if workflow.is_main_process and (hint := guard.failure_hint(R)):
        print(f"Hint: {hint}", file=sys.stderr)
