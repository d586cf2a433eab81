"""Which settings of a diffusion model serve best, by the validation people of a run, after equal seconds of training.

    snakemake --cores all results/openneuro/cohort/participants.tsv --configfile config/openneuro.yaml
    snakemake --cores all --until store_0 store_1 --configfile config/openneuro.yaml
    python tests/measurements/diffusion.py results/openneuro 60 docs/measurements/diffusion.md [VARIANT ...]
    python tests/measurements/diffusion.py results/openneuro 180 docs/measurements/diffusion.md [VARIANT ...]

A step of every variant is timed first, on a quiet machine, and kept; each is then trained for as many steps as fit into
the seconds, which a busy machine therefore does not change. A variant that starts from a regression shares the seconds
with it. What is compared is PSNR on fixed regions of the validation people: of the first estimate from pure noise (one
step), and of a sample of four DDIM steps. Variants that are in the table stay.
"""

from __future__ import annotations

import argparse
import datetime
import json
import tempfile
from pathlib import Path
from typing import Any

from iqt.compute.devices import machine
from iqt.config.section import merge
from iqt.io.files import read_json, read_table, write_json, write_table, write_text
from iqt.methods import parse_method
from iqt.training.enhancement import train_model

TIMED = (10, 110)
"""Steps of two trainings; the difference of their seconds is that of the steps."""
TRAINING = {"batch_size": 4, "learning_rate": 2e-3, "warmup": 20, "ema_decay": 0.995, "validation_regions": 64}
BASE: dict[str, Any] = {
    "kind": "diffusion_iqt",
    "network": {"blocks": 1},
    "diffusion": {"schedule": "linear", "levels": [-2, 2], "pure_noise": 0.5},
}
CHANGES: dict[str, dict[str, Any]] = {
    "base": {},
    "levels of the schedule": {"diffusion": {"levels": "schedule", "pure_noise": 0.0}},
    "cosine, levels of the schedule": {"diffusion": {"schedule": "cosine", "levels": "schedule", "pure_noise": 0.0}},
    "pure noise 0.8": {"diffusion": {"pure_noise": 0.8}},
    # Of data with variance 1 the same as preconditioning input and output by the noise level (Karras et al. 2022).
    "velocity": {"diffusion": {"objective": "v"}},
    "weights min-SNR": {"diffusion": {"loss_weight": "min_snr"}},
    "16 channels": {"network": {"channels": 16}},
    "32 channels": {"network": {"channels": 32}},
    "16, 32 and 48 channels": {"network": {"channels": 16, "multipliers": [2, 3]}},  # whole blocks of AVX-512
    "two blocks a level, 16 channels": {"network": {"channels": 16, "blocks": 2}},
    "full resolution, 16 channels": {"network": {"stem": 1, "channels": 16, "tokens": [8, 4]}},
    "one patch of 32": {"patches": {"patch": 32, "grid": [1, 1, 1]}},
    "batch 2": {"training": {"batch_size": 2}},
    "batch 8": {"training": {"batch_size": 8}},
    "EMA 0.98": {"training": {"ema_decay": 0.98}},
    "EMA 0.999": {"training": {"ema_decay": 0.999}},
    "learning rate 1e-3": {"training": {"learning_rate": 1e-3}},
    "learning rate 4e-3": {"training": {"learning_rate": 4e-3}},
}
SMALL = {"kind": "unet", "network": {"channels": [18, 36, 72]}}
VARIANTS: dict[str, dict[str, Any]] = {name: merge(BASE, change) for name, change in CHANGES.items()} | {
    "unet": {"kind": "unet"},
    "unet as large as base": SMALL,
    "unet of 16, 32 and 80 channels": {"kind": "unet", "network": {"channels": [16, 32, 80]}},
}
HALF = {"kind": "unet", "network": {"channels": [13, 26, 52]}}
NARROW = merge(BASE, {"network": {"channels": 16}})
MOST = {"kind": "unet", "network": {"channels": [16, 32, 64]}}
NARROWEST = merge(BASE, {"network": {"channels": 8}})
STARTED: dict[str, tuple[dict[str, Any], dict[str, Any], float]] = {
    "from a regression, half of the seconds": (SMALL, BASE, 0.5),
    "from a regression, three quarters of the seconds": (SMALL, BASE, 0.75),
    "from a regression, three quarters, together as large as base": (HALF, NARROW, 0.75),
    "from a regression, seven eighths, together as large as base": (MOST, NARROWEST, 0.875),
}
"""A regression, what starts from it, and the regression's share of the seconds."""
COLUMNS = ("seconds", "variant", "parameters", "steps", "first", "sample")


class Bench:
    """Trains on the stores of a run, in temporary folders."""

    def __init__(self, run: Path, times: Path) -> None:
        self.run, self.kept = run, times
        self.times: dict[str, float] = read_json(times) if times.is_file() else {}

    def train(self, entry: dict[str, Any], steps: int, regions: int, out: Path, start: Path | None) -> dict[str, Any]:
        """The card of a training; `start` is the folder of the regression that it starts from."""
        own = {"steps": steps, "validate_every": steps, "validation_regions": regions}
        settings = merge(merge({"training": TRAINING}, entry), {"training": own})
        if start is not None:
            settings["start"] = read_json(start / "model.json")["settings"]
        trained_by = parse_method(settings).trained_by()
        if start is not None:
            trained_by["start"] = settings["start"]
        participants = self.run / "cohort/participants.tsv"
        train_model(trained_by, participants, self.run / "store/main", out, 1, "auto", "variant", 1, start)
        return read_json(out / "model.json")

    def time(self, entry: dict[str, Any], regression: dict[str, Any] | None = None) -> float:
        """Seconds of a step, measured once for all that cost the same."""
        cost = {key: entry.get(key) for key in ("kind", "network", "patches")}
        cost |= {"batch_size": entry.get("training", {}).get("batch_size"), "start": regression}
        key = json.dumps(cost, sort_keys=True)
        if key not in self.times:
            with tempfile.TemporaryDirectory() as kept:
                folder, start = Path(kept), None
                if regression is not None:
                    start = folder / "start"
                    self.train(regression, 2, 1, start, None)
                # The first only warms up: a process's first training takes longer.
                taken = [self.train(entry, n, 1, folder / f"{n}", start)["seconds"] for n in (2, *TIMED)]
            self.times[key] = max(1e-3, (taken[2] - taken[1]) / (TIMED[1] - TIMED[0]))
            write_json(self.kept, self.times)
            print(f"{self.times[key]:.3f} s a step: {key}", flush=True)
        return self.times[key]

    def score(self, name: str, seconds: float) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as kept:
            folder, start = Path(kept), None
            if name in STARTED:
                regression, entry, share = STARTED[name]
                start = folder / "start"
                self.train(regression, int(share * seconds / self.time(regression)), 1, start, None)
                steps = int((1 - share) * seconds / self.time(entry, regression))
            else:
                entry = VARIANTS[name]
                steps = int(seconds / self.time(entry))
            card = self.train(entry, steps, TRAINING["validation_regions"], folder / "model", start)
        metrics = card["metrics"]
        one = metrics.get("val_psnr_first", metrics["val_psnr"])
        sample = round(metrics["val_psnr"], 3) if "val_psnr_first" in metrics else ""
        return dict(zip(COLUMNS, (seconds, name, card["n_parameters"], steps, round(one, 3), sample), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("seconds", type=float)
    parser.add_argument("out", type=Path)
    parser.add_argument("variants", nargs="*", choices=[*VARIANTS, *STARTED, []], metavar="VARIANT")
    given = parser.parse_args()
    bench = Bench(given.run, given.out.with_suffix(".times.json"))
    variants = given.variants or [*VARIANTS, *STARTED]
    for name in variants:
        if name in STARTED:
            regression, entry, _ = STARTED[name]
            bench.time(regression)
            bench.time(entry, regression)
        else:
            bench.time(VARIANTS[name])
    table = given.out.with_suffix(".csv")
    rows = read_table(table, COLUMNS) if table.is_file() else []
    for name in variants:
        if not any((float(row["seconds"]), row["variant"]) == (given.seconds, name) for row in rows):
            rows.append(bench.score(name, given.seconds))
            write_table(table, rows, COLUMNS)
            print(rows[-1], flush=True)
    write_text(given.out, page(rows))


def page(rows: list[dict[str, Any]]) -> str:
    where = machine()
    lines = [
        "# Settings of a diffusion model\n",
        "For who asks why the benchmark's diffusion model is set as it is.\n",
        f"`tests/measurements/diffusion.py`, {datetime.date.today()}, {where['cpu']}, {where['threads']} threads. PSNR "
        "in dB on 64 regions of the validation people of the benchmark, one training each; steps for that many seconds "
        "of a quiet machine. One step is the first estimate from pure noise, the other a sample of four DDIM steps.\n",
        "| seconds | variant | parameters | steps | one step | four DDIM steps |",
        "| ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for row in sorted(rows, key=lambda row: float(row["seconds"])):
        cells = (f"{float(row['seconds']):g}", *(str(row[name]) for name in COLUMNS[1:]))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
