"""Which settings of a diffusion model serve best, by the validation people of a run, after equal seconds of training.

    snakemake --cores all --configfile config/openneuro.yaml results/openneuro/cohort/participants.tsv
    snakemake --cores all --configfile config/openneuro.yaml --until store_0 store_1
    python tests/measurements/diffusion.py results/openneuro 180 docs/measurements/diffusion.md [VARIANT ...]

Each variant is timed for a moment on the quiet machine and then trained for as many steps as fit into the seconds,
which a busy machine therefore does not change. What is compared is PSNR on fixed regions of the validation people: of
the first estimate from pure noise (one step), and of a sample of four DDIM steps. Variants that are in the table stay.
"""

from __future__ import annotations

import argparse
import datetime
import tempfile
from pathlib import Path
from typing import Any

from iqt.compute.devices import machine
from iqt.config.section import merge
from iqt.io.files import read_json, read_table, write_table, write_text
from iqt.methods import parse_method
from iqt.training.enhancement import train_model

WARM = 40
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
VARIANTS = {name: merge(BASE, change) for name, change in CHANGES.items()} | {
    "unet": {"kind": "unet"},
    "unet as large as base": {"kind": "unet", "network": {"channels": [18, 36, 72]}},
}
COLUMNS = ("variant", "parameters", "steps", "seconds", "first", "sample")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("seconds", type=float)
    parser.add_argument("out", type=Path)
    parser.add_argument("variants", nargs="*", default=list(VARIANTS))
    given = parser.parse_args()
    table = given.out.with_suffix(".csv")
    rows = {row["variant"]: row for row in read_table(table, COLUMNS)} if table.is_file() else {}
    for name in given.variants:
        if name not in rows:
            rows[name] = train(name, given.run, given.seconds)
            write_table(table, list(rows.values()), COLUMNS)
            print(rows[name], flush=True)
    write_text(given.out, page(list(rows.values()), given.seconds))


def train(name: str, run: Path, seconds: float) -> dict[str, Any]:
    settings = merge({"training": TRAINING}, VARIANTS[name])

    def trained(steps: int, folder: str) -> dict[str, Any]:
        own = merge(settings, {"training": {"steps": steps, "validate_every": steps, "validation_regions": 1}})
        if steps > WARM:
            own = merge(own, {"training": {"validation_regions": TRAINING["validation_regions"]}})
        method = parse_method(own)
        train_model(
            method.trained_by(), run / "cohort/participants.tsv", run / "store/main", Path(folder), 1, "auto", name
        )
        return read_json(Path(folder, "model.json"))

    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        short = [trained(steps, f"{first}/{steps}")["seconds"] for steps in (WARM // 2, WARM)]
        steps = max(WARM + 1, int(seconds / max(1e-3, (short[1] - short[0]) / (WARM - WARM // 2))))
        card = trained(steps, second)
    metrics = card["metrics"]
    one = metrics.get("val_psnr_first", metrics["val_psnr"])
    sample = metrics["val_psnr"] if "val_psnr_first" in metrics else ""
    figures = (name, card["n_parameters"], steps, card["seconds"], round(one, 3), sample and round(sample, 3))
    return dict(zip(COLUMNS, figures, strict=True))


def page(rows: list[dict[str, Any]], seconds: float) -> str:
    where = machine()
    lines = [
        "# Settings of a diffusion model\n",
        f"`tests/measurements/diffusion.py`, {datetime.date.today()}, {where['cpu']}, {where['threads']} threads; "
        f"steps for {seconds:g} s on a quiet machine. PSNR in dB on regions of the validation people, one training "
        "each.\n",
        "| variant | parameters | steps | one step | four DDIM steps |",
        "| --- | ---: | ---: | ---: | ---: |",
        *(
            f"| {row['variant']} | {row['parameters']} | {row['steps']} | {row['first']} | {row['sample']} |"
            for row in rows
        ),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
