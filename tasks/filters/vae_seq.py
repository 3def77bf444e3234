"""VAE-Seq: drop the most jittery and the most frozen clips, by K-means over frame-to-frame latent similarity.

Ctrl-GenAug, Algorithm 1, stage 2. Higher is more static, so it is a band, not a score to maximise. K-means does not stand
outliers: a few clips that flicker strongly are a cluster of their own, and the band then drops every good clip (README). The
rule "real" takes the band from the real training clips instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits
from torch import Tensor

from models.clip import ClipBatch
from models.critics import vae
from models.generators import Checkpoint
from tasks.filters import Evidence
from tasks.records import Decision

CRITIC = "vae"


class Params(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    critic: str = Field(description="an entry of `critics` of kind vae")
    score_only: bool = Field(False, description="keep everything, record what would be dropped")
    rule: Literal["clusters", "real"] = Field("clusters", description="the paper's, or where the real training clips lie")
    clusters: int = Field(4, ge=3)
    seed: int = 3407
    coverage: float = Field(0.95, gt=0, lt=1, description="real: share of the real clips inside the band")


def build(params: Params, critic: Checkpoint) -> VaeSeq:
    return VaeSeq(params, critic)


def band(values: NDArray[np.float64], clusters: int = 4, seed: int = 3407) -> tuple[float, float] | None:
    """Lower and upper threshold: half-way between the two lowest and between the two highest sorted centroids.

    The released code takes these midpoints; the paper says "boundary thresholds" only. None when there is nothing to cluster:
    fewer distinct values than clusters, where values that differ by float32's rounding (1e-4 %) are one.
    """
    if len(np.unique(values.round(4))) < clusters:
        return None
    # threads add their sums in the order they end, so that more than one can change the last bits from run to run
    with threadpool_limits(1):
        fitted = KMeans(clusters, n_init=10, random_state=seed).fit(values[:, None])
    centres = np.sort(fitted.cluster_centers_[:, 0])
    return float(centres[:2].mean()), float(centres[-2:].mean())


class VaeSeq:
    """Keeps clips inside the band; the paper's thresholds come from all unfiltered clips, the other rule's from real ones."""

    def __init__(self, params: Params, critic: Checkpoint) -> None:
        self.params, self.critic = params, critic

    def score(self, clips: ClipBatch) -> Tensor:
        if clips.frames.shape[1] < 2:
            raise ValueError("vae_seq compares consecutive frames, but clips have one; take the filter out of `filters`")
        return vae.vae_seq(vae.latents(self.critic, clips.frames))

    def decide(self, evidence: Evidence, candidates: Sequence[str]) -> list[Decision]:
        values = evidence.values.double().numpy()
        limits = self._limits(values)
        score = dict(zip(evidence.ids, values.tolist(), strict=True))
        if limits is None:
            reason = f"kept: fewer than {self.params.clusters} distinct values, nothing to cluster"
            return [Decision(clip, "", True, score[clip], "none", reason) for clip in candidates]
        low, high = limits
        threshold = f"{low:.3f} .. {high:.3f}"
        return [Decision(clip, "", low <= score[clip] <= high, score[clip], threshold, _reason(score[clip], low, high))
                for clip in candidates]

    def _limits(self, values: NDArray[np.float64]) -> tuple[float, float] | None:
        if self.params.rule == "clusters":
            return band(values, self.params.clusters, self.params.seed)
        outside = (1 - self.params.coverage) / 2
        low, high = np.quantile(self.critic.facts["vae_seq"], [outside, 1 - outside])
        return float(low), float(high)


def _reason(value: float, low: float, high: float) -> str:
    if value < low:
        return f"frames change too much: {value:.3f} below {low:.3f}"
    return f"frames hardly change: {value:.3f} above {high:.3f}" if value > high else "inside the band"
