"""What the networks that enhance are trained for: regression, an adversarial game, denoising, or a flow."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from iqt.config import DiffusionIQTMethod, ESRGANMethod, FlowMethod, Learned
from iqt.diffusion.flow import interpolate
from iqt.diffusion.objectives import add_noise, denoising_loss, to_clean
from iqt.diffusion.schedules import build_schedule
from iqt.training.fit import Task

VALIDATION_LOGSNR = -4.0
"""Log-SNR at which a diffusion model's estimate is validated: the noise has 55 times the signal's power."""


def build_task(method: Learned, network: nn.Module, standard: dict[str, float]) -> EnhancementTask:
    """The task of a method's kind; `standard` holds the mean and standard deviation of inputs and targets."""
    if isinstance(method, DiffusionIQTMethod):
        return DiffusionTask(method, network, standard)
    if isinstance(method, FlowMethod):
        return FlowTask(method, network, standard)
    if isinstance(method, ESRGANMethod):
        return AdversarialTask(method, network, standard)
    return RegressionTask(method, network, standard)


class EnhancementTask(Task):
    """Scales in and out; `score` says how close an estimate of the high-quality volume is."""

    monitor = "val_psnr"

    def __init__(self, method: Learned, network: nn.Module, standard: dict[str, float]) -> None:
        super().__init__()
        self.method, self.network, self.standard = method, network, standard

    def scaled(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The network's input and its target, both with mean 0 and standard deviation 1 in the brain."""
        lowfield, high = batch["lowfield"], batch["hq"]
        wanted = high - lowfield if self.method.target == "residual" else high
        standard = self.standard
        inputs = (lowfield - standard["input_mean"]) / standard["input_sd"]
        return inputs, (wanted - standard["target_mean"]) / standard["target_sd"]

    def score(self, loss: Tensor, estimate: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        # On the intensity scale a volume's range is about 1, so this is a PSNR in dB up to a fraction; the mean of the
        # regions' own, so that it does not depend on which of them make a batch.
        errors = (estimate.float() - wanted).square().flatten(1).mean(1) * self.standard["target_sd"] ** 2
        return {"val_loss": loss, "val_psnr": (-10 * torch.log10(errors.clamp_min(1e-10))).mean()}


class RegressionTask(EnhancementTask):
    """Mean squared error of a single forward pass."""

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        inputs, wanted = self.scaled(batch)
        return functional.mse_loss(self.network(inputs).float(), wanted)

    def validate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        inputs, wanted = self.scaled(batch)
        estimate = self.network(inputs)
        return self.score(functional.mse_loss(estimate.float(), wanted), estimate, wanted)


class AdversarialTask(EnhancementTask):
    """ESRGAN's losses (Wang et al. 2018, equations 1 to 3): L1 alone at first, then also a relativistic average
    discriminator and, if its weight is positive, the distance of the discriminator's features.

    Generator and discriminator step at once, each from the state that both had before (ESRGAN alternates): one backward
    pass and one optimiser serve both, and what resumes or shares out a training need not know of them.
    """

    def __init__(self, method: ESRGANMethod, network: nn.Module, standard: dict[str, float]) -> None:
        from iqt.networks.esrgan import build_discriminator

        super().__init__(method, network, standard)
        self.settings_of_game = method.adversarial
        self.discriminator = build_discriminator(method.adversarial)

    def parts(self) -> list[nn.Module]:
        return [self.network, self.discriminator]

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        inputs, wanted = self.scaled(batch)
        estimate = self.network(inputs).float()
        game = self.settings_of_game
        l1 = functional.l1_loss(estimate, wanted)
        if self.global_step < game.pretrain * self.settings.steps:
            # Several processes that share a step expect a gradient, if only zero, of every weight.
            return game.l1 * l1 + 0 * sum(weight.sum() for weight in self.discriminator.parameters())
        self.phase = 1
        real, made = self._volumes(wanted, inputs), self._volumes(estimate, inputs)
        # The generator's loss must not move the discriminator, nor the discriminator's the generator.
        frozen = {name: weight.detach() for name, weight in self.discriminator.named_parameters()}
        judged = [functional_call(self.discriminator, frozen, (volumes,)) for volumes in (real, made)]
        generator = game.l1 * l1 + game.weight * relativistic_loss(judged[1][-1], judged[0][-1])
        if game.perceptual:
            pairs = zip(judged[0][:-1], judged[1][:-1], strict=True)
            distances = [functional.l1_loss(of_made.float(), of_real.detach().float()) for of_real, of_made in pairs]
            generator = generator + game.perceptual * sum(distances) / len(distances)
        of_real, of_made = self.discriminator(real)[-1], self.discriminator(made.detach())[-1]
        return generator + relativistic_loss(of_real, of_made)

    def validate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        inputs, wanted = self.scaled(batch)
        estimate = self.network(inputs)
        return self.score(functional.l1_loss(estimate.float(), wanted), estimate, wanted)

    def _volumes(self, target: Tensor, inputs: Tensor) -> Tensor:
        """The volumes that a target stands for, since the discriminator judges images, not residuals."""
        standard = self.standard
        volumes = target * standard["target_sd"] + standard["target_mean"]
        if self.method.target == "residual":
            volumes = volumes + inputs * standard["input_sd"] + standard["input_mean"]
        return (volumes - standard["input_mean"]) / standard["input_sd"]


def relativistic_loss(higher: Tensor, lower: Tensor) -> Tensor:
    """Relativistic average loss (Jolicoeur-Martineau 2019): logits of `higher` should lie above the mean of `lower`'s,
    and those of `lower` below the mean of `higher`'s. In the generator's, real and generated volumes change places."""
    higher, lower = higher.float(), lower.float()
    return functional.softplus(lower.mean() - higher).mean() + functional.softplus(lower - higher.mean()).mean()


class DiffusionTask(EnhancementTask):
    """Denoising at times drawn uniformly in (0, 1), one a region and so the same for all its patches."""

    def __init__(self, method: DiffusionIQTMethod, network: nn.Module, standard: dict[str, float]) -> None:
        super().__init__(method, network, standard)
        self.diffusion, self.schedule = method.diffusion, build_schedule(method.diffusion)

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        return self._denoise(*self.scaled(batch))

    def validate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        inputs, wanted = self.scaled(batch)
        loss = self._denoise(inputs, wanted)
        # From next to pure noise the network can only give its mean over samples: one forward pass shows how far it has
        # learnt. Not from noise alone, where an estimate by way of epsilon would be its rounding errors.
        logsnr = torch.full((len(wanted),), VALIDATION_LOGSNR, device=self.device)
        noisy = add_noise(wanted, self.randn_like(wanted), logsnr)
        prediction = self.network(noisy, inputs, logsnr).float()
        return self.score(loss, to_clean(self.diffusion.objective, prediction, noisy, logsnr), wanted)

    def _denoise(self, inputs: Tensor, wanted: Tensor) -> Tensor:
        settings = self.diffusion
        logsnr = self.schedule.logsnr(self.rand())
        noisy = add_noise(wanted, self.randn_like(wanted), logsnr)
        prediction = self.network(noisy, inputs, logsnr)
        return denoising_loss(
            settings.objective, prediction, wanted, noisy, logsnr, settings.loss_weight, settings.min_snr_gamma
        )


class FlowTask(EnhancementTask):
    """The velocity from the regression's output with a little noise to the high-quality volume, at times drawn
    uniformly in (0, 1). The regression is not trained."""

    def parts(self) -> list[nn.Module]:
        return [self.network.velocity]

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        inputs, wanted = self.scaled(batch)
        return self._match(inputs, self._start(inputs), wanted)

    def validate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        inputs, wanted = self.scaled(batch)
        start = self._start(inputs)
        loss = self._match(inputs, start, wanted)
        # A single step of Euler's method: what the network makes of the regression's output at one call.
        estimate = start + self.network(start, inputs, torch.zeros(len(wanted), device=self.device)).float()
        return self.score(loss, estimate, wanted)

    def _start(self, inputs: Tensor) -> Tensor:
        with torch.no_grad():
            estimate = self.network.start(inputs).float()
        return estimate + self.method.noise * self.randn_like(estimate)

    def _match(self, inputs: Tensor, start: Tensor, wanted: Tensor) -> Tensor:
        time = self.rand()
        velocity = self.network(interpolate(start, wanted, time), inputs, time)
        return functional.mse_loss(velocity.float(), wanted - start)
