"""Algorithm 1 against its naive loops, thresholds by hand, percent everywhere, guards that say why."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from models.clip import UNKNOWN, ClipBatch, Condition
from models.critics import segmenter, vae
from models.generators import Checkpoint
from tasks.filters import Evidence, agreement, rejection, similarity, vae_seq
from tasks.records import Decision

LATENTS = (3, 2, 2, 2)  # frames, channels, height, width


def naive_similarity(first: np.ndarray, second: np.ndarray) -> float:
    """Algorithm 1's similarity of two clips, frame by frame, percent."""
    cosines = []
    for one, other in zip(first, second, strict=True):
        a, b = one.ravel().astype(np.float64), other.ravel().astype(np.float64)
        cosines.append(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
    return 100 * sum(cosines) / len(cosines)


def naive_kept(latents: np.ndarray, groups: Sequence[str], threshold: float) -> tuple[list[int], float]:
    """Algorithm 1, stage 3, as double loop; also how near any pair came to the threshold."""
    kept: list[int] = []
    nearest = math.inf
    for number, clip in enumerate(latents):
        values = [naive_similarity(clip, latents[other]) for other in kept if groups[other] == groups[number]]
        nearest = min([nearest, *(abs(value - threshold) for value in values)])
        if all(value < threshold for value in values):
            kept.append(number)
    return kept, nearest


def similarity_filter(threshold: float = 98.0, scope: str = "group") -> similarity.Similarity:
    params = similarity.Params.model_validate({"critic": "vae", "threshold": threshold, "scope": scope})
    return similarity.build(params, Checkpoint("vae", {}, {}, {}, {}))


def evidence(values: Tensor, groups: Sequence[str] | None = None) -> Evidence:
    ids = tuple(f"clip{number}" for number in range(len(values)))
    return Evidence(ids, tuple(groups or ["one"] * len(values)), values)


def kept(decisions: Sequence[Decision]) -> list[str]:
    return [one.clip_id for one in decisions if one.keep]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 24), names=st.integers(1, 4),
       threshold=st.sampled_from([20.0, 60.0, 98.0]), scope=st.sampled_from(["group", "all"]))
def test_the_kept_set_is_that_of_the_naive_loops(seed: int, count: int, names: int, threshold: float, scope: str) -> None:
    rng = np.random.default_rng(seed)
    latents = rng.normal(size=(count, *LATENTS))
    for number in range(1, count):
        if rng.random() < 0.5:  # a planted near-duplicate, at random strength
            latents[number] = latents[rng.integers(number)] + rng.choice([0.01, 0.1, 0.5]) * rng.normal(size=LATENTS)
    groups = [f"condition{name}" for name in rng.integers(0, names, count)]
    expected, nearest = naive_kept(latents, groups if scope == "group" else ["one"] * count, threshold)
    assume(nearest > 1e-3)
    table = evidence(similarity.embed(torch.tensor(latents)), groups)
    decisions = similarity_filter(threshold, scope).decide(table, table.ids)
    assert [one.clip_id for one in decisions] == list(table.ids)
    assert kept(decisions) == [f"clip{number}" for number in expected]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 20), block=st.integers(1, 7))
def test_blocks_change_nothing(seed: int, count: int, block: int) -> None:
    rng = np.random.default_rng(seed)
    latents = rng.normal(size=(count, *LATENTS)) + rng.choice([0.0, 1.0], size=(count, 1, 1, 1, 1))
    expected, nearest = naive_kept(latents, ["one"] * count, 50.0)
    assume(nearest > 1e-3)
    alive, highest = similarity.greedy(similarity.embed(torch.tensor(latents)), 50.0, block)
    assert alive.nonzero().flatten().tolist() == expected
    for number in range(1, count):
        before = [naive_similarity(latents[number], latents[other]) for other in expected if other < number]
        assert float(highest[number]) == pytest.approx(max(before), abs=1e-3)


def test_similarity_is_in_percent() -> None:
    """The released filter compares a cosine with 98 and never drops anything: a copy must go, a stranger must stay."""
    first = torch.randn(1, *LATENTS, generator=torch.Generator().manual_seed(0))
    stranger = torch.randn(1, *LATENTS, generator=torch.Generator().manual_seed(1))
    table = evidence(similarity.embed(torch.cat([first, 3 * first, stranger])))
    one, copy, other = similarity_filter().decide(table, table.ids)
    assert (one.keep, copy.keep, other.keep) == (True, False, True)
    assert one.score == 0 and copy.score == pytest.approx(100, abs=1e-3)
    assert other.score == pytest.approx(naive_similarity(first[0].numpy(), stranger[0].numpy()), abs=1e-3)
    assert copy.threshold == "< 98" and copy.reason == "100.00 % like a clip kept before"


def test_a_dropped_clip_drops_no_other() -> None:
    """B is like A and C is like B but not like A: A goes before the filter or not, and that decides on B and C."""
    angle = torch.tensor([0.0, 9.0, 18.0]).deg2rad()
    table = evidence(torch.stack([angle.cos(), angle.sin()], 1))  # neighbours 98.8 %, the ends 95.1 %
    assert kept(similarity_filter().decide(table, table.ids)) == ["clip0", "clip2"]
    assert kept(similarity_filter().decide(table, ["clip1", "clip2"])) == ["clip1"]


def test_copies_under_other_conditions_are_a_question_of_scope() -> None:
    latents = torch.ones(2, *LATENTS)
    table = evidence(similarity.embed(latents), ["one", "two"])
    assert kept(similarity_filter(scope="group").decide(table, table.ids)) == ["clip0", "clip1"]
    assert kept(similarity_filter(scope="all").decide(table, table.ids)) == ["clip0"]


def test_vae_seq_is_the_naive_loop() -> None:
    latents = torch.randn(5, 6, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    expected = [np.mean([naive_similarity(clip[t : t + 1], clip[t + 1 : t + 2]) for t in range(5)]) for clip in latents.numpy()]
    np.testing.assert_allclose(vae.vae_seq(latents).numpy(), expected, atol=1e-4)


def test_vae_seq_in_closed_form() -> None:
    still = torch.ones(1, 4, 1, 1, 2)
    turning = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]).view(1, 4, 1, 1, 2)
    flipping = torch.tensor([1.0, -1.0, 1.0, -1.0]).view(1, 4, 1, 1, 1).expand(1, 4, 1, 1, 2)
    half = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]).view(1, 3, 1, 1, 2)
    values = [float(vae.vae_seq(clip)) for clip in (still, turning, flipping, half)]
    assert values == pytest.approx([100, 0, -100, 50], abs=1e-4)


FOUR = [10.0, 12.0, 14.0, 50.0, 51.0, 52.0, 70.0, 72.0, 95.0, 96.0, 97.0]  # centroids 12, 51, 71, 96


def vae_seq_filter(real: Sequence[float] = (), **changes: object) -> vae_seq.VaeSeq:
    critic = Checkpoint("vae", {}, {}, {"vae_seq": real}, {})
    return vae_seq.build(vae_seq.Params.model_validate({"critic": "vae", **changes}), critic)


@settings(max_examples=20, deadline=None)
@given(st.permutations(FOUR))
def test_thresholds_are_midpoints_of_the_outer_centroids(values: list[float]) -> None:
    assert vae_seq.band(np.array(values)) == pytest.approx(((12 + 51) / 2, (71 + 96) / 2))


def test_the_outer_clusters_go_and_thresholds_come_from_all_clips() -> None:
    table = evidence(torch.tensor(FOUR))
    decisions = vae_seq_filter().decide(table, table.ids)
    assert kept(decisions) == [f"clip{number}" for number in range(3, 8)]
    assert {one.threshold for one in decisions} == {"31.500 .. 83.500"}
    assert decisions[0].reason == "frames change too much: 10.000 below 31.500"
    assert decisions[-1].reason == "frames hardly change: 97.000 above 83.500"
    few = vae_seq_filter().decide(table, ["clip9", "clip4"])
    assert [(one.clip_id, one.keep, one.threshold) for one in few] == [
        ("clip9", False, "31.500 .. 83.500"), ("clip4", True, "31.500 .. 83.500"),
    ]  # fmt: skip


def test_a_band_of_real_clips_does_not_care_what_else_is_in_the_set() -> None:
    real = np.linspace(80, 90, 101)  # 95 % of them lie from 80.25 to 89.75
    chain = vae_seq_filter(real.tolist(), rule="real")
    good, flickering = [80.5, 84.0, 85.0, 86.0, 89.5], [10.0, 12.0, 35.0, 37.0, 60.0, 62.0]
    table = evidence(torch.tensor([*good, 99.9, *flickering]))
    assert kept(chain.decide(table, table.ids)) == [f"clip{number}" for number in range(5)]
    assert {one.threshold for one in chain.decide(table, table.ids)} == {"80.250 .. 89.750"}
    assert not {f"clip{number}" for number in range(5)} & set(kept(vae_seq_filter().decide(table, table.ids)))


def test_four_clips_are_enough() -> None:
    table = evidence(torch.tensor([0.0, 2.0, 4.0, 6.0]))  # each its own centroid
    decisions = vae_seq_filter().decide(table, table.ids)
    assert kept(decisions) == ["clip1", "clip2"] and decisions[0].threshold == "1.000 .. 5.000"


@pytest.mark.parametrize("values", [[50.0], [10.0, 50.0, 90.0], [70.0] * 9, [70.0, 70.00001, 70.00002, 70.00003, 70.00004]])
def test_with_nothing_to_cluster_all_are_kept_and_told_why(values: list[float]) -> None:
    table = evidence(torch.tensor(values))
    decisions = vae_seq_filter().decide(table, table.ids)
    assert kept(decisions) == list(table.ids)
    assert {one.threshold for one in decisions} == {"none"}
    assert {one.reason for one in decisions} == {"kept: fewer than 4 distinct values, nothing to cluster"}


def test_thresholds_do_not_change_from_call_to_call() -> None:
    """With four threads scikit-learn's own centroids differ in the last bits every few calls."""
    values = 80 + 5 * np.random.default_rng(0).normal(size=5000)
    with threadpool_limits(4):
        assert len({vae_seq.band(values) for _ in range(10)}) == 1


def batch(frames: Tensor, masks: Tensor) -> ClipBatch:
    ids = tuple(f"clip{number}" for number in range(len(frames)))
    return ClipBatch(ids, frames, Condition(ids, masks))


def untrained_vae() -> Checkpoint:
    torch.manual_seed(0)
    net = AutoencoderKL(block_out_channels=(4, 8), norm_num_groups=2, in_channels=1, out_channels=1,
                        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2)
    return Checkpoint("vae", {}, {"vae": net.eval()}, {}, {})


def test_both_latent_filters_look_through_their_vae() -> None:
    rng = torch.Generator().manual_seed(0)
    frames = torch.rand(3, 4, 1, 8, 8, generator=rng) * 2 - 1
    frames[1] = frames[0]
    frames[2] = frames[2, :1]  # a still
    clips = batch(frames, torch.zeros(3, 4, 8, 8, dtype=torch.uint8))
    seq = vae_seq.build(vae_seq.Params(critic="vae"), untrained_vae()).score(clips)
    assert seq.shape == (3,) and seq.dtype == torch.float32
    assert float(seq[2]) == pytest.approx(100, abs=1e-3) and float(seq[0]) < 99
    like = similarity.build(similarity.Params(critic="vae"), untrained_vae())
    values = like.score(clips)
    assert values.shape == (3, 4 * 4 * 4 * 4) and values.dtype == torch.float32
    torch.testing.assert_close(values.norm(dim=1), torch.ones(3))
    assert kept(like.decide(evidence(values), ["clip0", "clip1"])) == ["clip0"]
    with pytest.raises(ValueError, match="vae_seq compares consecutive frames"):
        vae_seq.build(vae_seq.Params(critic="vae"), untrained_vae()).score(batch(frames[:, :1], clips.condition.masks[:, :1]))


class Bright(nn.Module):
    """A segmenter one can check by eye: class 1 where a pixel is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(1.0))

    def forward(self, frames: Tensor) -> Tensor:
        return torch.cat([-frames, self.gain * frames], 2)


def agreement_filter(calibration: list[float], **changes: object) -> agreement.Agreement:
    critic = Checkpoint("segmenter", {}, {"segmenter": Bright()}, {"classes": 1, "calibration": calibration}, {})
    return agreement.build(agreement.Params.model_validate({"critic": "segmenter", **changes}), critic)


def test_agreement_is_dice_with_the_condition_mask() -> None:
    masks = torch.zeros(4, 2, 4, 4, dtype=torch.uint8)
    masks[:, :, :2] = 1  # 16 pixels a clip
    frames = (2.0 * masks - 1)[:, :, None].clone()
    frames[1, 1] = -1  # seen in one frame of two: 2 * 8 / (8 + 16)
    frames[2] = -frames[2]  # seen where it is not
    masks[3, 1] = UNKNOWN
    frames[3, 1] = 1  # what is seen there cannot be judged
    found = agreement_filter([0.5]).score(batch(frames, masks))
    torch.testing.assert_close(found, torch.tensor([1.0, 2 / 3, 0.0, 1.0]))
    assert torch.equal(found, segmenter.agreement(agreement_filter([0.5]).critic, frames, masks))


def test_the_bar_is_a_quantile_of_real_clips() -> None:
    calibration = [0.6, 0.9, 0.8, 0.7]
    table = evidence(torch.tensor([0.59, 0.61, 0.649, 0.651]))
    lowest = agreement_filter(calibration, quantile=0).decide(table, table.ids)
    assert kept(lowest) == ["clip1", "clip2", "clip3"] and lowest[0].threshold == ">= 0.600"
    assert kept(agreement_filter(calibration, quantile=0.5 / 3).decide(table, ["clip3", "clip2"])) == ["clip3"]
    assert lowest[0].reason == "a real-data segmenter finds the mask with Dice 0.590 only"


def test_a_segmenter_that_finds_nothing_drops_nothing_and_says_so() -> None:
    table = evidence(torch.tensor([0.0, 0.3]))
    decisions = agreement_filter([0.0, 0.0, 0.4]).decide(table, table.ids)
    assert kept(decisions) == ["clip0", "clip1"]
    assert all("the segmenter misses held-out real masks too" in one.reason for one in decisions)


class Says(nn.Module):
    """A classifier whose logits are the first pixels of the first frame."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))

    def forward(self, frames: Tensor) -> Tensor:
        return self.one * frames[:, 0, 0, 0, :3]


def rejection_filter(top_k: int) -> rejection.Rejection:
    critic = Checkpoint("classifier", {}, {"classifier": Says()}, {"labels": ["a", "b", "c"]}, {})
    return rejection.build(rejection.Params(critic="classifier", top_k=top_k), critic)


@pytest.mark.parametrize(("top_k", "keeps"), [(1, ["clip0", "clip3"]), (2, ["clip0", "clip1", "clip3", "clip4"])])
def test_rejection_keeps_what_shows_its_class_among_the_likeliest(top_k: int, keeps: list[str]) -> None:
    """By hand: ranks 1, 2, 3, and of two equally likely classes the first in order goes first."""
    frames = torch.zeros(5, 2, 1, 4, 4)
    frames[:3, :, 0, 0, :3] = torch.tensor([0.9, 0.5, 0.1])
    frames[3:, :, 0, 0, :3] = torch.tensor([0.5, 0.5, 0.1])
    ids = tuple(f"clip{number}" for number in range(5))
    masks = torch.zeros(5, 2, 4, 4, dtype=torch.uint8)
    one = rejection_filter(top_k)
    values = one.score(ClipBatch(ids, frames, Condition(ids, masks, ("a", "b", "c", "a", "b"))))
    assert values.tolist() == [1, 2, 3, 1, 2]
    decisions = one.decide(evidence(values.float()), list(ids))
    assert kept(decisions) == keeps
    assert decisions[0].reason == "its class is the likeliest" and decisions[2].reason == "its class is number 3 by likelihood"
    assert decisions[0].threshold == f"<= {top_k}"


def test_a_k_that_rejects_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"top_k: 3 of 3 classes \(a, b, c\) rejects nothing; take at most 2"):
        rejection_filter(3)
