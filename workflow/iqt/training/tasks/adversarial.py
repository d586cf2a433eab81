"""ESRGAN's training: L1 alone at first, then a game against a discriminator."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from iqt.training.tasks.base import EnhancementTask

if TYPE_CHECKING:
    from iqt.methods.esrgan import ESRGANMethod


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

    @property
    def first_kept(self) -> int:
        """The game costs PSNR: the best of all weights, or where training stops, would be those of L1 alone."""
        steps = self.settings.steps
        pretrain = math.ceil(self.settings_of_game.pretrain * steps)
        return pretrain if pretrain < steps else 0

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
