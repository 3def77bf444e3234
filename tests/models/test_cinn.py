"""cINN, tiny but whole: the flow is exact both ways, its latent is LDDM's, stills stay, seeds decide, training resumes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_ctrl_genaug import FRAMES, SIDE, asked, clips
from test_lddm import tiny as tiny_lddm
from test_trainer import KilledError, Memory
from torch import Tensor, nn

from models.generators import Checkpoint, lddm
from models.generators.cinn import Cinn, Params, Sampling, build
from models.nets.latent_flow import LatentFlow
from models.seeding import generator
from models.trainer import TrainParams, TrainState, fit
from tasks.checkpoints import load_checkpoint, save_checkpoint

STEPS = {"steps": 4, "batch_size": 2, "save_every": 2}


def tiny(latent: str = "grid", **autoencoder: Any) -> Params:
    return Params.model_validate({
        "autoencoder": {"latent": latent, "width": 8, "features": 8, "train": STEPS, **autoencoder},
        "flow": {"couplings": 3, "width": 16, "context": 16, "train": STEPS}})


def shake(net: nn.Module, size: float) -> None:
    """So that the zero-initialised parts speak too."""
    rng = generator(0)
    for parameter in net.parameters():
        parameter.data += size * torch.randn(parameter.shape, generator=rng)


@pytest.fixture(scope="module", params=["grid", "vector"])
def checkpoint(request: pytest.FixtureRequest) -> Checkpoint:
    made = build(tiny(request.param)).fit(clips(), Memory(), seed=0)
    for net in made.nets.values():
        shake(net, 0.05)
    return made


def again(checkpoint: Checkpoint) -> Cinn:
    return build(Params.model_validate(checkpoint.params), checkpoint)


def flow(latent: int) -> LatentFlow:
    torch.manual_seed(0)
    net = LatentFlow(latent, context=16, couplings=4, width=16).eval()
    shake(net, 0.3)
    return net


@pytest.mark.parametrize("latent", [1, 2, 33])
def test_noise_and_latents_are_one_to_one(latent: int) -> None:
    net, rng = flow(latent), generator(1)
    latents, first = torch.randn(5, latent, generator=rng), torch.rand(5, 1, 20, 24, generator=rng)
    noise = net.to_noise(latents, first)
    assert (noise - latents).abs().max() > 0.1
    torch.testing.assert_close(net.from_noise(noise, first), latents, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(net.to_noise(net.from_noise(latents, first), first), latents, atol=1e-4, rtol=1e-4)
    assert (net.to_noise(latents, first.flip(0)) - noise)[0].abs().max() > 1e-3  # of what the first frame shows


def test_log_density_is_the_change_of_variables() -> None:
    net, rng = flow(3).double(), generator(1)
    latent, first = torch.randn(1, 3, generator=rng).double(), torch.rand(1, 1, 16, 16, generator=rng).double()
    by = 1e-5
    columns = [(net.to_noise(latent + by * unit, first) - net.to_noise(latent - by * unit, first))[0] / (2 * by)
               for unit in torch.eye(3).double()]
    noise = net.to_noise(latent, first)
    wanted = -noise.square().sum() / 2 - 1.5 * math.log(2 * math.pi) + torch.stack(columns, 1).det().abs().log()
    torch.testing.assert_close(net(latent, first)[0], wanted, atol=1e-6, rtol=1e-6)


def test_untrained_it_is_the_standard_normal() -> None:
    net, latents, first = LatentFlow(6), torch.randn(4, 6, generator=generator(0)), torch.rand(4, 1, 16, 16)
    torch.testing.assert_close(net(latents, first), torch.distributions.Normal(0, 1).log_prob(latents).sum(1))


def test_a_conditional_gaussian_is_learned() -> None:
    """The side that the bright half is on decides mean and spread, and one number of the latent follows the other."""
    means, stds, tied = torch.tensor([[1.0, -0.5], [-1.0, 0.5]]), torch.tensor([0.3, 0.8]), 0.8
    stills = torch.full((2, 1, 16, 16), -1.0)
    stills[0, ..., :8], stills[1, ..., 8:] = 1, 1

    def draw(sides: Tensor, rng: torch.Generator) -> Tensor:
        one, other = torch.randn(2, len(sides), generator=rng)
        both = torch.stack([one, tied * one + math.sqrt(1 - tied**2) * other], 1)
        return means[sides] + stds[sides, None] * both

    def loss(net: nn.Module, rng: torch.Generator) -> Tensor:
        sides = torch.randint(2, (128,), generator=rng)
        return -net(draw(sides, rng), stills[sides]).mean() / 2

    torch.manual_seed(0)
    net = LatentFlow(2, context=16, couplings=4, width=32)
    params = TrainParams(steps=250, batch_size=128, learning_rate=5e-3, cosine=True, ema_decay=0.95)
    losses = fit(net, loss, params, phase="flow", seed=0, hook=Memory())
    entropy = sum(math.log(std) + 0.5 * math.log(2 * math.pi * math.e) + 0.25 * math.log(1 - tied**2) for std in stds) / 2
    assert sum(losses[-50:]) / 50 == pytest.approx(entropy, abs=0.05)  # no density has less
    with torch.no_grad():
        for side in (0, 1):
            noise = torch.randn(4000, 2, generator=generator(side))
            found = net.from_noise(noise, stills[[side]].expand(4000, -1, -1, -1))
            torch.testing.assert_close(found.mean(0), means[side], atol=0.06, rtol=0)
            torch.testing.assert_close(found.std(0), stds[side].expand(2), atol=0, rtol=0.1)
            assert torch.corrcoef(found.T)[0, 1] == pytest.approx(tied, abs=0.05)


def test_the_still_is_frame_0_and_seeds_give_motions(checkpoint: Checkpoint) -> None:
    made, sampling, still = again(checkpoint), Sampling(), asked([2, 2, 5])
    found = made.sample(still, [1, 2, 1], sampling).frames
    assert still.reference is not None and torch.equal(found[:, 0], still.reference[:, 0])
    assert found.shape == (3, FRAMES, 1, SIDE, SIDE) and found.abs().max() <= 1
    assert (found[0] - found[1]).abs().max() > 1e-2
    alone = made.sample(asked([5]), [1], sampling).frames  # of its own still and seed, whatever is beside it
    torch.testing.assert_close(alone[0], found[2], atol=1e-3, rtol=0)  # instance norms of few places enlarge rounding
    assert torch.equal(made.sample(still, [1, 2, 1], sampling).frames, found)


def test_temperature_scales_the_noise(checkpoint: Checkpoint) -> None:
    made, still = again(checkpoint), asked([2, 2])
    cold = made.sample(still, [1, 2], Sampling(temperature=0)).frames
    torch.testing.assert_close(cold[0], cold[1])  # one motion, whatever the seed
    assert still.reference is not None
    first, dynamics, size = still.reference[:1, 0], made.dynamics, math.prod(made.dynamics.latent_shape)
    noise = 0.5 * torch.randn(1, size, generator=generator(7))
    with torch.no_grad():
        latent = checkpoint.nets["flow"].from_noise(noise, first).view(1, *dynamics.latent_shape)  # type: ignore[operator]
    wanted = dynamics.decode(first, dynamics.restore(latent))
    torch.testing.assert_close(made.sample(asked([2]), [7], Sampling(temperature=0.5)).frames, wanted)


@pytest.mark.parametrize("latent", ["grid", "vector"])
def test_the_latent_is_that_of_lddm(latent: str) -> None:
    """Same seed, same parameters: the two differ in nothing but what draws the latent, whatever their own seeds are."""
    own, other_own = (params.model_copy(update={"autoencoder": params.autoencoder.model_copy(update={"seed": 3})})
                      for params in (tiny(latent), tiny_lddm(latent)))
    mine = build(own).fit(clips(), Memory(), seed=5)
    theirs = lddm.build(other_own).fit(clips(), Memory(), seed=6)
    for name in ("encoder", "decoder"):
        for key, value in mine.nets[name].state_dict().items():
            assert torch.equal(value, theirs.nets[name].state_dict()[key]), (name, key)
    assert mine.facts == theirs.facts and mine.losses["autoencoder"] == theirs.losses["autoencoder"]
    shown, other = clips().read([0, 1]).frames, lddm.build(tiny_lddm(latent), theirs)
    assert torch.equal(again(mine).reconstruct(shown), other.reconstruct(shown))
    assert torch.equal(again(mine).reconstruct(shown, generator(3)), other.reconstruct(shown, generator(3)))


def test_a_reconstruction_is_the_mean_or_drawn_from_the_posterior(checkpoint: Checkpoint) -> None:
    made, shown = again(checkpoint), clips().read([0, 1]).frames
    plain, drawn = made.reconstruct(shown), made.reconstruct(shown, generator(3))
    assert torch.equal(plain[:, 0], shown[:, 0]) and torch.equal(drawn[:, 0], shown[:, 0])
    assert torch.equal(made.reconstruct(shown), plain) and torch.equal(made.reconstruct(shown, generator(3)), drawn)
    assert not torch.allclose(plain, drawn)
    many = shown[:1].expand(400, -1, -1, -1, -1)
    latents = made.dynamics.encode(many, generator(3))
    with torch.no_grad():
        mean, log_variance = checkpoint.nets["encoder"](many[:1])
    spread = (0.5 * log_variance[0]).exp()
    torch.testing.assert_close((latents.mean(0) - mean[0]) / spread, torch.zeros_like(spread), atol=0.25, rtol=0)
    torch.testing.assert_close(latents.std(0), spread, atol=0, rtol=0.2)


@pytest.mark.parametrize("dies_in", ["autoencoder", "flow"])
def test_a_killed_training_ends_with_the_same_weights(dies_in: str) -> None:
    class Deadly(Memory):
        """Dies after the first save of one phase."""

        def save(self, phase: str, state: TrainState) -> None:
            super().save(phase, state)
            if phase == dies_in:
                raise KilledError

    params, states = tiny(), Deadly()
    whole = build(params).fit(clips(), Memory(), seed=3)
    assert list(whole.losses) == ["autoencoder", "flow"]
    with pytest.raises(KilledError):
        build(params).fit(clips(), states, seed=3)
    states.__class__ = Memory
    resumed = build(params).fit(clips(), states, seed=3)
    assert resumed.losses == whole.losses
    for name, net in whole.nets.items():
        for key, value in net.state_dict().items():
            assert torch.equal(value, resumed.nets[name].state_dict()[key]), (name, key)


def test_a_saved_checkpoint_samples_the_same(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint, fingerprint="f", trained_on={})
    loaded = load_checkpoint(tmp_path)
    assert loaded.params == checkpoint.params and loaded.facts == checkpoint.facts
    wanted = again(checkpoint).sample(asked([0, 1]), [1, 2], Sampling()).frames
    assert torch.equal(again(loaded).sample(asked([0, 1]), [1, 2], Sampling()).frames, wanted)


@pytest.mark.parametrize(("change", "message"), [
    ({"reference": None}, "this generator animates stills, but the conditions have none"),
    ({"reference": torch.zeros(1, FRAMES, 1, SIDE + 2, SIDE)}, r"stills have shape \[1, 18, 16\], but the checkpoint"),
])
def test_what_cannot_be_animated_is_refused(checkpoint: Checkpoint, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        again(checkpoint).sample(replace(asked([0]), **change), [1], Sampling())
    with pytest.raises(ValueError, match="1 conditions, but 2 seeds"):
        again(checkpoint).sample(asked([0]), [1, 2], Sampling())
