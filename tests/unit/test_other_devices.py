"""Nothing that may run on a GPU mixes devices or makes it wait, as far as can be told without one."""

from __future__ import annotations

import collections
import contextlib
import copy
import csv
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from iqt.bench.gpu.agreement import Noise
from iqt.config import Parcellator, Training, VolumetricNetwork
from iqt.config.benchmark import DEFAULT_METHODS
from iqt.enhance import models
from iqt.enhance.models import Enhancer
from iqt.io.labels import LabelTable
from iqt.io.volumes import Volume
from iqt.methods import parse_method
from iqt.networks.multiview import IN_SLICES, PLANES
from iqt.networks.volumetric import build_volumetric
from iqt.parcellate import predict, volumetric
from iqt.parcellate.predict import build_network
from iqt.parcellate.train import ParcellationTask
from iqt.parcellate.train_volumetric import VolumetricTask
from iqt.training import fit as fitting
from iqt.training.fit import Task, fit
from strange_device import DEVICE, Strange

NETWORK = {"channels": 8, "multipliers": [1, 2], "tokens": [4, 2], "blocks": 1, "groups": 4}
UNET = {"kind": "unet", "network": {"channels": [4, 8]}}
METHODS = {
    "unet": UNET,
    "esrgan, at first": {"kind": "esrgan", "adversarial": {"pretrain": 0.9}},
    "esrgan, in the game": {"kind": "esrgan", "adversarial": {"pretrain": 0.0, "perceptual": 0.1}},
    "diffusion_iqt": {"kind": "diffusion_iqt", "network": NETWORK},
    "diffusion_iqt, levels": {
        "kind": "diffusion_iqt",
        "network": NETWORK,
        "diffusion": {"schedule": "linear", "levels": [-2, 2], "pure_noise": 0.5, "loss_weight": "min_snr"},
    },
    "diffusion_iqt, v": {"kind": "diffusion_iqt", "network": NETWORK, "diffusion": {"objective": "v"}},
    "diffusion_iqt, started": {"kind": "diffusion_iqt", "start": UNET, "network": NETWORK},
    "flow": {"kind": "flow", "start": UNET, "network": NETWORK},
}
SAMPLINGS = {
    "diffusion_iqt": [
        {"sampler": "ancestral", "steps": 3, "samples": 2},
        {"sampler": "ddim", "steps": 2, "eta": 0.5},
        {"sampler": "dpmpp_2m", "steps": 3, "times": "logsnr"},
    ],
    "diffusion_iqt, started": [{"steps": 2, "samples": 2}],
    "flow": [{"solver": "heun", "steps": 2, "samples": 2}],
}
STANDARD = {"input_mean": 0.5, "input_sd": 0.3, "target_mean": 0.0, "target_sd": 0.1}


def test_every_kind_that_is_trained_is_looked_at() -> None:
    from iqt.methods import kinds

    assert {name for name, kind in kinds().items() if kind.trained} == {entry["kind"] for entry in METHODS.values()}
    assert set(DEFAULT_METHODS) >= {"unet", "diffusion_iqt"}


@pytest.mark.parametrize("name", METHODS)
def test_a_training_step_stays_on_its_device_and_waits_for_nothing(name: str) -> None:
    method = parse_method(METHODS[name])
    task = method.task(method.build(), STANDARD)
    task.prepare(Training(steps=100), seed=1)
    task.to(DEVICE)
    shape = (2, 1, *method.patches.region)
    batch = {key: torch.empty(shape, device=DEVICE) for key in ("lowfield", "hq")}
    batch["index"] = torch.arange(2)  # stays where it is: `Task.transfer_batch_to_device`
    with Strange() as strange:
        loss = task.training_step(batch, 0)
        loss.backward()
        assert strange.waits == []
        task._seed_items("validation", batch)
        figures = task.validate(batch)
        assert strange.waits == []
    assert loss.device == DEVICE
    assert {value.device.type for value in figures.values()} == {"meta"}


def slices_task() -> tuple[Task, dict[str, torch.Tensor]]:
    table = LabelTable((0, 2, 41, 3), (0, 41, 2, 3))
    network = build_network(Parcellator(filters=8, levels=2), table)
    task = ParcellationTask(network, dict.fromkeys(PLANES, torch.ones(table.n_classes)))
    batch = {plane: torch.empty(2, IN_SLICES, 16, 16) for plane in PLANES}
    return task, batch | {f"{plane}_target": torch.empty(2, 16, 16, dtype=torch.long) for plane in PLANES}


def volumes_task() -> tuple[Task, dict[str, torch.Tensor]]:
    task = VolumetricTask(build_volumetric(VolumetricNetwork(channels=(4, 8), features=4, residual_units=0), 5))
    return task, {
        "image": torch.empty(1, 1, 16, 16, 16),
        "target": torch.empty(1, 16, 16, 16, dtype=torch.long),
    }


@pytest.mark.parametrize("made", [slices_task, volumes_task])
def test_a_parcellators_step_stays_on_its_device_and_waits_for_nothing(made: Callable) -> None:
    task, batch = made()
    task.prepare(Training(steps=100), seed=1)
    task.to(DEVICE)
    batch = {name: values.to(DEVICE) for name, values in batch.items()}
    with Strange() as strange:
        loss = task.training_step(batch, 0)
        loss.backward()
        figures = task.validate(batch)
    assert strange.waits == []
    assert {value.device.type for value in (loss, *figures.values())} == {"meta"}


@pytest.mark.parametrize("made", [slices_task, volumes_task])
def test_a_parcellators_loss_and_dice_count_alike_in_bfloat16(made: Callable) -> None:
    """Of the same logits: a mean of counts, none of which bfloat16 holds above 256."""
    torch.manual_seed(0)
    task, batch = made()
    batch = {
        name: torch.randint(0, 3, values.shape) if values.dtype == torch.long else torch.randn(values.shape)
        for name, values in batch.items()
    }
    logits = task.network(batch) if isinstance(task, ParcellationTask) else task._logits(batch)
    task.network.forward = lambda *_: logits
    with torch.no_grad():
        wanted = task.validate(batch)
        with torch.autocast("cpu", torch.bfloat16):
            found = task.validate(batch)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name].float(), value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["slices", "volumes"])
def test_a_volume_is_parcellated_on_its_device_and_fetched_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table = LabelTable((0, 2, 41, 3), (0, 41, 2, 3))
    volume, mask = Volume(np.ones((16, 16, 16), np.float32), np.eye(4)), np.ones((16, 16, 16), bool)
    for module in (predict, volumetric):
        monkeypatch.setattr(module, "autocast", lambda precision, device: contextlib.nullcontext())
    if kind == "slices":
        network = build_network(Parcellator(filters=8, levels=2), table)
        parcellator = predict.TrainedParcellator(network.eval().to(DEVICE), table, 2, "float32")
        work = functools.partial(predict.predict_labels, parcellator, volume, mask)
    else:
        network = build_volumetric(VolumetricNetwork(channels=(4, 8), features=4, residual_units=0), table.n_classes)
        parcellator = volumetric.TrainedVolumetric(network.eval().to(DEVICE), table, 2, "float32", 1.0)
        work = functools.partial(volumetric.predict_volumetric, parcellator, volume, mask)
    with Strange() as strange:
        assert work().shape == volume.data.shape
    assert len(strange.waits) == 1, strange.waits


def test_indices_of_a_batch_stay_on_the_cpu() -> None:
    method = parse_method(UNET)
    task = method.task(method.build(), STANDARD)
    moved = task.transfer_batch_to_device({"hq": torch.zeros(2), "index": torch.arange(2)}, DEVICE, 0)
    assert (moved["hq"].device.type, moved["index"].device.type) == ("meta", "cpu")


USES = [(kind, sampling) for kind, all_of_it in SAMPLINGS.items() for sampling in all_of_it]


@pytest.mark.parametrize(("kind", "sampling"), [("unet", {}), ("esrgan, at first", {}), *USES])
def test_a_volume_is_enhanced_on_its_device_and_fetched_once_a_sample(
    kind: str, sampling: dict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In several tiles, of which some lie outside the brain."""
    entry = METHODS[kind]
    method = parse_method(entry)
    card = {"settings": method.trained_by(), "standardisation": STANDARD, "n_parameters": 1, "kind": method.kind}
    usage = {"kind": method.kind, "tiling": {"tile": 32, "overlap": 16, "batch": 2}}
    used = parse_method({**entry, **usage, **({"sampling": sampling} if sampling else {})})
    monkeypatch.setattr(models, "load_card", lambda folder: card)
    monkeypatch.setattr(models, "load_weights", lambda folder, network: None)
    monkeypatch.setattr(models, "method_of", lambda folder, card, usage: used)
    monkeypatch.setattr(models, "best_device", lambda: DEVICE)
    monkeypatch.setattr(models, "autocast", lambda precision, device: contextlib.nullcontext())
    enhancer = Enhancer(tmp_path, usage, "float32")
    mask = torch.zeros(70, 30, 32, dtype=torch.bool)
    mask[:40] = True
    with Strange() as strange:
        enhancer(torch.rand(mask.shape), 1, mask)
    fetched = collections.Counter(strange.waits)
    assert list(fetched.values()) == [used.samples], strange.waits


class Waits(torch.overrides.TorchFunctionMode):
    """Counts what would make a GPU wait for the host, but for what lies on the CPU by design."""

    BY_DESIGN = ("_seed_items", "__iter__", "default_collate", "_single_tensor_adam")
    """The last is the CPU's; a GPU has a fused one, which asks for nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.where: collections.Counter[str] = collections.Counter()

    def __torch_function__(self, func, _types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in ("item", "__float__", "__bool__", "__int__", "tolist", "numpy"):
            import traceback

            names = [frame.name for frame in traceback.extract_stack()]
            if not set(names) & set(self.BY_DESIGN):
                self.where[" < ".join(names[-4:-1])] += 1
        return func(*args, **(kwargs or {}))


def waits_of(steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> collections.Counter[str]:
    """What a whole training of so many steps waits for, with one validation at its end."""
    method = parse_method({**METHODS["diffusion_iqt"], "patches": {"patch": 8, "grid": [1, 1, 1]}})
    task = method.task(method.build(), STANDARD)
    settings = Training(steps=steps, batch_size=1, validation_regions=1, validate_every=steps, warmup=1)
    with Waits() as waits:
        out = tmp_path / str(steps)
        fit(task, Noise(method, steps), Noise(method, 1), settings, out, 1, "float32", {"test": 1})
    with (tmp_path / str(steps) / "history.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == 1
    return waits.where


@pytest.mark.slow
def test_a_training_waits_at_most_once_in_fifty_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the indices of items, which stay on the CPU (above)."""
    few, many = (waits_of(steps, tmp_path, monkeypatch) for steps in (50, 250))
    more = many - few
    assert sum(more.values()) <= 200 / 50, more


def test_the_average_is_the_exponential_one_of_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As computed beside it from the weights that each step left."""
    expected: dict[str, torch.Tensor] = {}
    real = fitting.Averages.on_train_batch_end

    def spy(self, trainer, task, *rest) -> None:
        for name, weight in task.named_parameters():
            now = weight.detach().clone()
            before = expected.get(name)
            expected[name] = now if before is None else self.decay * before + (1 - self.decay) * now
        real(self, trainer, task, *rest)
        for name, average in self._average_model.module.named_parameters():
            torch.testing.assert_close(average, expected[name], rtol=1e-5, atol=1e-7)
        assert int(self._average_model.n_averaged) == trainer.global_step

    monkeypatch.setattr(fitting.Averages, "on_train_batch_end", spy)
    waits_of(5, tmp_path, monkeypatch)
    assert expected


def test_the_watch_notices_what_it_is_for() -> None:
    values = torch.empty(3, device=DEVICE)
    with Strange() as strange:
        assert float(values.sum()) == 1.0
        assert len(values.cpu()) == 3
        with pytest.raises(RuntimeError, match="a generator of cpu for random numbers on meta"):
            torch.randn(3, generator=torch.Generator(), device=DEVICE)
        with pytest.raises(RuntimeError):
            values + torch.ones(3)
    assert len(strange.waits) == 2
    assert copy.copy(strange.waits)


CHOSEN = {
    "indices": ("0,1", ["0", "1"]),
    "spaces": (" 1 , 0 ", ["1", "0"]),
    "ids": ("GPU-a,GPU-b", ["GPU-a", "GPU-b"]),
    "slices of a card": ("MIG-3f8a,MIG-77b1", ["MIG-3f8a", "MIG-77b1"]),
    "slices by number": ("MIG-GPU-a/1/0", ["MIG-GPU-a/1/0"]),
    "none": ("", []),
    "none by number": ("-1", []),
    "all before the first that is none": ("0,-1", ["0"]),
}


@pytest.mark.parametrize("name", CHOSEN)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from iqt.compute.gpus import claim_gpus, visible_gpus

    text, wanted = CHOSEN[name]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", text)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.delenv("IQT_GPU_JOBS", raising=False)
    assert visible_gpus() == wanted
    assert claim_gpus() == wanted, "what Slurm hands out is kept"
