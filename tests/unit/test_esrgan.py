"""The adversarial game of ESRGAN, and baselines brought to another method's size."""

from __future__ import annotations

import pytest
import torch

from iqt.config import parse_config
from iqt.methods import parse_method
from iqt.methods.esrgan import ESRGANMethod
from iqt.networks.size import network_size
from iqt.planning.plan import Plan
from iqt.training.tasks.adversarial import AdversarialTask, relativistic_loss


def game(**adversarial: object) -> tuple[AdversarialTask, dict]:
    """An adversarial task past its pre-training, and a batch."""
    method = ESRGANMethod(
        network={"channels": 4, "growth": 2, "blocks": 1, "stem": 1},
        adversarial={"channels": 4, "layers": 1, "pretrain": 0, **adversarial},
        patches={"patch": 4, "grid": (2, 2, 2)},
    )
    torch.manual_seed(0)
    standard = {"input_mean": 0.5, "input_sd": 0.3, "target_mean": 0.02, "target_sd": 0.1}
    task = method.task(method.build(), standard)
    task.prepare(method.training, 1)
    return task, {"lowfield": torch.rand(2, 1, 8, 8, 8), "hq": torch.rand(2, 1, 8, 8, 8)}


def gradients(task: AdversarialTask, batch: dict) -> tuple[list, list]:
    task.zero_grad()
    task.loss(batch).backward()
    return tuple([weight.grad.clone() for weight in part.parameters()] for part in task.parts())


def test_generator_and_discriminator_only_see_their_own_losses() -> None:
    """The generator's gradient scales with its weights alone, the discriminator's with none of them."""
    task, batch = game(l1=0.0, weight=1.0)
    generator, discriminator = gradients(task, batch)
    task.settings_of_game = task.settings_of_game.model_copy(update={"weight": 3.0})
    threefold, same = gradients(task, batch)
    for before, after in zip(generator, threefold, strict=True):
        torch.testing.assert_close(after, 3 * before, rtol=1e-3, atol=1e-6)
    for before, after in zip(discriminator, same, strict=True):
        torch.testing.assert_close(after, before)
    # A step against the generator's gradient makes the discriminator believe it more.
    inputs, wanted = task.scaled(batch)

    def believed() -> float:
        real, made = (task.discriminator(task._volumes(each, inputs))[-1] for each in (wanted, task.network(inputs)))
        return (made.mean() - real.mean()).item()

    before = believed()
    with torch.no_grad():
        for weight, slope in zip(task.network.parameters(), generator, strict=True):
            weight -= 0.01 * slope
    assert believed() > before


def test_pretraining_moves_the_generator_alone() -> None:
    task, batch = game(pretrain=1.0)
    generator, discriminator = gradients(task, batch)
    assert any(slope.abs().max() > 0 for slope in generator)
    assert all(slope.abs().max() == 0 for slope in discriminator)


def test_the_relativistic_loss_is_its_published_form() -> None:
    real, made = torch.randn(2, 3, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    log = torch.nn.functional.logsigmoid
    expected = -log(real - made.mean()).mean() - (1 - torch.sigmoid(made - real.mean())).log().mean()
    torch.testing.assert_close(relativistic_loss(real, made), expected)
    assert relativistic_loss(real + 5, made) < relativistic_loss(real, made)


@pytest.mark.parametrize("kind", ["unet", "esrgan"])
def test_a_baseline_is_brought_to_the_size_of_another_method(kind: str) -> None:
    config = parse_config(
        {
            "methods": {
                "diffusion_iqt": {"kind": "diffusion_iqt"},
                "baseline": {"kind": kind, "size_like": "diffusion_iqt"},
            }
        },
        "my.yaml",
    )
    wanted = network_size(config.methods["diffusion_iqt"])
    sized = parse_method(Plan(config).trained_by("baseline"))
    assert network_size(sized) == pytest.approx(wanted, rel=0.08)
    # Closer than its neighbours on either side.
    first = sized.network.channels[0] if kind == "unet" else sized.network.channels
    for width in (first - 1, first + 1):
        other = sized.model_copy(update={"network": config.methods["baseline"].network.widened(width)})
        assert abs(network_size(other) - wanted) >= abs(network_size(sized) - wanted)
