"""Commands that measure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iqt.cli.options import app

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
