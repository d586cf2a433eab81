"""Noise and time: the forward process of a diffusion model, and how trained ones are run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from iqt.config.section import Section

Normal = tuple[Annotated[float, Field(ge=-20, le=20)], Annotated[float, Field(gt=0, le=10)]]


class Diffusion(Section):
    """The forward process and what the network predicts."""

    schedule: Literal["cosine", "linear", "sigmoid"] = "cosine"
    """Log-SNR over continuous time: cosine (the paper), DDPM's linearly growing noise rate, or a sigmoid."""
    logsnr_max: Annotated[float, Field(gt=0, le=20)] = 10.0
    """Bound of the log-SNR at both ends."""
    objective: Literal["x0", "epsilon", "v"] = "x0"
    """What the network's output stands for: the clean target (the paper), the noise, or the velocity."""
    loss_weight: Literal["none", "snr", "min_snr"] = "none"
    """Weight of the squared error over time: none (the paper), as for epsilon, or min(SNR, `min_snr_gamma`) on x0."""
    min_snr_gamma: Annotated[float, Field(gt=0)] = 5.0
    """Bound of the weight `min_snr`."""
    levels: Literal["schedule"] | Normal = "schedule"
    """Log-SNRs that training draws: those of times drawn evenly (the paper), or [mean, standard deviation] of a normal
    distribution (Karras et al. 2022), cut at `logsnr_max`."""
    pure_noise: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of training regions that are noise alone, as every sampler begins; `levels` is of the others."""


class Sampling(Section):
    """How a trained diffusion model is run; entries that differ only here share one trained model."""

    sampler: Literal["ancestral", "ddim", "dpmpp_2m"] = "ddim"
    """Ancestral sampling (the paper), DDIM, or DPM-Solver++(2M), a deterministic solver of second order."""
    steps: Annotated[int, Field(ge=1, le=1000)] = 4
    """Network calls a sample."""
    times: Literal["t", "logsnr"] = "t"
    """What the times of the steps are evenly spaced in: t (the paper), or the log-SNR."""
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Noise that DDIM adds back each step: 0 none, 1 as much as ancestral sampling. The other samplers have no such
    choice."""
    samples: Annotated[int, Field(ge=1, le=1000)] = 1
    """Samples a scan; with more than one the result is their mean, and their standard deviation is kept."""

    @model_validator(mode="after")
    def _eta_is_ddims(self) -> Sampling:
        if self.eta and self.sampler != "ddim":
            raise ValueError(f"eta {self.eta} has no effect with sampler {self.sampler}; leave it out")
        return self


class FlowSampling(Section):
    """How a trained flow is run."""

    solver: Literal["euler", "heun"] = "euler"
    """Euler's method, or Heun's, which is of second order and calls the network twice a step."""
    steps: Annotated[int, Field(ge=1, le=8)] = 2
    """Steps from the regression's output to the sample."""
    samples: Annotated[int, Field(ge=1, le=1000)] = 1
    """Samples a scan; with more than one the result is their mean, and their standard deviation is kept."""

    @property
    def calls(self) -> int:
        """Network calls a sample."""
        return self.steps * (2 if self.solver == "heun" else 1)
