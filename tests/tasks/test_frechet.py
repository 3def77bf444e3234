"""The Fréchet distance against SciPy's root of a matrix, which published FVD and FID are computed with, and closed forms."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from torch import Tensor

from models.nets.i3d import I3D
from models.seeding import generator
from tasks.distribution import distribution
from tasks.metrics.frechet import frechet_of_features
from tasks.params import ControlParams
from tasks.records import ClipRecord
from tasks.store import ArraySpec, ClipStore
from tasks.tables import write_table

WIDE, NARROW = (30, 24, 60), (90, 70, 20)
"""Rows, rows and features: with no more rows than features, and with more."""


def by_sqrtm(known: Tensor, made: Tensor) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), as FVD's and FID's code writes it; what is imaginary is rounding."""
    first, second = known.double().numpy(), made.double().numpy()
    cov1, cov2 = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    root = np.real(np.trace(sqrtm(cov1 @ cov2)))
    return float(((first.mean(0) - second.mean(0)) ** 2).sum() + np.trace(cov1) + np.trace(cov2) - 2 * root)


def sets(sizes: tuple[int, int, int], seed: int = 0, scale: float = 1.0, alike: float = 0.5) -> tuple[Tensor, Tensor]:
    """Features that depend on each other, as real ones do, in their own way in each set."""
    known, made, width = sizes
    rng = generator(seed)
    mix, other = torch.randn(2, width, width, generator=rng).double()
    first, second = torch.randn(known, width, generator=rng).double(), torch.randn(made, width, generator=rng).double()
    return scale * (first @ mix + 1), scale * (second @ (alike * mix + (1 - alike) * other) - 1)


def distance(known: Tensor, made: Tensor) -> float:
    return float(frechet_of_features(known, made))


@settings(deadline=None, max_examples=25)
@given(sizes=st.sampled_from([WIDE, NARROW, (60, 61, 60), (61, 61, 60)]), seed=st.integers(0, 1000),
       scale=st.sampled_from([0.01, 1.0, 100.0]), alike=st.floats(0, 1))
def test_it_is_scipy_s_to_1e_5(sizes: tuple[int, int, int], seed: int, scale: float, alike: float) -> None:
    known, made = sets(sizes, seed, scale, alike)
    assert distance(known, made) == pytest.approx(by_sqrtm(known, made), rel=1e-5)


@pytest.mark.parametrize("sizes", [WIDE, NARROW])
def test_float32_features_are_not_rounded_further(sizes: tuple[int, int, int]) -> None:
    known, made = (one.float() + 100 for one in sets(sizes))
    assert distance(known, made) == pytest.approx(by_sqrtm(known, made), rel=1e-5)


@settings(deadline=None, max_examples=25)
@given(sizes=st.sampled_from([WIDE, NARROW]), seed=st.integers(0, 1000), scale=st.sampled_from([0.01, 1.0, 100.0]),
       shift=st.floats(0, 10), stretch=st.floats(0.5, 2))
def test_closed_forms(sizes: tuple[int, int, int], seed: int, scale: float, shift: float, stretch: float) -> None:
    """Of equal sets 0; the same either way; of a set moved by c, |c|^2; of one stretched by a at its mean, (1 - a)^2 tr C."""
    known, made = sets(sizes, seed, scale)
    spread = float(known.var(0).sum())
    assert abs(distance(known, known.clone())) < 1e-6 * spread
    assert abs(distance(known, known.flip(0))) < 1e-6 * spread
    there, back = distance(known, made), distance(made, known)
    assert there > 0 and back == pytest.approx(there, rel=1e-6)
    moved = shift * scale * torch.randn(sizes[2], generator=generator(seed)).double()
    assert distance(known, known + moved) == pytest.approx(float(moved.square().sum()), rel=1e-6, abs=1e-6 * spread)
    stretched = torch.lerp(known.mean(0), known, stretch)
    assert distance(known, stretched) == pytest.approx((1 - stretch) ** 2 * spread, rel=1e-6, abs=1e-6 * spread)


def test_independent_features_have_the_distance_of_their_deviations() -> None:
    """sum (m1 - m2)^2 + (s1 - s2)^2, for features that are exactly uncorrelated."""
    signs = torch.tensor([[(row >> bit) % 2 * 2.0 - 1 for bit in range(4)] for row in range(16)]).double()
    first, second = torch.tensor([1.0, 2, 3, 4]).double(), torch.tensor([4.0, 1, 3, 0.5]).double()
    wanted = 4 * 0.25 + 16 / 15 * float((first - second).square().sum())
    assert distance(signs * first, signs * second + 0.5) == pytest.approx(wanted, rel=1e-9)


def test_it_is_called_by_the_name_its_extractor_has_earned(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    torch.save({"state_dict": I3D(18, 1e-5).state_dict()}, tmp_path / "weights" / "I3D_16.pth.tar")
    for name, number in (("prepared", 5), ("made", 2)):
        frames = np.random.default_rng(number).integers(0, 255, (number, 3, 12, 12, 1)).astype(np.uint8)
        store = ClipStore.create(tmp_path / name / "clips.zarr", {"frames": ArraySpec((3, 12, 12, 1), "uint8")}, number, "f")
        store.write_shard(0, [f"{row:032x}" for row in range(number)], {"frames": frames})
        store.finish(number)
    store = ClipStore.open(tmp_path / "prepared" / "clips.zarr")
    write_table(tmp_path / "prepared" / "manifest.parquet",
                [ClipRecord(clip, f"p{row}", "0", 0, 1, None, "", False, row, "train" if row < 3 else "test")
                 for row, clip in enumerate(store.ids)], ClipRecord)
    control = ControlParams.model_validate({"features": [{"kind": "dt_i3d", "weights": str(tmp_path / "weights")}]})
    distribution(control, tmp_path, tmp_path / "prepared", tmp_path / "made", tmp_path / "cache", tmp_path)
    (seen,) = json.loads((tmp_path / "distribution.json").read_text()).values()
    found = seen["metrics"]["frechet"]
    assert seen["features"] == 1024 and found["name"] == "DTFVD" and found["value"] > 0
    assert seen["metrics"]["kid"]["name"] == "kid"
