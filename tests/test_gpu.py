"""What a GPU does is what the CPU does, but for rounding: `make test-gpu`. Other tests run on the CPU, whose bits repeat."""

from __future__ import annotations

import copy

import pytest
import torch
from test_i3d import lively
from test_trainer import Memory
from tiny_generators import TINY, batch, sampled, trained

from models.classifiers import Classifier
from models.critics import segmenter, vae
from models.features import FeatureExtractor, classifier, random3d
from models.features import vae as vae_features
from models.generators import Checkpoint
from models.nets.i3d import for_inference
from models.segmenters import Segmenter
from models.trainer import TrainState
from tasks.devices import first_device
from tasks.filters.similarity import embed, greedy

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is visible")]
GPU = "cuda:0"


@pytest.fixture(scope="module", params=list(TINY))
def checkpoint(request: pytest.FixtureRequest) -> Checkpoint:
    """Trained on the GPU; its networks moved to the CPU, as a checkpoint that was saved and loaded has them."""
    made = trained(request.param)
    for net in made.nets.values():
        net.cpu()
    return made


def on_gpu(made: Checkpoint) -> Checkpoint:
    return Checkpoint(made.kind, made.params, copy.deepcopy(made.nets), made.facts, made.losses)


def test_clips_are_those_of_the_cpu(checkpoint: Checkpoint) -> None:
    there, here = sampled(on_gpu(checkpoint), GPU), sampled(checkpoint)
    assert there.device.type == "cpu" and there.dtype == torch.float32
    assert (there - here).abs().mean() < 0.02 * here.std()  # convolutions of a GPU round to TF32


def test_half_precision_is_near(checkpoint: Checkpoint) -> None:
    whole = sampled(on_gpu(checkpoint), GPU)
    with torch.autocast("cuda", torch.bfloat16):
        half = sampled(on_gpu(checkpoint), GPU)
    assert half.dtype == torch.float32 and (half - whole).abs().mean() < 0.05 * whole.std()


@pytest.mark.parametrize("checkpoint", ["sfvd", "lvdm"], indirect=True)
def test_compiled_networks_give_the_same_clips(checkpoint: Checkpoint) -> None:
    compiled = on_gpu(checkpoint)
    for net in compiled.nets.values():
        net.compile()
    whole = sampled(on_gpu(checkpoint), GPU)
    assert (sampled(compiled, GPU) - whole).abs().mean() < 0.02 * whole.std()


class Killed(Memory):
    """Remembers what was saved, and dies at the third save."""

    def save(self, phase: str, state: TrainState) -> None:
        super().save(phase, state)
        if len(self.steps) == 3:
            raise KeyboardInterrupt


def test_a_killed_training_goes_on() -> None:
    """On a GPU sums are added in any order, so losses agree to rounding."""
    hook = Killed()
    with pytest.raises(KeyboardInterrupt):
        trained("sfvd", hook)
    hook.__class__ = Memory
    resumed, whole = trained("sfvd", hook), trained("sfvd")
    for phase, losses in whole.losses.items():
        assert resumed.losses[phase] == pytest.approx(losses, rel=0.02)


def extractors() -> list[FeatureExtractor]:
    torch.manual_seed(0)
    net = Classifier("c3d", 1, 2, 4, 4).eval()
    judge = Checkpoint("classifier", {"network": "c3d"}, {"classifier": net}, {"labels": ["a", "b"]}, {})
    return [random3d.build(random3d.Params(), None), classifier.build(classifier.Params(critic="judge"), judge),
            vae_features.build(vae_features.Params(critic="eyes"), trained("lvdm"))]


def test_extractors_see_the_same() -> None:
    assert first_device() == GPU
    frames = batch().frames
    for look in extractors():
        here = look.cpu()(frames)
        there = look.to(GPU)(frames.to(GPU))
        assert there.is_cuda
        torch.testing.assert_close(there.cpu(), here, rtol=0.02, atol=0.02 * float(here.abs().max()))


def test_i3d_folds_to_the_same_on_a_gpu() -> None:
    net = lively(400, spread=1e-2).eval()
    clips = torch.rand(2, 3, 16, 224, 224) * 2 - 1
    with torch.no_grad():
        here, there = net(clips), for_inference(copy.deepcopy(net)).to(GPU)(clips.to(GPU)).cpu()
    torch.testing.assert_close(there, here, rtol=0.01, atol=0.01 * float(here.abs().max()))


def test_critics_look_where_they_are() -> None:
    own, net = batch(), Segmenter("dynunet", 2, 1, 1, [4, 8, 8]).to(GPU)
    found = segmenter.agreement(Checkpoint("segmenter", {}, {"segmenter": net}, {"classes": 1}, {}), own.frames,
                                own.condition.masks)
    assert found.shape == (len(own),) and found.device.type == "cpu"
    codec = Checkpoint("vae", {}, {"vae": trained("lvdm").nets["vae"].cpu()}, {}, {})
    here = vae.latents(codec, own.frames)
    codec.nets["vae"].to(GPU)
    there = vae.latents(codec, own.frames)
    assert there.device.type == "cpu"
    torch.testing.assert_close(there, here, rtol=0.02, atol=0.02 * float(here.abs().max()))


@pytest.mark.parametrize("count", [1, 700, 1500])
def test_the_similarity_filter_keeps_the_same(count: int) -> None:
    rng = torch.Generator().manual_seed(count)
    latents = torch.randn(count, 4, 4, 6, 6, generator=rng)
    for number in range(3, count, 3):
        latents[number] = latents[number // 2] + 0.05 * torch.randn(4, 4, 6, 6, generator=rng)
    vectors = embed(latents)
    kept, highest = greedy(vectors, 98.0)
    there = greedy(vectors.to(GPU), 98.0)
    assert torch.equal(there[0], kept) and there[1].device.type == "cpu"
    torch.testing.assert_close(there[1], highest, rtol=0, atol=1e-3)
