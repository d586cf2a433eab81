"""Training the networks that enhance: a regression, or the conditional diffusion model."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from iqt.config import DiffusionIQTMethod, Learned, Method
from iqt.diffusion.objectives import add_noise, x0_loss
from iqt.diffusion.schedules import build_schedule
from iqt.errors import UserError
from iqt.naming import seed_of
from iqt.networks.build import build_network
from iqt.training.checkpoints import save_model
from iqt.training.fit import Task, fit, summary
from iqt.training.patches import RegionDataset
from iqt.training.store import StoredScan, open_store, standardisation


class EnhancementTask(Task):
    """Scales in and out; `validate` scores the estimate of the high-quality volume."""

    def __init__(self, network: nn.Module, target: str, standard: dict[str, float]) -> None:
        super().__init__()
        self.network, self.target, self.standard = network, target, standard

    def scaled(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The network's input and its target, both with mean 0 and standard deviation 1 in the brain."""
        lowfield, high = batch["lowfield"], batch["hq"]
        wanted = high - lowfield if self.target == "residual" else high
        standard = self.standard
        inputs = (lowfield - standard["input_mean"]) / standard["input_sd"]
        return inputs, (wanted - standard["target_mean"]) / standard["target_sd"]

    def score(self, loss: Tensor, estimate: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        # On the intensity scale a volume's range is about 1, so this is a PSNR in dB up to a fraction.
        error = (estimate.float() - wanted).square().mean() * self.standard["target_sd"] ** 2
        return {"val_loss": loss, "val_psnr": -10 * torch.log10(error)}


class RegressionTask(EnhancementTask):
    """Mean squared error of a single forward pass."""

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        inputs, wanted = self.scaled(batch)
        return torch.nn.functional.mse_loss(self.network(inputs).float(), wanted)

    def validate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        inputs, wanted = self.scaled(batch)
        estimate = self.network(inputs)
        return self.score(torch.nn.functional.mse_loss(estimate.float(), wanted), estimate, wanted)


class DiffusionTask(EnhancementTask):
    """Denoising at times drawn uniformly in (0, 1), one a region and so the same for all its patches."""

    def __init__(self, network: nn.Module, settings: DiffusionIQTMethod, standard: dict[str, float]) -> None:
        super().__init__(network, settings.target, standard)
        self.schedule = build_schedule(settings.diffusion)

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        inputs, wanted = self.scaled(batch)
        return self._denoise(inputs, wanted)

    def validate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        inputs, wanted = self.scaled(batch)
        loss = self._denoise(inputs, wanted)
        # From pure noise the network can only give its mean over samples: one forward pass shows how far it has learnt.
        noise = torch.randn(wanted.shape, generator=self.noise, device=self.device)
        logsnr = self.schedule.logsnr(torch.ones(len(wanted), device=self.device))
        return self.score(loss, self.network(noise, inputs, logsnr), wanted)

    def _denoise(self, inputs: Tensor, wanted: Tensor) -> Tensor:
        times = torch.rand(len(wanted), generator=self.noise, device=self.device)
        noise = torch.randn(wanted.shape, generator=self.noise, device=self.device)
        logsnr = self.schedule.logsnr(times)
        return x0_loss(self.network(add_noise(wanted, noise, logsnr), inputs, logsnr), wanted)


def train_model(
    settings: dict, participants: Path, store: Path, out: Path, seed: int, precision: str, name: str
) -> None:
    """Train a method's network on the stored training scans and write the model folder `out`.

    `settings` is the part of a method's entry that weights depend on (`Config.trained_by`).

    Raises:
        UserError: no usable training or validation scan, regions larger than a scan, or a loss that is not finite.
    """
    method: Learned = TypeAdapter(Method).validate_python(settings)
    scans = {split: open_store(store, participants, split) for split in ("train", "val")}
    standard = standardisation(scans["train"], method.target)
    # Networks are built before the fit seeds everything, so their first weights need the seed too.
    torch.manual_seed(seed_of(seed, "weights", name))
    network = build_network(method).to(memory_format=torch.channels_last_3d)
    if isinstance(method, DiffusionIQTMethod):
        task: EnhancementTask = DiffusionTask(network, method, standard)
    else:
        task = RegressionTask(network, method.target, standard)
    training = method.training
    # The same regions for every method: their draw knows nothing of the method's name.
    train = RegionDataset(
        scans["train"], method.patches, training.steps * training.batch_size, seed_of(seed, "train"), training.flip
    )
    val = RegionDataset(scans["val"], method.patches, training.validation_regions, seed_of(seed, "val"))
    data = _describe(scans)
    identity = {"settings": settings, "seed": seed, "data": data["sha256"]}
    result = fit(task, train, val, training, out, seed_of(seed, name), precision, identity)
    save_model(
        out,
        task.network,
        {
            "kind": method.kind,
            "name": name,
            "settings": settings,
            "seed": seed,
            "standardisation": standard,
            "inputs": "(B, 1, X, Y, Z) low-field volume divided by its own 99.5th percentile in the brain mask",
            "outputs": f"{method.target} on the scale of the high-quality volume divided by its own 99.5th percentile",
            "region": list(method.patches.region),
            "data": data,
            **summary(result),
        },
    )


def _describe(scans: dict[str, list[StoredScan]]) -> dict:
    """How many scans, and a hash of what they hold, by which a resumed run notices other data."""
    digest = hashlib.sha256()
    for split, members in scans.items():
        for scan in members:
            digest.update(f"{split} {scan.scan} {scan.record}".encode())
    if len(scans["train"]) < 2:
        raise UserError("a single training scan is not enough to train on; give cohort.split.train at least 2")
    return {"n_train": len(scans["train"]), "n_val": len(scans["val"]), "sha256": digest.hexdigest()}
