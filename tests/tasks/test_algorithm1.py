"""The whole filter of Ctrl-GenAug against a naive transcription of Algorithm 1, on random numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from torch.nn import functional

from models.classifiers import Classifier
from models.clip import UNKNOWN, ClipBatch, Condition
from models.critics import vae
from models.generators import Checkpoint
from tasks.filters import Evidence, Filter, semantic, similarity, vae_seq

NOTHING = Checkpoint("none", {}, {}, {}, {})


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a.ravel() @ b.ravel() / np.linalg.norm(a) / np.linalg.norm(b))


def algorithm1(losses: np.ndarray, latents: np.ndarray, groups: Sequence[int], alpha: float,
               threshold: float) -> tuple[list[int], float]:
    """The paper's pseudo-code, loop by loop; and how near any comparison came to its bar (rounding may then decide)."""
    nearest = np.inf
    first = []
    for clip in range(len(losses)):  # stage 1: within its group, against alpha times the mean loss
        own = [other for other in range(len(losses)) if groups[other] == groups[clip]]
        bar = alpha * np.mean([losses[other] for other in own])
        nearest = min(nearest, abs(losses[clip] - bar)) if len(own) > 1 else nearest
        if losses[clip] <= bar or len(own) == 1:
            first.append(clip)
    steadiness = [100 * np.mean([cosine(clip[t], clip[t + 1]) for t in range(len(clip) - 1)]) for clip in latents]
    centres = np.sort(KMeans(4, n_init=10, random_state=3407).fit(np.array(steadiness)[:, None]).cluster_centers_.ravel())
    low, high = (centres[0] + centres[1]) / 2, (centres[2] + centres[3]) / 2  # stage 2: thresholds from all clips
    second = [clip for clip in first if low <= steadiness[clip] <= high]
    nearest = min([nearest, *(abs(value - bar) for value in steadiness for bar in (low, high))])
    kept: list[int] = []
    for clip in second:  # stage 3: greedy in order, within the group
        likeness = [100 * np.mean([cosine(a, b) for a, b in zip(latents[clip], latents[other], strict=True)])
                    for other in kept if groups[other] == groups[clip]]
        nearest = min([nearest, *(abs(value - threshold) for value in likeness)])
        if all(value < threshold for value in likeness):
            kept.append(clip)
    return kept, nearest


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(6, 16), st.integers(1, 4), st.sampled_from([0.8, 1.0, 1.3]))
def test_the_chain_is_algorithm_1(seed: int, clips: int, conditions: int, alpha: float) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, conditions, clips).tolist()
    assume(alpha >= 1 or min(groups.count(one) for one in set(groups)) > 1)  # the paper keeps a group of one whatever alpha
    losses = rng.exponential(1, clips)
    # three prototypes, so that some clips nearly repeat; frames drift by different amounts, so that steadiness differs
    latents = rng.normal(size=(3, 1, 1, 2, 3, 3))[rng.integers(0, 3, clips), 0] + np.zeros((clips, 5, 2, 3, 3))
    latents = latents + rng.exponential(0.3, (clips, 1, 1, 1, 1)) * rng.normal(size=latents.shape)
    expected, nearest = algorithm1(losses, latents, groups, alpha, threshold=90)
    assume(nearest > 1e-3)
    values = torch.from_numpy(latents).float()
    chain: list[tuple[Filter, torch.Tensor]] = [
        (semantic.Semantic(semantic.Params(critic="c", alpha=alpha), NOTHING), torch.from_numpy(losses)),
        (vae_seq.VaeSeq(vae_seq.Params(critic="v"), NOTHING), vae.vae_seq(values)),
        (similarity.Similarity(similarity.Params(critic="v", threshold=90), NOTHING), similarity.embed(values)),
    ]
    ids = tuple(f"clip{number}" for number in range(clips))
    alive = list(ids)
    for one, scores in chain:
        decided = one.decide(Evidence(ids, tuple(map(str, groups)), scores), alive)
        alive = [decision.clip_id for decision in decided if decision.keep]
    assert alive == [ids[number] for number in expected]


def test_semantic_scores_are_the_cross_entropy_of_the_asked_class() -> None:
    torch.manual_seed(0)
    critic = Checkpoint("classifier", {}, {"classifier": Classifier("c3d", 1, 3, 4, 4).eval()}, {"labels": ["a", "b", "c"]}, {})
    frames = torch.rand(4, 4, 1, 16, 16) * 2 - 1
    masks = torch.full((4, 4, 16, 16), UNKNOWN, dtype=torch.uint8)
    ids = ("1", "2", "3", "4")
    batch = ClipBatch(ids, frames, Condition(ids, masks, ("c", "a", "b", "a")))
    with torch.no_grad():
        logits = critic.nets["classifier"](frames)
    wanted = functional.cross_entropy(logits, torch.tensor([2, 0, 1, 0]), reduction="none")
    one = semantic.build(semantic.Params(critic="c"), critic)
    torch.testing.assert_close(one.score(batch), wanted)
    with pytest.raises(ValueError, match="class 'd', but the classifier knows a, b, c"):
        one.score(ClipBatch(ids, frames, Condition(ids, masks, ("a", "d", "b", "a"))))


def test_equal_losses_and_lone_clips_stay() -> None:
    one = semantic.build(semantic.Params(critic="c"), NOTHING)
    evidence = Evidence(("1", "2", "3", "4"), ("x", "x", "x", "y"), torch.tensor([0.1, 0.1, 0.1, 9.0]))
    assert all(decision.keep for decision in one.decide(evidence, list(evidence.ids)))
