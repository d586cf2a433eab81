"""The fit loop: what it writes, that it repeats, goes on where it was stopped, and refuses what would be lost."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from noise_run import PATCHES, SETTINGS, train, write_noise_run
from safetensors.torch import load_file, save_file

from iqt.compute.devices import training_guard
from iqt.errors import MemoryShortError, UserError
from iqt.io.files import read_table, write_json, write_table
from iqt.io.naming import seed_of
from iqt.methods import parse_method
from iqt.methods.diffusion_iqt import DiffusionIQTMethod
from iqt.methods.esrgan import ESRGANMethod
from iqt.networks.size import count_parameters
from iqt.training.checkpoints import load_card, load_weights
from iqt.training.enhancement import train_model
from iqt.training.patches import RegionDataset
from iqt.training.store import open_store, standardisation
from iqt.training.tasks.adversarial import AdversarialTask
from iqt.training.tasks.denoising import DiffusionTask


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise_run(tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize(
    ("people", "message"),
    [
        ({"sub-a": "train", "sub-v": "val"}, "a single usable training person is not enough"),
        ({"sub-a": "train", "sub-b": "train"}, "no usable scan in the val split"),
    ],
)
def test_too_few_people_stop_before_training(run: Path, tmp_path: Path, people: dict, message: str) -> None:
    rows = [{"scan": scan, "split": split} for scan, split in people.items()]
    write_table(tmp_path / "participants.tsv", rows)
    with pytest.raises(UserError, match=message):
        train_model(SETTINGS, tmp_path / "participants.tsv", run / "store", tmp_path / "out", 1, "float32", "x")
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def trained(run: Path) -> Path:
    out = run / "trained"
    train(run, out)
    return out


def test_training_writes_weights_card_and_history(run: Path, trained: Path) -> None:
    files = ["history.csv", "model.json", "model.safetensors", "tensorboard"]
    assert sorted(path.name for path in trained.iterdir()) == files
    card = load_card(trained)
    assert card["tensors"]["logsnr"]["range"] == [-10, 10]
    assert card["tensors"]["lowfield"]["multiples"] == [8, 8, 8]
    assert card["data"]["voxel_sizes_mm"] == [[1, 1, 1]]
    assert card["kept_step"] == 6
    assert set(card["metrics"]) == {"train_loss", "val_loss", "val_psnr", "val_psnr_first"}
    assert (card["kind"], card["steps"], card["data"]["n_train"], card["seed"]) == ("diffusion_iqt", 6, 2, 1)
    network = DiffusionIQTMethod.model_validate(card["settings"]).build()
    assert card["n_parameters"] == sum(value.numel() for value in network.parameters())
    before = network.head.weight.clone()
    load_weights(trained, network)
    assert not torch.equal(network.head.weight, before)
    rows = read_table(
        trained / "history.csv", ("step", "train_loss", "val_loss", "val_psnr", "learning_rate", "seconds")
    )
    assert [row["step"] for row in rows] == ["2", "4", "6"]
    assert all(0 <= float(row["data_wait"]) <= 1 for row in rows)

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained / "tensorboard"))
    events.Reload()
    logged = [event.value for event in events.Scalars("val_psnr")]
    assert logged == pytest.approx([float(row["val_psnr"]) for row in rows], rel=1e-4)
    assert {"train_loss", "lr-AdamW"} <= set(events.Tags()["scalars"])


def test_training_repeats_and_another_seed_differs(run: Path, trained: Path, tmp_path: Path) -> None:
    train(run, tmp_path / "again")
    train(run, tmp_path / "other", seed=2)
    first, again, other = (
        load_file(folder / "model.safetensors") for folder in (trained, tmp_path / "again", tmp_path / "other")
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def command(run: Path, out: Path, settings: dict = SETTINGS, *more: str) -> list[str]:
    """The command that the rule runs."""
    folders = ["--participants", str(run / "participants.tsv"), "--store", str(run / "store"), "--out", str(out)]
    options = ["--settings", json.dumps(settings), "--name", "diffusion_iqt", "--precision", "float32", *more]
    threads = str(torch.get_num_threads())  # with as many as the trainings in this process, or sums end otherwise
    return [sys.executable, "-m", "iqt", "--threads", threads, "stage", "train", *folders, *options]


ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "workflow")}


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_weights(run: Path, trained: Path, tmp_path: Path) -> None:
    """SIGKILL, at once after the first checkpoint: nobody gets to tidy up."""
    out = tmp_path / "killed"
    last = out / "checkpoints" / "last.ckpt"
    slower = {**SETTINGS, "training": {**SETTINGS["training"], "steps": 16}}
    process = subprocess.Popen(command(run, out, slower), env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not last.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert last.exists()
    with pytest.raises(UserError, match=r"differing: settings\.training\.steps\)"):
        train(run, out)

    train(run, out, slower)
    train(run, tmp_path / "whole", slower)
    resumed, whole = (load_file(folder / "model.safetensors") for folder in (out, tmp_path / "whole"))
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    rows = [
        [{**row, "seconds": "", "data_wait": ""} for row in read_table(folder / "history.csv")]
        for folder in (out, tmp_path / "whole")
    ]
    assert rows[0] == rows[1]
    assert not (out / "checkpoints").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interrupted_training_says_so_with_its_status(run: Path, tmp_path: Path, sent: int, status: int) -> None:
    """Lightning leaves with 0 and 1: a script would go on without a model."""
    last = tmp_path / "checkpoints" / "last.ckpt"
    long = {**SETTINGS, "training": {**SETTINGS["training"], "steps": 100_000}}
    process = subprocess.Popen(
        command(run, tmp_path, long),
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not last.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(sent)
    _, told = process.communicate(timeout=120)
    assert process.returncode == status, told
    assert re.search(r"interrupted at step \d+; the same command goes on from step \d+", told)
    assert "Traceback" not in told


def test_memory_that_runs_out_names_the_keys_that_help(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(*_: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(DiffusionTask, "loss", short)
    with pytest.raises(MemoryShortError, match=r"memory ran out in training .*; lower training\.batch_size or patches"):
        train(run, tmp_path)


def test_nothing_is_lost_between_the_last_step_and_the_saved_weights(
    run: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "unsaved"

    def killed(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("iqt.training.enhancement.save_model", killed)
    with pytest.raises(KeyboardInterrupt):
        train(run, out)
    (out / "history.csv").unlink()  # as Snakemake does before it runs the job again
    monkeypatch.undo()
    monkeypatch.setattr(DiffusionTask, "loss", killed)  # not a step more is needed
    train(run, out)
    first, again = (load_file(folder / "model.safetensors") for folder in (trained, out))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert len(read_table(out / "history.csv")) == 3


def test_a_damaged_state_is_refused(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("iqt.training.enhancement.save_model", killed)
    with pytest.raises(KeyboardInterrupt):
        train(run, tmp_path)
    last = tmp_path / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"last\.ckpt: damaged; delete .*checkpoints to start afresh"):
        train(run, tmp_path)


def test_bfloat16_trains_and_another_precision_refuses_its_state(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def go(precision: str) -> None:
        train_model(SETTINGS, run / "participants.tsv", run / "store", tmp_path, 1, precision, "diffusion_iqt")

    def killed(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("iqt.training.enhancement.save_model", killed)
        with pytest.raises(KeyboardInterrupt):
            go("bfloat16")
    with pytest.raises(UserError, match=r"differing: bfloat16\)"):
        go("float32")
    go("bfloat16")
    card = load_card(tmp_path)
    assert card["bfloat16"] is True
    assert card["metrics"]["val_loss"] > 0


@pytest.mark.parametrize("edge", [1, 2, 3, 4])
def test_bfloat16_gradients_of_thin_volumes_do_not_depend_on_what_lay_in_memory(edge: int) -> None:
    torch.manual_seed(edge)
    shape, device = (2, 24, edge, 4, 4), torch.device("cpu")
    conv = torch.nn.Conv3d(24, 24, 3, padding=1, groups=24).to(memory_format=torch.channels_last_3d)
    volume = torch.randn(shape).to(memory_format=torch.channels_last_3d)
    wanted = torch.autograd.grad(conv(volume).square().sum(), conv.weight)[0]
    for _ in range(4):
        _ = [torch.full((4**power,), float("nan")) for power in range(2, 10) for _ in range(8)]
        with training_guard(True, device), torch.autocast("cpu", torch.bfloat16):
            loss = conv(volume).float().square().sum()
        (found,) = torch.autograd.grad(loss, conv.weight)
        assert (found - wanted).norm() < 0.02 * wanted.norm()


def test_a_validation_that_is_not_finite_stops_before_a_checkpoint(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = DiffusionTask.validate
    monkeypatch.setattr(
        DiffusionTask, "validate", lambda self, batch: {**whole(self, batch), "val_psnr": torch.tensor(float("nan"))}
    )
    with pytest.raises(UserError, match=r"val_psnr of the validation is not finite at step 2 with learning rate"):
        train(run, tmp_path)
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()


@pytest.mark.slow
def test_two_processes_train_as_one_with_the_doubled_batch(run: Path, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "shared"
    done = subprocess.run(
        command(run, out, SETTINGS, "--devices", "2"), env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for mine, single in zip(read_table(out / "history.csv"), read_table(trained / "history.csv"), strict=True):
        assert float(mine["val_loss"]) == pytest.approx(float(single["val_loss"]), rel=1e-4)
        assert float(mine["val_psnr"]) == pytest.approx(float(single["val_psnr"]), rel=1e-5)
    one, two = (load_file(folder / "model.safetensors") for folder in (trained, out))
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=2e-5)
    with pytest.raises(UserError, match=r"batch_size 2 is not a multiple of compute\.gpus 3"):
        train_model(
            SETTINGS, run / "participants.tsv", run / "store", tmp_path / "odd", 1, "float32", "diffusion_iqt", 3
        )


def with_training(**changes: object) -> dict:
    return {**SETTINGS, "training": {**SETTINGS["training"], **changes}}


def test_the_best_validation_is_kept_where_it_is_asked_for(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = DiffusionTask.validate

    def worse_at_the_end(self: DiffusionTask, batch: dict) -> dict:
        figures = whole(self, batch)
        return {**figures, "val_psnr": figures["val_psnr"] - 10 * (self.global_step == 8)}

    cards = {}
    with monkeypatch.context() as patch:
        patch.setattr(DiffusionTask, "validate", worse_at_the_end)
        for keep in ("best", "last"):
            train(run, tmp_path / keep, with_training(keep=keep, steps=8, ema_decay=0.0))
            cards[keep] = load_card(tmp_path / keep)
    rows = {row["step"]: float(row["val_psnr"]) for row in read_table(tmp_path / "best" / "history.csv")}
    best = max(rows, key=rows.get)
    assert best != "8"
    assert cards["best"]["kept_step"] == int(best)
    assert cards["best"]["metrics"]["val_psnr"] == pytest.approx(rows[best])
    assert cards["last"]["kept_step"] == 8
    # The weights are the ones that the figure belongs to.
    network = parse_method(cards["best"]["settings"]).build()
    load_weights(tmp_path / "best", network)
    assert validation_psnr(run, network) == pytest.approx(rows[best], rel=1e-3)


def validation_psnr(run: Path, network: torch.nn.Module) -> float:
    """val_psnr of a network, computed apart from the fit loop."""
    method = parse_method(SETTINGS)
    scans = {split: open_store(run / "store", run / "participants.tsv", split) for split in ("train", "val")}
    task = method.task(network, standardisation(scans["train"], method.target))
    task.prepare(method.training, seed_of(1, "diffusion_iqt"))
    dataset = RegionDataset(scans["val"], method.patches, 2, seed_of(1, "val"))
    batch = torch.utils.data.default_collate([dataset[0], dataset[1]])
    task._seed_items("validation", batch)
    with torch.no_grad():
        return task.validate(batch)["val_psnr"].item()


def test_the_best_weights_are_remembered_where_the_run_was_moved(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning compares absolute paths, and would take the next weights for the best."""
    whole, settings = DiffusionTask.validate, with_training(keep="best", steps=8, ema_decay=0.0)

    def best_at_first(self: DiffusionTask, batch: dict) -> dict:
        figures = whole(self, batch)
        if self.global_step == 6 and "before" in str(self.trainer.default_root_dir):
            raise KeyboardInterrupt
        return {**figures, "val_psnr": figures["val_psnr"] + 10 * (self.global_step == 2)}

    monkeypatch.setattr(DiffusionTask, "validate", best_at_first)
    with pytest.raises(KeyboardInterrupt):
        train(run, tmp_path / "before", settings)
    (tmp_path / "before").rename(tmp_path / "after")
    train(run, tmp_path / "after", settings)
    assert load_card(tmp_path / "after")["kept_step"] == 2


def test_training_stops_early_after_validations_without_progress(run: Path, tmp_path: Path) -> None:
    spoiling = {"learning_rate": 0.5, "ema_decay": 0.0, "warmup": 0}
    train(run, tmp_path, with_training(steps=100, patience=2, keep="best", **spoiling))
    card = load_card(tmp_path)
    assert card["steps"] < 100
    assert card["steps"] - card["kept_step"] == 4, "two validations later"


def test_workers_read_the_same_regions(run: Path, trained: Path, tmp_path: Path) -> None:
    train(run, tmp_path, workers=2)
    first, again = (load_file(folder / "model.safetensors") for folder in (trained, tmp_path))
    assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_a_compiled_network_learns_the_same(run: Path, tmp_path: Path) -> None:
    """As few kernels as a network can have: compiling takes a second for each."""
    small = {"multipliers": [1], "tokens": [2], "attention": False, "squeeze_excitation": False}
    weights = []
    for compiled in (False, True):
        settings = with_training(steps=2, compile=compiled)
        out = tmp_path / str(compiled)
        train(run, out, {**settings, "network": {**settings["network"], **small}})
        weights.append(load_file(out / "model.safetensors"))
    for name in weights[0]:
        torch.testing.assert_close(weights[1][name], weights[0][name], rtol=0, atol=1e-3)


def test_a_loss_that_is_not_finite_names_the_step_and_the_learning_rate(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DiffusionTask, "loss", lambda self, batch: torch.tensor(float("nan"), requires_grad=True))
    with pytest.raises(UserError, match=r"nan at step 0 with learning rate .*learning_rate"):
        train(run, tmp_path / "nan")


def test_a_diverging_loss_names_the_step_and_the_learning_rate(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = DiffusionTask.loss
    monkeypatch.setattr(DiffusionTask, "loss", lambda self, batch: whole(self, batch) * 2 ** (self.global_step / 4))
    with pytest.raises(UserError, match=r"diverges: .* at step \d+ with learning rate .* but was .* at first"):
        train(run, tmp_path / "up", with_training(steps=100))


@pytest.mark.parametrize("target", ["residual", "image"])
@pytest.mark.parametrize("perceptual", [0.0, 0.1])
def test_esrgan_trains_generator_and_discriminator_and_saves_the_generator(
    run: Path, tmp_path: Path, target: str, perceptual: float
) -> None:
    method = ESRGANMethod(
        network={"channels": 4, "growth": 2, "blocks": 1},
        adversarial={"channels": 4, "layers": 1, "perceptual": perceptual, "pretrain": 0.5},
        patches=PATCHES,
        target=target,
        training=SETTINGS["training"],
    )
    settings = method.trained_by()
    train(run, tmp_path, settings)
    card = load_card(tmp_path)
    network = parse_method(card["settings"]).build()
    load_weights(tmp_path, network)
    assert card["n_parameters"] == count_parameters(network)


def test_weights_of_l1_alone_are_never_esrgans_best(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor do they end its training before the game has begun."""
    whole = AdversarialTask.validate

    def best_at_first(self: AdversarialTask, batch: dict) -> dict:
        return {**whole(self, batch), "val_psnr": torch.tensor(50.0 - self.global_step)}

    monkeypatch.setattr(AdversarialTask, "validate", best_at_first)
    method = ESRGANMethod(
        network={"channels": 4, "growth": 2, "blocks": 1},
        adversarial={"channels": 4, "layers": 1, "pretrain": 0.5},
        patches=PATCHES,
        training={**SETTINGS["training"], "steps": 12, "keep": "best", "patience": 2},
    )
    train(run, tmp_path, method.trained_by())
    card = load_card(tmp_path)
    assert (card["kept_step"], card["steps"]) == (8, 12), "validations at 8, 10 and 12 count"


def test_a_damaged_or_foreign_model_is_refused(trained: Path, tmp_path: Path) -> None:
    network = DiffusionIQTMethod.model_validate(load_card(trained)["settings"]).build()
    damaged = tmp_path / "damaged"
    shutil.copytree(trained, damaged)
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UserError, match=r"model\.safetensors: damaged"):
        load_weights(damaged, network)
    wider = DiffusionIQTMethod(network={**SETTINGS["network"], "channels": 16}, patches=PATCHES).build()
    with pytest.raises(UserError, match="does not fit"):
        load_weights(trained, wider)
    foreign = tmp_path / "foreign"
    shutil.copytree(trained, foreign)
    save_file({name: value + 1 for name, value in network.state_dict().items()}, foreign / "model.safetensors")
    with pytest.raises(UserError, match=r"not the file that model\.json beside it describes"):
        load_weights(foreign, network)
    write_json(damaged / "model.json", {**load_card(trained), "format": 99})
    with pytest.raises(UserError, match="format 99"):
        load_card(damaged)
    write_json(damaged / "model.json", {"format": load_card(trained)["format"], "kind": "unet"})
    with pytest.raises(UserError, match=r"settings, n_parameters, weights_sha256, standardisation is missing"):
        load_card(damaged)
    (damaged / "model.json").write_text("[]")
    with pytest.raises(UserError, match="holds no model card"):
        load_card(damaged)
    with pytest.raises(UserError, match="no such file"):
        load_weights(tmp_path, network)
