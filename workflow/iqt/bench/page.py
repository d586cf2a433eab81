"""The page that `make bench-speed` writes."""

from __future__ import annotations

import datetime
import statistics
from pathlib import Path

from iqt.bench.cost import EDGE, MONAI_OVERLAP, Cost
from iqt.bench.quality import Quality
from iqt.compute.devices import machine
from iqt.io.files import write_text


def write_speed(
    out: Path,
    costs: list[Cost],
    layouts: dict[str, dict[str, float]],
    sizes: dict[str, int],
    quality: list[Quality],
    trained: str,
) -> None:
    """Write what was measured as Markdown.

    Args:
        layouts: seconds of a call with channels `first` and `last`, of the `full` and the `trained` network.
        sizes: parameters of our network and of MONAI's.
        trained: what the network of the second table is, in words.
    """
    write_text(out, "\n".join([*_head(), "", *_costs(costs, layouts, sizes), "", *_quality(quality, trained), ""]))


def _head() -> list[str]:
    where = machine()
    return [
        "# What enhancing a volume costs and gives, measured",
        "",
        f"`make bench-speed`, {datetime.date.today()}: {where['threads']} threads of {where['cpu']}, GPU: "
        f"{where['gpu'] or 'none'}, torch {where['torch']}. One run, one machine.",
        "",
        "- Authors' protocol, re-enacted: tiles of one region at a stride of a third of it, those of under 5 % brain",
        "  skipped; 20 ancestral steps and noise of its own for each tile, whose inner part overwrites what lay there;",
        "  patches padded with their neighbours one by one; float32.",
        f"- MONAI: its DiffusionModelUNet, SlidingWindowInferer (overlap {MONAI_OVERLAP}, its default) on the whole",
        "  grid, DDIM with 20 steps, the precision that `auto` chooses. Nobody trained it, so it has a cost alone.",
        "- Ours: the brain's box in tiles as large as half of the free memory allows, merged patches, the precision",
        "  that `auto` chooses. Equal steps: the same 20 ancestral steps.",
    ]


def _costs(costs: list[Cost], layouts: dict[str, dict[str, float]], sizes: dict[str, int]) -> list[str]:
    first = costs[0]

    def layout(which: str, digits: int) -> str:
        return ", ".join(f"{layouts[which][place]:.{digits}f} {place}" for place in ("first", "last"))

    rows = [
        f"| {cost.name} | {cost.tiles} of {' x '.join(map(str, cost.edges))} | {cost.calls} | {cost.total_macs:.3g} | "
        f"{first.total_macs / cost.total_macs:.1f} | {cost.seconds:.2f} ({cost.runs}) | {cost.total_seconds:,.0f} | "
        f"{first.total_seconds / cost.total_seconds:.1f} | {cost.peak / 2**30:.2f} |"
        for cost in costs
    ]
    return [
        "## Cost of the full-size network",
        "",
        f"The template brain at 1 mm on a grid of {EDGE}^3; networks with random weights, of {sizes['ours']:,}",
        f"parameters (ours) and {sizes['monai']:,} (MONAI's). MACs are counted. One call on one tile is timed, after",
        "one that warms up: the median of the runs in brackets. A volume's seconds are that times tiles and calls, so",
        "extrapolated. Peak memory is the growth of the process in the first call, on a GPU what its allocator counts.",
        "",
        "| way | tiles | calls | MACs | fewer | s a call | s a volume | faster | peak GiB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        *rows,
        "",
        "Seconds of a call on one region in our precision, by where the channels lie in memory: full-size network "
        f"{layout('full', 2)}; trained network {layout('trained', 3)}.",
    ]


def _quality(quality: list[Quality], trained: str) -> list[str]:
    names = list(dict.fromkeys(each.name for each in quality))
    by_name = {name: [each for each in quality if each.name == name] for name in names}
    theirs = by_name[names[0]]
    rows = []
    for name, found in by_name.items():
        gains = [mine.psnr - other.psnr for mine, other in zip(found, theirs, strict=True)]
        seconds = statistics.mean(each.seconds for each in found)
        rows.append(
            f"| {name} | {found[0].calls} | {statistics.mean(each.psnr for each in found):.2f} | "
            f"{statistics.mean(gains):+.2f} ({min(gains):+.2f} to {max(gains):+.2f}) | {seconds:.1f} | "
            f"{statistics.mean(each.seconds for each in theirs) / seconds:.1f} |"
        )
    return [
        "## Quality and time of a trained network",
        "",
        f"{trained}: whole volumes of its {len(theirs)} test people, nothing extrapolated. PSNR (dB) in the brain, as",
        "in the benchmark table; the difference is a person's own, its mean and its range over people.",
        "",
        "| way | calls | PSNR | against the authors' | s a volume | faster |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        *rows,
    ]
