"""Commands that measure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iqt.cli.options import PrecisionOption, app
from iqt.errors import UserError

bench = typer.Typer(help="Measure how fast something is on this machine.", no_args_is_help=True)
app.add_typer(bench, name="bench")


@bench.command("data")
def bench_data(
    out: Annotated[Path, typer.Argument(help="Markdown file to write.")],
    seconds: Annotated[float, typer.Option(min=0, help="Seconds that each way of reading is measured for.")] = 20,
) -> None:
    """Regions a second from the patch store against gzipped NIfTI; makes its volumes in a temporary folder."""
    import tempfile

    from iqt.training.bench import bench_data

    with tempfile.TemporaryDirectory() as folder:
        bench_data(Path(folder), out, seconds)
    print(out.read_text(encoding="utf-8"), end="")


@bench.command("speed")
def bench_speed(
    out: Annotated[Path, typer.Argument(help="Markdown file to write.")],
    config: Annotated[Path, typer.Option(help="Configuration that holds the network.")] = Path("config/hcp.yaml"),
    method: Annotated[str, typer.Option(help="One of its methods, of kind diffusion_iqt.")] = "diffusion_iqt",
    calls: Annotated[int, typer.Option(min=1, help="Network calls of our recommended setting.")] = 2,
    precision: PrecisionOption = "auto",
) -> None:
    """What one volume costs: the authors' protocol, and ours."""
    from iqt.config import DiffusionIQTMethod, read_config
    from iqt.enhance.bench import bench_speed

    found = read_config(config).methods.get(method)
    if not isinstance(found, DiffusionIQTMethod):
        raise UserError(f"--method {method}: {config} has no such method of kind diffusion_iqt")
    bench_speed(found, calls, out, precision)
    print(out.read_text(encoding="utf-8"), end="")
