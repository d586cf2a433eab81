"""Commands that measure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iqt.cli.options import BENCHMARK, PrecisionOption, app
from iqt.errors import UserError

bench = typer.Typer(help="Measure how fast something is on this machine.", no_args_is_help=True)
app.add_typer(bench, name="bench", rich_help_panel=BENCHMARK)


@bench.command("data")
def bench_data(
    out: Annotated[Path, typer.Argument(help="Markdown file to write.")],
    seconds: Annotated[float, typer.Option(min=0, help="Seconds that each way of reading is measured for.")] = 20,
) -> None:
    """Regions a second from the patch store against gzipped NIfTI; makes its volumes in a temporary folder."""
    import tempfile

    from iqt.bench.data import bench_data

    with tempfile.TemporaryDirectory() as folder:
        bench_data(Path(folder), out, seconds)
    print(out.read_text(encoding="utf-8"), end="")


@bench.command("speed")
def bench_speed(
    out: Annotated[Path, typer.Argument(help="Markdown file to write.")],
    config: Annotated[Path, typer.Option(help="Configuration of the full-size network.")] = Path("config/hcp.yaml"),
    method: Annotated[str, typer.Option(help="Its method of kind diffusion_iqt.")] = "diffusion_iqt",
    trained: Annotated[Path, typer.Option(help="Configuration that was run, for quality.")] = Path(
        "config/demo-full.yaml"
    ),
    trained_method: Annotated[str, typer.Option(help="Its method of kind diffusion_iqt.")] = "diffusion_alone",
    precision: PrecisionOption = "auto",
) -> None:
    """What one volume costs and what comes of it: the authors' protocol, MONAI's model, and ours."""
    from iqt.bench.cost import measure_costs, measure_layouts, monai_network, template_mask
    from iqt.bench.page import write_speed
    from iqt.bench.quality import measure_quality
    from iqt.config import read_config
    from iqt.methods.diffusion_iqt import DiffusionIQTMethod
    from iqt.networks.size import count_parameters, network_size
    from iqt.planning.plan import Plan

    found = {path: read_config(path) for path in (config, trained)}
    for path, option, name in ((config, "--method", method), (trained, "--trained-method", trained_method)):
        entry = found[path].methods.get(name)
        if not isinstance(entry, DiffusionIQTMethod):
            raise UserError(f"{option} {name}: {path} has no such method of kind diffusion_iqt")
        if entry.starts_from:
            raise UserError(
                f"{path}: {name} starts from a regression, but the authors' protocol has none; name another by {option}"
            )
        if not entry.network.cross_batch.padding:
            raise UserError(
                f"{path}: network.cross_batch.padding of {name} is off, but the authors' protocol pads patches with "
                f"their neighbours; name another by {option}"
            )
    full, small = found[config].methods[method], found[trained]
    ran = small.methods[trained_method]
    recommended = ran.sampling
    run = Path(small.results) / small.name
    model = run / "models" / Plan(small).model_of(trained_method) / f"seed-{small.training_seeds[0]}"
    # Quality first: it fails at once where the run is not there.
    quality = measure_quality(run, model, recommended, small.suffix, precision)
    costs = measure_costs(full, template_mask(), recommended.steps * recommended.samples, precision)
    layouts = {
        "full": measure_layouts(full, precision),
        "trained": measure_layouts(ran, precision),
    }
    ours = network_size(full)
    sizes = {"ours": ours, "monai": count_parameters(monai_network(ours, len(full.network.multipliers)))}
    write_speed(out, costs, layouts, sizes, quality, f"The network of `{trained_method}` in `{trained}` after its run")
    print(out.read_text(encoding="utf-8"), end="")


FullConfig = Annotated[Path, typer.Option("--config", help="Configuration of the full-size networks.")]
FULL = Path("config/openneuro-full.yaml")


TrainedRun = Annotated[Path | None, typer.Option("--run", help="Folder of a run, whose scans are trained on.")]


@bench.command("gpu")
def bench_gpu(
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("results/gpu"),
    minutes: Annotated[float, typer.Option(min=1, max=120, help="How long it may take in all.")] = 8,
    check: Annotated[bool, typer.Option("--check", help="At toy size, even without a GPU: does all run?")] = False,
    config: FullConfig = FULL,
    run: TrainedRun = None,
    packed: Annotated[Path | None, typer.Option(help="A bundle's scans, instead of a run.", hidden=True)] = None,
    volume: Annotated[Path | None, typer.Option(help="A bundle's volume.", hidden=True)] = None,
) -> None:
    """All that a first session on a GPU should tell: agreement with the CPU, speed, memory, a short training."""
    from iqt.bench.gpu.session import PAGE, problems, require_gpu, run_session

    for path in (config, packed, volume):
        if path is not None and not path.exists():
            raise UserError(f"{path}: no such file")
    if not check:
        require_gpu()
    results = run_session(out, config, minutes, check, volume, run, packed)
    print((out / PAGE).read_text(encoding="utf-8"), end="")
    found = problems(results)
    if found:
        raise UserError("; ".join(found))


@bench.command("gpu-bundle")
def bench_gpu_bundle(
    out: Annotated[Path, typer.Argument(help="Folder to write.")], config: FullConfig = FULL, run: TrainedRun = None
) -> None:
    """Pack a session for a machine that has torch, lightning and little else, and no network: there, `sh start.sh`."""
    from iqt.bench.gpu.bundle import make_bundle

    size, counts = make_bundle(out, config, run)
    scans = ", ".join(f"{count} {split}" for split, count in counts.items()) or "none: copies of the template"
    print(f"{out}: {size / 1e6:.0f} MB; scans: {scans}; on the machine with the GPU: sh {out.name}/start.sh")
