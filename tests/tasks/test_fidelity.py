"""The distance against its closed form and against a matrix root; sets of real, blurred and noisy frames in their order."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from tiny_line import build, params

from models.critics import vae
from models.seeding import generator
from models.trainer import TrainParams
from tasks.arms import NoStates
from tasks.checkpoints import save_checkpoint
from tasks.fidelity import fidelity
from tasks.metrics.frechet import Moments, frechet_distance
from tasks.records import ClipRecord
from tasks.store import ArraySpec, ClipStore
from tasks.tables import read_table
from tasks.train import training_clips


def test_gaussians_with_diagonal_covariances() -> None:
    first = torch.tensor([[0.0, 1.0]]).double(), torch.diag(torch.tensor([4.0, 1.0])).double()[None]
    second = torch.tensor([[3.0, 1.0]]).double(), torch.diag(torch.tensor([1.0, 9.0])).double()[None]
    assert float(frechet_distance(first, second)) == pytest.approx(9 + (2 - 1) ** 2 + (1 - 3) ** 2)
    assert float(frechet_distance(first, first)) == pytest.approx(0, abs=1e-9)


def test_any_gaussians_against_the_matrix_root() -> None:
    features = [torch.randn(5, 30, 4, generator=generator(seed)) @ torch.randn(4, 4, generator=generator(seed + 9)) + seed
                for seed in (1, 2)]
    (mean1, cov1), (mean2, cov2) = own = [Moments.of(one).gaussians(torch.ones(1, 5)) for one in features]
    flat = [one.flatten(0, 1).numpy() for one in features]
    assert np.allclose(cov1[0], np.cov(flat[0].T)) and np.allclose(mean2[0], flat[1].mean(0), atol=1e-6)
    wanted = ((mean1 - mean2) ** 2).sum() + np.trace(cov1[0] + cov2[0] - 2 * sqrtm(cov1[0].numpy() @ cov2[0].numpy()).real)
    assert float(frechet_distance(*own)) == pytest.approx(float(wanted), rel=1e-6)


def test_a_resample_is_the_moments_of_those_clips() -> None:
    features = torch.randn(4, 6, 3, generator=generator(0))
    weights = torch.tensor([[2, 0, 1, 1]])
    mean, cov = Moments.of(features).gaussians(weights)
    taken = features[[0, 0, 2, 3]].flatten(0, 1).numpy()
    assert np.allclose(mean[0], taken.mean(0)) and np.allclose(cov[0], np.cov(taken.T))


def test_worse_frames_are_farther_and_their_order_does_not_count(tmp_path: Path) -> None:
    build(tmp_path, params())
    prepared = tmp_path / "prepared"
    clips, _ = training_clips(prepared)
    wanted = vae.Params(channels=[8, 8], latent_channels=2, norm_groups=4,
                        train=TrainParams(steps=40, batch_size=8, learning_rate=3e-3))
    save_checkpoint(tmp_path / "vae", vae.fit(wanted, clips, NoStates(), 0), fingerprint="f", trained_on={})
    records = read_table(prepared / "manifest.parquet", ClipRecord)
    train = [row for row, record in enumerate(records) if record.split == "train"]
    real = ClipStore.open(prepared / "clips.zarr").load(train)["frames"]
    noise = np.random.default_rng(0).integers(-60, 61, real.shape)
    sets = {"same": real, "backwards": real[:, ::-1].copy(), "noisy": (real + noise).clip(0, 255).astype(np.uint8),
            "noise": np.random.default_rng(1).integers(0, 256, real.shape).astype(np.uint8)}
    found = {}
    for name, frames in sets.items():
        store = ClipStore.create(tmp_path / name / "clips.zarr", {"frames": ArraySpec(frames.shape[1:], "uint8")}, 64, "g")
        store.write_shard(0, [f"{row:032x}" for row in range(len(frames))], {"frames": frames})
        store.finish(len(frames))
        found[name] = fidelity(tmp_path / "vae", prepared, tmp_path / name, tmp_path / name)["frames"]
        assert json.loads((tmp_path / name / "fidelity.json").read_text()) == {"frames": found[name]}
    assert found["same"]["value"] == pytest.approx(0, abs=1e-6)
    assert found["backwards"]["value"] == pytest.approx(0, abs=1e-6)
    assert found["same"]["value"] < found["noisy"]["value"] < found["noise"]["value"]
    assert found["noise"]["low"] > found["noisy"]["high"] and found["noise"]["value"] > found["noise"]["real"] > 0
