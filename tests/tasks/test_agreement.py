"""Our arithmetic beside that of packages others report with, on features and clips made here: the same numbers to 1e-5.

torch-fidelity and lpips need torchvision, which does not load beside our torch; torchmetrics has the same arithmetic.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prdc import compute_prdc
from scipy.linalg import sqrtm
from skimage.metrics import structural_similarity
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from models.seeding import generator
from tasks.metrics.discrepancy import kid
from tasks.metrics.distribution import compare
from tasks.metrics.frechet import frechet_of_features
from tasks.metrics.neighbours import NEAREST
from tasks.metrics.reconstruction import ssim
from tasks.metrics.similarity import REACH, ssim_table, windows

seeds = st.integers(0, 2**31)


def sets(seed: int, known: int, made: int, width: int) -> tuple[Tensor, Tensor]:
    """Features of two overlapping distributions that are no unit Gaussians: (known, width) and (made, width), float64."""
    rng = generator(seed)
    turn = torch.randn(width, width, generator=rng, dtype=torch.float64) / width**0.5
    first, second = (torch.randn(number, width, generator=rng, dtype=torch.float64) @ turn for number in (known, made))
    return first + 1, 0.9 * second + 1.2


@given(seed=seeds, known=st.integers(NEAREST + 2, 90), made=st.integers(NEAREST + 2, 90), width=st.integers(2, 40))
@settings(max_examples=25, deadline=None)
def test_precision_recall_density_and_coverage_are_those_of_prdc(seed: int, known: int, made: int, width: int) -> None:
    real, own = sets(seed, known, made, width)
    wanted = compute_prdc(real.numpy(), own.numpy(), NEAREST)
    found = compare(real[:, None], own[:, None])
    assert {name: float(found[name]) for name in wanted} == pytest.approx(wanted, abs=1e-5)


@given(seed=seeds, number=st.integers(2, 120), width=st.integers(1, 60))
@settings(max_examples=25, deadline=None)
def test_kid_is_torchmetrics_unbiased_one(seed: int, number: int, width: int) -> None:
    """Which takes sets of one size; ours of two is tested against loops over pairs in test_distribution.py."""
    real, own = sets(seed, number, number, width)
    assert float(kid(real, own, torch.ones(1, number))) == pytest.approx(float(poly_mmd(real, own)), rel=1e-5, abs=1e-8)


@given(seed=seeds, known=st.integers(2, 80), made=st.integers(2, 80), width=st.integers(2, 40))
@settings(max_examples=25, deadline=None)
def test_frechet_distance_is_that_of_torchmetrics_and_of_scipy_s_matrix_root(seed: int, known: int, made: int,
                                                                             width: int) -> None:
    """Of many clips and of fewer clips than features, whose covariances are singular."""
    real, own = sets(seed, known, made, width)
    gaussians = [(rows.mean(0), rows.T.cov()) for rows in (real, own)]
    found = float(frechet_of_features(real, own))
    assert found == pytest.approx(float(_compute_fid(*gaussians[0], *gaussians[1])), rel=1e-5)
    (mean1, cov1), (mean2, cov2) = ((mean.numpy(), cov.numpy()) for mean, cov in gaussians)
    if min(known, made) > width:  # of singular matrices scipy's root is right to a few digits only
        root = sqrtm(cov1 @ cov2).real
        assert found == pytest.approx(((mean1 - mean2) ** 2).sum() + np.trace(cov1 + cov2 - 2 * root), rel=1e-5)


def pictures(seed: int, number: int, side: tuple[int, int]) -> Tensor:
    """(number, 2, 2, H, W) in [-1, 1] as 8 bits hold them: flat black and white parts, an edge, a ramp, texture, noise."""
    rng = np.random.default_rng(seed)
    height, width = side
    found = np.zeros((number, 4, height, width))
    ramp = np.linspace(0, 1, width)[None] * np.ones((height, 1))
    for one in found.reshape(-1, height, width):
        edge = rng.integers(1, width)
        one[:, edge:] = rng.uniform(0, 1)
        one += rng.choice([0, 0.5]) * ramp + rng.choice([0, 0.005, 0.1]) * rng.normal(size=one.shape)
    grey = np.round(found.clip(0, 1) * 255) / 255
    return torch.from_numpy(2 * grey - 1).float().unflatten(1, (2, 2))


@given(seed=seeds, height=st.integers(11, 64), width=st.integers(11, 64))
@settings(max_examples=20, deadline=None)
def test_ssim_of_every_pair_is_scikit_image_s_and_torchmetrics(seed: int, height: int, width: int) -> None:
    first, second = (pictures(seed + one, 3, (height, width)) for one in (0, 1))
    found = ssim_table(windows(first), windows(second))
    for row, a in enumerate(first):
        for column, b in enumerate(second):
            grey = [((one.double() + 1) / 2).flatten(0, 1) for one in (a, b)]
            wanted = np.mean([structural_similarity(x.numpy(), y.numpy(), data_range=1, gaussian_weights=True, sigma=1.5,
                                                    use_sample_covariance=False) for x, y in zip(*grey, strict=True)])
            assert float(found[row, column]) == pytest.approx(wanted, abs=1e-5)
            assert float(of_torchmetrics(*(one[None] for one in grey), 1.0)) == pytest.approx(wanted, abs=1e-5)


def of_torchmetrics(first: Tensor, second: Tensor, span: float) -> Tensor:
    """(B,) of (B, C, H, W), where the window lies within the frame; torchmetrics' mean has a mirrored border in it."""
    _, every = structural_similarity_index_measure(first, second, data_range=span, reduction="none", return_full_image=True)
    return every[..., REACH:-REACH, REACH:-REACH].mean((1, 2, 3))


def test_ssim_of_reconstructions_is_torchmetrics() -> None:
    """MONAI's, in float32, which flat bright pictures would leave no digits: these are all texture."""
    first, second = torch.rand(2, 4, 2, 2, 24, 31, generator=generator(0), dtype=torch.float64) * 2 - 1
    light = [(one.flatten(0, 1) + 1) / 2 for one in (first, second)]
    wanted = of_torchmetrics(*light, 1.0).unflatten(0, (4, 2)).mean(1)
    assert ssim(first, second).tolist() == pytest.approx(wanted.tolist(), abs=1e-5)
