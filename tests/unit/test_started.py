"""What starts from a regression's output: the flow's solvers, training and use, and the diffusion model's."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from noise_run import PATCHES, train, write_noise_run
from safetensors.torch import load_file
from torch import Tensor

from iqt.config import Config, Training, parse_config
from iqt.config.diffusion import FlowSampling
from iqt.diffusion.flow import interpolate, solve
from iqt.enhance.models import Enhancer, noise_field
from iqt.enhance.single import usage_of
from iqt.errors import UserError
from iqt.io.files import read_json, write_json
from iqt.methods import parse_method
from iqt.methods.diffusion_iqt import DiffusionIQTMethod
from iqt.methods.flow import FlowMethod
from iqt.methods.unet import UNetMethod
from iqt.planning.plan import Plan
from iqt.study.process import sampling_of
from iqt.training.checkpoints import load_card
from iqt.training.enhancement import train_model
from iqt.training.tasks.denoising import DiffusionTask
from iqt.training.tasks.flow import FlowTask

TRAINING = Training(steps=4, batch_size=2, validate_every=2, validation_regions=2, warmup=1)
REGRESSION = UNetMethod(network={"channels": (4, 8), "residual_units": 1}, patches=PATCHES, training=TRAINING)
NETWORK = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "heads": 2, "head_dim": 4, "stem": 1, "tokens": (2, 2)}
FLOW = FlowMethod(start="unet", network=NETWORK, patches=PATCHES, training=TRAINING, noise=0.2)
REFINED = DiffusionIQTMethod(start="unet", network=NETWORK, patches=PATCHES, training=TRAINING)
CONFIG = Config(methods={"unet": REGRESSION, "flow": FLOW, "refined": REFINED})
TILING = {"tile": 16, "overlap": 4}


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_solvers_converge_at_their_order(solver: str, order: int) -> None:
    """dz/dt = z + t, of which the solution is known: z(1) = (z(0) + 1) e - 2."""
    start = torch.linspace(-1, 1, 5, dtype=torch.float64)
    exact = (start + 1) * torch.e - 2

    def error(steps: int) -> float:
        found = solve(lambda current, time: current + time, start, FlowSampling(solver=solver, steps=steps))
        return (found - exact).abs().max().item()

    assert error(8) < error(4) < error(2) < error(1)
    assert error(4) / error(8) == pytest.approx(2**order, rel=0.25)


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_a_straight_flow_arrives_in_one_step_with_the_calls_that_are_counted(solver: str) -> None:
    calls, start, end = [], torch.zeros(3), torch.tensor([1.0, -2.0, 3.0])

    def velocity(_current: Tensor, time: Tensor) -> Tensor:
        calls.append(float(time))
        return end - start

    for steps in (1, 8):
        calls.clear()
        settings = FlowSampling(solver=solver, steps=steps)
        torch.testing.assert_close(solve(velocity, start, settings), end)
        assert len(calls) == settings.calls
        assert min(calls) == 0
    middle = interpolate(torch.zeros(2, 1, 3), end.expand(2, 1, 3), torch.tensor([0.0, 0.5]))
    torch.testing.assert_close(middle, torch.stack([torch.zeros(1, 3), end[None] / 2]))


def test_a_flow_between_gaussians_has_the_variance_that_is_due() -> None:
    """From N(0, a^2) to N(0, b^2), independently: the best velocity is known, and the flow carries one to the other."""
    a, b = 0.5, 1.5

    def velocity(current: Tensor, time: Tensor) -> Tensor:
        return current * (time * b**2 - (1 - time) * a**2) / (time**2 * b**2 + (1 - time) ** 2 * a**2)

    start = a * torch.randn(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spread = [solve(velocity, start, FlowSampling(solver="heun", steps=steps)).std().item() for steps in (2, 8)]
    assert abs(spread[1] - b) < 0.05 * b
    assert abs(spread[1] - b) < abs(spread[0] - b)


def test_without_the_low_field_volume_the_flow_has_the_least_error_that_keeps_the_distribution() -> None:
    """For X ~ N(0, 1) and a posterior mean X* of variance a the best velocity is known. The flow ends at X* / sqrt(a)
    (optimal transport): the distribution of X, at an error of 2 (1 - sqrt(a)); a posterior sample's is 2 (1 - a)."""
    a = 0.64
    generator = torch.Generator().manual_seed(0)
    mean, rest = torch.randn(2, 100_000, generator=generator, dtype=torch.float64)
    mean, rest = a**0.5 * mean, (1 - a) ** 0.5 * rest
    clean = mean + rest

    def velocity(current: Tensor, time: Tensor) -> Tensor:
        return current * time * (1 - a) / (a + time**2 * (1 - a))

    found = solve(velocity, mean, FlowSampling(solver="heun", steps=8))
    assert found.std().item() == pytest.approx(1, abs=0.01)
    assert (found - clean).square().mean().item() == pytest.approx(2 * (1 - a**0.5), abs=0.01)


def test_an_unconditional_velocity_sees_the_current_volume_alone(folders: tuple[Path, Path]) -> None:
    method = parse_method(load_card(folders[1])["settings"])
    torch.manual_seed(0)
    current, low, other = torch.randn(3, 1, 1, 8, 8, 8)
    for conditional in (True, False):
        changed = method.model_copy(update={"conditional": conditional})
        network = changed.build().eval()
        torch.nn.init.normal_(network.velocity.head.weight)
        found = [network(current, volume, torch.full((1,), 0.5)) for volume in (low, other)]
        assert torch.equal(*found) is not conditional


def test_a_regression_of_other_data_is_refused(run: Path, folders: tuple[Path, Path], tmp_path: Path) -> None:
    start = tmp_path / "start"
    shutil.copytree(folders[0], start)
    card = read_json(start / "model.json")
    card["standardisation"]["input_mean"] += 0.1
    write_json(start / "model.json", card)
    with pytest.raises(UserError, match="was trained on other data: its input_mean is"):
        fit_started(run, tmp_path / "flow", start)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def folders(run: Path) -> tuple[Path, Path]:
    """A trained regression, and the flow that was trained from it."""
    train(run, run / "unet", Plan(CONFIG).trained_by("unet"))
    fit_started(run, run / "flow", run / "unet")
    return run / "unet", run / "flow"


@pytest.fixture(scope="module")
def refined(run: Path, folders: tuple[Path, Path]) -> Path:
    """A diffusion model of what that regression leaves."""
    fit_started(run, run / "refined", folders[0], "refined")
    return run / "refined"


def fit_started(run: Path, out: Path, start: Path | None, name: str = "flow") -> None:
    settings = Plan(CONFIG).trained_by(name)
    train_model(settings, run / "participants.tsv", run / "store", out, 1, "float32", name, start=start)


def test_the_regression_is_saved_with_the_flow_and_not_trained_on(folders: tuple[Path, Path]) -> None:
    regression, both = (load_file(folder / "model.safetensors") for folder in folders)
    assert all(torch.equal(value, both[f"start.{name}"]) for name, value in regression.items())
    fresh = parse_method(load_card(folders[1])["settings"]).build()
    assert any(not torch.equal(value, both[f"velocity.{name}"]) for name, value in fresh.velocity.state_dict().items())
    card = load_card(folders[1])
    assert card["start"]["weights_sha256"] == load_card(folders[0])["weights_sha256"]
    assert card["n_parameters"] == sum(value.numel() for value in fresh.parameters())
    assert card["tensors"]["time"]["range"] == [0, 1]
    assert set(card["metrics"]) == {"train_loss", "val_loss", "val_psnr"}


def test_the_loss_is_that_of_the_straight_line(folders: tuple[Path, Path]) -> None:
    card = load_card(folders[1])
    method = parse_method(card["settings"])
    network = method.build().train()
    assert not network.start.training, "batch statistics stay"
    torch.nn.init.zeros_(network.velocity.head.weight)
    task = FlowTask(method, network, card["standardisation"])
    task.prepare(TRAINING, 1)
    batch = {"lowfield": torch.rand(2, 1, 8, 8, 8), "hq": torch.rand(2, 1, 8, 8, 8), "index": torch.arange(2)}
    task._seed_items("train", batch)
    inputs, wanted = task.scaled(batch)
    # A network that stays at 0 is off by the whole way from the regression's output, with its noise, to the target.
    way = (wanted - network.start(inputs)).square().mean().item() + method.noise**2
    assert task.loss(batch).item() == pytest.approx(way, rel=0.05)
    assert [part is network.velocity for part in task.parts()] == [True]


def test_a_flow_starts_from_the_regressions_output(folders: tuple[Path, Path]) -> None:
    low = torch.rand(8, 16, 16, generator=torch.Generator().manual_seed(5))
    regression = Enhancer(folders[0], {"kind": "unet", "tiling": TILING}, "float32")(low, 1)
    usage = {"kind": "flow", "sampling": {"steps": 2, "solver": "heun"}, "tiling": TILING}
    flow = Enhancer(folders[1], usage, "float32")
    assert flow(low, 1).nfe == 1 + 2 * 2
    torch.nn.init.zeros_(flow.network.velocity.head.weight)
    torch.nn.init.zeros_(flow.network.velocity.head.bias)
    found = flow(low, 1)
    difference = (found.mean - regression.mean) / flow.standard["target_sd"]
    assert difference.std().item() == pytest.approx(0.2, rel=0.05), "the noise alone is between them"
    usage["sampling"] = {"samples": 3}
    several = Enhancer(folders[1], usage, "float32")(low, 1)
    assert several.nfe == 1 + 3 * 2
    assert several.sd.mean() > 0
    assert noise_field(several.tiling, 1).shape[2:] == (8, 16, 16)


def test_a_diffusion_model_draws_what_the_regression_leaves(folders: tuple[Path, Path], refined: Path) -> None:
    low = torch.rand(8, 16, 24, generator=torch.Generator().manual_seed(5))
    regression = Enhancer(folders[0], {"kind": "unet", "tiling": TILING}, "float32")(low, 1)
    usage = {"kind": "diffusion_iqt", "sampling": {"steps": 3, "samples": 2}, "tiling": TILING}
    enhance = Enhancer(refined, usage, "float32")
    found = enhance(low, 1)
    assert found.nfe == 1 + 2 * 3
    assert found.sd.mean() > 0
    assert (found.mean - regression.mean).abs().max() > 1e-4
    nothing = enhance.network.denoiser.head  # then nothing is left to add
    torch.nn.init.zeros_(nothing.weight)
    torch.nn.init.zeros_(nothing.bias)
    torch.testing.assert_close(enhance(low, 1).mean, regression.mean)


def test_a_diffusion_model_sees_what_the_regression_made(folders: tuple[Path, Path], refined: Path) -> None:
    card = load_card(refined)
    saved = load_file(refined / "model.safetensors")
    regression = load_file(folders[0] / "model.safetensors")
    assert all(torch.equal(value, saved[f"start.{name}"]) for name, value in regression.items())
    assert card["start"]["weights_sha256"] == load_card(folders[0])["weights_sha256"]
    assert card["tensors"]["conditions"]["shape"][1] == 2
    method = parse_method(card["settings"])
    task = DiffusionTask(method, method.build(), card["standardisation"])
    task.prepare(TRAINING, 1)
    batch = {"lowfield": torch.rand(2, 1, 8, 8, 8), "hq": torch.rand(2, 1, 8, 8, 8), "index": torch.arange(2)}
    task._seed_items("train", batch)
    inputs, wanted = task.scaled(batch)
    conditions, left = task.drawn(batch)
    torch.testing.assert_close(conditions, torch.cat([inputs, task.network.start(inputs)], dim=1))
    torch.testing.assert_close(left + conditions[:, 1:], wanted)
    # A fresh network gives 0, so the loss is all that is left.
    assert task.loss(batch).item() == pytest.approx(left.square().mean().item(), rel=1e-5)
    assert [part is task.network.denoiser for part in task.parts()] == [True]


def test_a_flow_without_its_regression_is_an_error(run: Path, folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs --start"):
        fit_started(run, tmp_path, None)
    with pytest.raises(
        UserError, match=r"flow: holds a model of kind flow for target residual, but the flow starts from unet"
    ):
        fit_started(run, tmp_path, folders[1])
    settings = Plan(CONFIG).trained_by("unet")
    with pytest.raises(UserError, match="a method of kind unet starts from no other model"):
        train_model(settings, run / "participants.tsv", run / "store", tmp_path, 1, "float32", "x", start=folders[0])


def test_the_configuration_knows_what_a_flow_depends_on() -> None:
    assert Plan(CONFIG).start_of("flow") == "unet"
    assert Plan(CONFIG).start_of("unet") is None
    assert Plan(CONFIG).models() == ["unet", "flow", "refined"]
    longer = REGRESSION.model_copy(update={"training": TRAINING.model_copy(update={"steps": 6})})
    assert Plan(Config(methods={"unet": longer, "flow": FLOW})).trained_by("flow") != Plan(CONFIG).trained_by("flow")
    wanted = {"kind", "network", "noise", "conditional", "target", "trained_on", "patches", "training", "start"}
    assert set(Plan(CONFIG).trained_by("flow")) == wanted
    assert "noise" not in Plan(CONFIG).used_by("flow"), "weights depend on it"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"start": "cubic"}, "methods.new.start 'cubic' must name a method of kind unet"),
        ({"start": "absent"}, "methods.new.start 'absent' must name a method of kind unet"),
        ({"start": "unet", "target": "image"}, "methods.new.target image must be that of its start unet, residual"),
        ({"start": "unet", "trained_on": "other"}, "methods.new.trained_on other must be its start's, main of unet"),
    ],
)
@pytest.mark.parametrize("kind", ["flow", "diffusion_iqt"])
def test_a_wrong_start_is_refused(kind: str, entry: dict, message: str) -> None:
    refuse({"kind": kind, **entry}, message)


@pytest.mark.parametrize(
    ("entry", "message"), [({}, "start"), ({"start": "unet", "sampling": {"steps": 9}}, "less than or equal to 8")]
)
def test_a_flow_needs_a_start_and_takes_few_steps(entry: dict, message: str) -> None:
    refuse({"kind": "flow", **entry}, message)


def refuse(entry: dict, message: str) -> None:
    methods = {"cubic": {"kind": "cubic"}, "unet": {"kind": "unet"}, "new": entry}
    with pytest.raises(UserError) as error:
        parse_config({"methods": methods, "lowfield": {"main": {}, "other": {}}})
    assert message in str(error.value)


@pytest.mark.parametrize("kind", ["flow", "diffusion_iqt"])
def test_a_region_must_suit_the_regression_too(kind: str) -> None:
    deep = {"kind": "unet", "network": {"channels": [4] * 7}, "patches": {"patch": 64}}
    with pytest.raises(UserError, match="must be multiples of 64, which the levels of its start deep ask for"):
        parse_config({"methods": {"deep": deep, "new": {"kind": kind, "start": "deep"}}})


def test_what_starts_from_another_has_no_size_of_its_own() -> None:
    methods = {
        "unet": {"kind": "unet"},
        "refined": {"kind": "diffusion_iqt", "start": "unet"},
        "esrgan": {"kind": "esrgan", "size_like": "refined"},
    }
    with pytest.raises(UserError, match=r"methods.esrgan.size_like 'refined' must name .* that starts from no other"):
        parse_config({"methods": methods})


def test_options_of_another_kind_are_refused_for_one_scan(folders: tuple[Path, Path]) -> None:
    assert usage_of(load_card(folders[1]), {"steps": 4})["sampling"]["steps"] == 4
    with pytest.raises(UserError, match=r"--sampler: has no effect with a model of kind flow"):
        usage_of(load_card(folders[1]), {"sampler": "ddim"})
    with pytest.raises(UserError, match=r"--steps: has no effect with a model of kind unet"):
        usage_of(load_card(folders[0]), {"steps": 4})
    card = load_card(folders[1])
    with pytest.raises(UserError, match=r"^sampling\.samples 4 are all alike with noise 0"):
        usage_of({**card, "settings": {**card["settings"], "noise": 0}}, {"samples": 4})


def test_a_study_draws_what_the_card_says_or_several_where_samples_differ(
    folders: tuple[Path, Path], refined: Path, tmp_path: Path
) -> None:
    assert sampling_of(folders[0], None) == {}
    assert sampling_of(refined, None) == sampling_of(folders[1], None) == {"samples": 4}
    assert sampling_of(refined, 1) == {"samples": 1}
    told = tmp_path / "told"
    shutil.copytree(refined, told)
    write_json(told / "model.json", load_card(refined) | {"sampling": {"samples": 3, "steps": 2}})
    assert sampling_of(told, None) == {"samples": 3}
    write_json(told / "model.json", load_card(refined) | {"sampling": {"steps": 2}})
    assert sampling_of(told, None) == {"samples": 1}
    shutil.copytree(folders[1], tmp_path / "silent")
    card = load_card(folders[1])
    write_json(tmp_path / "silent/model.json", card | {"settings": card["settings"] | {"noise": 0}})
    assert sampling_of(tmp_path / "silent", None) == {}, "all samples would be the same"


def test_a_card_may_say_how_its_samples_are_drawn(refined: Path) -> None:
    """What a user says comes before it, key by key."""
    card = load_card(refined) | {"sampling": {"steps": 2, "samples": 3}}
    assert usage_of(card, {})["sampling"]["samples"] == 3
    other = usage_of(card, {"steps": 5})["sampling"]
    assert (other["steps"], other["samples"]) == (5, 3)
    assert usage_of(load_card(refined), {})["sampling"]["samples"] == 1
    noisy = load_card(refined) | {"sampling": {"sampler": "ddim", "eta": 0.5}}
    assert usage_of(noisy, {"sampler": "ancestral"})["sampling"]["eta"] == 0, "it was of the card's sampler"
    assert usage_of(noisy, {"sampler": "ddim"})["sampling"]["eta"] == 0.5
