"""LDDM, tiny but whole: stills stay, seeds decide, both latents, both stages resume, and its parts are what they say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_ctrl_genaug import FRAMES, SIDE, asked, clips
from test_trainer import KilledError, Memory

from models.adversary import Adversary, AdversaryParams
from models.diffusion.latent_sampler import denoise_latents, latent_schedule
from models.generators import Checkpoint
from models.generators.lddm import Lddm, Params, Sampling, build
from models.nets.clip_autoencoder import AdaIN, ClipDecoder, ClipEncoder, latent_shape
from models.seeding import generator
from models.trainer import TrainState

STEPS = {"steps": 4, "batch_size": 2, "save_every": 2}


def tiny(latent: str = "grid", **autoencoder: Any) -> Params:
    return Params.model_validate({
        "autoencoder": {"latent": latent, "width": 8, "features": 8, "train": STEPS, **autoencoder},
        "denoiser": [16, 16] if latent == "grid" else [16, 2], "diffusion": STEPS})


def shaken(params: Params) -> Checkpoint:
    """Trained for a few steps, then shaken, so that the zero-initialised parts speak too."""
    made = build(params).fit(clips(), Memory(), seed=0)
    torch.manual_seed(0)
    for net in made.nets.values():
        for parameter in net.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    return made


@pytest.fixture(scope="module", params=["grid", "vector"])
def checkpoint(request: pytest.FixtureRequest) -> Checkpoint:
    return shaken(tiny(request.param))


def again(checkpoint: Checkpoint) -> Lddm:
    return build(Params.model_validate(checkpoint.params), checkpoint)


@pytest.mark.parametrize("solver", ["fast", "ddim", "ddpm"])
def test_the_still_is_frame_0_and_seeds_give_motions(checkpoint: Checkpoint, solver: Any) -> None:
    made, sampling = again(checkpoint), Sampling(steps=3, solver=solver)
    still = asked([2, 2, 5])
    found = made.sample(still, [1, 2, 1], sampling).frames
    assert still.reference is not None and torch.equal(found[:, 0], still.reference[:, 0])
    assert found.shape == (3, FRAMES, 1, SIDE, SIDE) and found.abs().max() <= 1
    assert (found[0] - found[1]).abs().max() > 1e-2
    alone = made.sample(asked([5]), [1], sampling).frames  # of its own still and seed, whatever is beside it
    torch.testing.assert_close(alone[0], found[2], atol=1e-3, rtol=0)  # instance norms of few places enlarge rounding
    torch.testing.assert_close(made.sample(still, [1, 2, 1], sampling).frames, found)


@pytest.mark.parametrize("latent", ["grid", "vector"])
@pytest.mark.parametrize("clip", [(4, 1, 16, 16), (5, 3, 20, 24), (9, 1, 32, 40)])
def test_shapes_of_latents_and_clips(latent: Any, clip: tuple[int, int, int, int]) -> None:
    frames, channels, height, width = clip
    encoder, decoder = ClipEncoder(channels, 8, latent, 6), ClipDecoder(channels, frames, height, width, 8, latent, 6)
    shown = torch.rand(2, *clip, generator=generator(0)) * 2 - 1
    mean, log_variance = encoder(shown)
    assert mean.shape[1:] == log_variance.shape[1:] == latent_shape(latent, 6, clip)
    found = decoder(shown[:, 0], mean)
    assert found.shape == shown.shape
    torch.testing.assert_close(found, shown[:, :1].expand_as(shown))  # untrained, it repeats the first frame
    plain = ClipDecoder(channels, frames, height, width, 8, latent, 6, residual=False)(shown[:, 0], mean)
    assert torch.equal(plain[:, 0], shown[:, 0]) and plain[:, 1:].std() > 1e-3 and plain.abs().max() <= 1


def test_adain_gives_every_channel_its_own_statistics() -> None:
    torch.manual_seed(0)
    layer = AdaIN(3, 5)
    x, vector = 4 * torch.randn(2, 3, 4, 6, 6) + 7, torch.randn(2, 5)
    plain = layer(x, vector)
    torch.testing.assert_close(plain.mean((2, 3, 4)), torch.zeros(2, 3), atol=1e-5, rtol=0)
    torch.nn.init.normal_(layer.style.weight)
    scale, shift = layer.style(vector).chunk(2, 1)
    styled = layer(x, vector)
    torch.testing.assert_close(styled.mean((2, 3, 4)), shift, atol=1e-4, rtol=0)
    torch.testing.assert_close(styled.std((2, 3, 4), correction=0), (1 + scale).abs(), atol=1e-3, rtol=1e-3)


def test_latents_are_standardised_on_the_training_clips(checkpoint: Checkpoint) -> None:
    fresh = build(Params.model_validate(checkpoint.params)).fit(clips(), Memory(), seed=0)
    dynamics = again(fresh).dynamics
    latents = dynamics.encode(clips().read(range(len(clips()))).frames)
    flat = dynamics.standardise(latents).transpose(0, 1).flatten(1)
    torch.testing.assert_close(dynamics.restore(dynamics.standardise(latents)), latents)
    torch.testing.assert_close(flat.mean(1), torch.zeros(len(flat)), atol=1e-4, rtol=0)
    torch.testing.assert_close(flat.std(1, correction=0), torch.ones(len(flat)), atol=1e-3, rtol=0)


@pytest.mark.parametrize("dies_in", ["autoencoder", "adversarial", "diffusion"])
def test_a_killed_training_ends_with_the_same_weights(dies_in: str) -> None:
    class Deadly(Memory):
        """Dies after the first save of one phase."""

        def save(self, phase: str, state: TrainState) -> None:
            super().save(phase, state)
            if phase == dies_in:
                raise KilledError

    params, states = tiny(adversary={"channels": 4, "levels": 1, "train": STEPS}), Deadly()
    whole = build(params).fit(clips(), Memory(), seed=3)
    assert list(whole.losses) == ["autoencoder", "adversarial", "diffusion"]
    with pytest.raises(KilledError):
        build(params).fit(clips(), states, seed=3)
    states.__class__ = Memory
    resumed = build(params).fit(clips(), states, seed=3)
    assert resumed.losses == whole.losses
    for name, net in whole.nets.items():
        for key, value in net.state_dict().items():
            assert torch.equal(value, resumed.nets[name].state_dict()[key]), (name, key)


def test_neither_side_of_the_adversary_moves_the_other() -> None:
    """The autoencoder's gradient is that of its terms, the discriminators' that of theirs, as two optimisers would have it."""
    torch.manual_seed(0)
    params = AdversaryParams.model_validate({"channels": 4, "levels": 1, "feature_weight": 0, "penalty": 0, "train": STEPS})
    adversary = Adversary(params, 1)
    real, found = torch.randn(2, 3, 1, 16, 16), torch.randn(2, 3, 1, 16, 16, requires_grad=True)
    adversary(real, found).backward()
    volumes, frames = (lambda clip: clip.transpose(1, 2)), (lambda clip: clip.flatten(0, 1))
    wanted = sum(-params.weight * net(see(found))[-1].mean() for net, see in ((adversary.clips, volumes),
                                                                              (adversary.frames, frames)))
    assert isinstance(wanted, torch.Tensor) and found.grad is not None
    torch.testing.assert_close(torch.autograd.grad(wanted, found)[0], found.grad)
    for net, see in ((adversary.clips, volumes), (adversary.frames, frames)):
        own = ((1 - net(see(real))[-1]).relu().mean() + (1 + net(see(found.detach()))[-1]).relu().mean()) / 2
        for gradient, parameter in zip(torch.autograd.grad(own, list(net.parameters())), net.parameters(), strict=True):
            assert parameter.grad is not None
            torch.testing.assert_close(gradient, parameter.grad, atol=1e-6, rtol=1e-4)


def test_ddpm_draws_from_a_gaussian_what_ddim_maps_to_one() -> None:
    """Exact for a Gaussian: the network is its posterior mean, so both solvers end with its mean and spread."""
    schedule = latent_schedule("linear", "epsilon")
    mean, std, count = 0.7, 0.4, 4000
    rng = generator(0)

    def predict(x: torch.Tensor, t: torch.Tensor, guided: bool) -> tuple[torch.Tensor, None]:
        alpha = schedule.alphas_cumprod[int(t[0])]
        spread = alpha * std**2 + 1 - alpha
        return (x - alpha.sqrt() * mean) * (1 - alpha).sqrt() / spread, None

    def draw() -> torch.Tensor:
        return torch.randn(count, 1, generator=rng)

    for fresh in (None, draw):
        found = denoise_latents(predict, schedule, draw(), solver="ddim", steps=250, guidance=1, interval=(0, 1), draw=fresh)
        assert found.mean() == pytest.approx(mean, abs=0.03) and found.std() == pytest.approx(std, abs=0.03)
    again = [denoise_latents(predict, schedule, torch.ones(3, 1), solver="ddim", steps=20, guidance=1, interval=(0, 1),
                             draw=lambda: torch.randn(3, 1, generator=rng)) for _ in range(2)]
    assert not torch.allclose(*again, atol=1e-2)


@pytest.mark.parametrize(("change", "message"), [
    ({"reference": None}, "this generator animates stills, but the conditions have none"),
    ({"reference": torch.zeros(1, FRAMES, 1, SIDE + 2, SIDE)}, r"stills have shape \[1, 18, 16\], but the checkpoint"),
])
def test_what_cannot_be_animated_is_refused(checkpoint: Checkpoint, change: dict[str, Any], message: str) -> None:
    from dataclasses import replace

    with pytest.raises(ValueError, match=message):
        again(checkpoint).sample(replace(asked([0]), **change), [1], Sampling())
    with pytest.raises(ValueError, match="1 conditions, but 2 seeds"):
        again(checkpoint).sample(asked([0]), [1, 2], Sampling())
