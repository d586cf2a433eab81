"""What a diffusion model is trained and validated at: noise levels, and samples from pure noise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from iqt.config import Training
from iqt.diffusion.schedules import build_schedule
from iqt.methods.diffusion_iqt import DiffusionIQTMethod
from iqt.training.tasks.denoising import DiffusionTask

STANDARD = {"input_mean": 0.5, "input_sd": 0.3, "target_mean": 0.0, "target_sd": 0.1}


class Recording(nn.Module):
    """Half of what it is asked to denoise, and what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Tensor, Tensor]] = []

    def forward(self, noisy: Tensor, _lowfield: Tensor, logsnr: Tensor) -> Tensor:
        self.calls.append((noisy.clone(), logsnr.clone()))
        return 0.5 * noisy


def task_of(diffusion: dict[str, Any], n_items: int) -> DiffusionTask:
    task = DiffusionTask(DiffusionIQTMethod(diffusion=diffusion), Recording(), STANDARD)
    task.prepare(Training(), 3)
    task._seed_items("train", {"index": torch.arange(n_items)})
    return task


def test_levels_follow_the_schedule_unless_said_otherwise() -> None:
    task, again = task_of({"schedule": "linear"}, 50), task_of({"schedule": "linear"}, 50)
    assert torch.equal(task._levels(), build_schedule(again.diffusion).logsnr(again.rand()))


def test_levels_may_be_normal_and_stay_within_the_bound() -> None:
    levels = task_of({"levels": (-2, 3)}, 4000)._levels()
    assert levels.mean() == pytest.approx(-2, abs=0.15)
    assert levels.std() == pytest.approx(3, abs=0.15)
    assert task_of({"levels": (-9, 5)}, 4000)._levels().min() == -10


def test_a_share_of_regions_is_noise_alone() -> None:
    levels = task_of({"pure_noise": 0.4, "levels": (0, 1)}, 4000)._levels()
    alone = levels == -10
    assert alone.float().mean() == pytest.approx(0.4, abs=0.03)
    assert levels[~alone].mean() == pytest.approx(0, abs=0.1), "the others are as they were"


def test_validation_starts_from_noise_that_knows_nothing_of_the_target() -> None:
    batch = {"lowfield": torch.rand(2, 1, 8, 8, 8), "index": torch.tensor([4, 9])}
    seen, figures = [], []
    for shift in (0.0, 0.7):
        task = task_of({}, 1)
        task._seed_items("validation", batch)
        figures.append(task.validate({**batch, "hq": batch["lowfield"] + shift}))
        seen.append(task.network.calls[1:])  # the first is the loss's
    assert [float(logsnr[0]) for _, logsnr in seen[0]] == pytest.approx(
        [float(task.schedule.logsnr(torch.tensor(time))) for time in (1, 0.75, 0.5, 0.25)]
    ), "DDIM of four steps, evenly spaced"
    for (noisy, _), (other, _) in zip(*seen, strict=True):
        assert torch.equal(noisy, other)
    wanted = torch.full_like(seen[1][0][0], 0.7) / 0.1
    error = (0.5 * seen[1][0][0] - wanted).square().flatten(1).mean(1) * 0.01
    assert figures[1]["val_psnr_first"] == pytest.approx(float((-10 * error.log10()).mean()), rel=1e-5)
    last = (0.5 * seen[1][-1][0] - wanted).square().flatten(1).mean(1) * 0.01
    assert figures[1]["val_psnr"] == pytest.approx(float((-10 * last.log10()).mean()), rel=1e-5)
