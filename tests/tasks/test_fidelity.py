"""The distance against its closed form and against a matrix root; sets of real, blurred and noisy frames in their order."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.ndimage import gaussian_filter

from models.clip import UNKNOWN
from models.critics import vae
from models.seeding import generator
from models.trainer import TrainParams
from tasks.arms import NoStates
from tasks.checkpoints import save_checkpoint
from tasks.fidelity import fidelity
from tasks.metrics.frechet import Moments, frechet_distance
from tasks.records import ClipRecord
from tasks.store import ArraySpec, ClipStore
from tasks.tables import write_table
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


FRAMES, SIDE, TRAIN, TEST = 3, 16, 64, 24


def scenes(number: int, rng: np.random.Generator) -> np.ndarray:
    """Clips of a smooth spot that drifts, (N, T, H, W, 1)."""
    y, x = np.mgrid[:SIDE, :SIDE]
    place, way = rng.uniform(4, 12, (number, 1, 2)), rng.uniform(-1, 1, (number, 1, 2))
    place = (place + way * np.arange(FRAMES)[:, None])[..., None, None]
    away = (y - place[:, :, 0]) ** 2 + (x - place[:, :, 1]) ** 2
    return (40 + 180 * np.exp(-away / 18)).astype(np.uint8)[..., None]


def write(path: Path, frames: np.ndarray) -> tuple[str, ...]:
    masks = np.full(frames.shape[:4], UNKNOWN, np.uint8)
    specs = {"frames": ArraySpec(frames.shape[1:], "uint8"), "masks": ArraySpec(masks.shape[1:], "uint8")}
    store = ClipStore.create(path, specs, len(frames), "f")
    store.write_shard(0, [f"{row:032x}" for row in range(len(frames))], {"frames": frames, "masks": masks})
    store.finish(len(frames))
    return store.ids


def test_worse_frames_are_farther_and_their_order_does_not_count(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    prepared = tmp_path / "prepared"
    ids = write(prepared / "clips.zarr", scenes(TRAIN + TEST, rng))
    write_table(prepared / "manifest.parquet",
                [ClipRecord(clip, f"p{row}", "0", 0, 1, None, "", False, row, "train" if row < TRAIN else "test")
                 for row, clip in enumerate(ids)], ClipRecord)
    wanted = vae.Params(channels=[16, 16], latent_channels=4, norm_groups=4,
                        train=TrainParams(steps=200, batch_size=16, learning_rate=3e-3))
    trained = vae.fit(wanted, training_clips(prepared)[0], NoStates(), 0)
    save_checkpoint(tmp_path / "vae", trained, fingerprint="f", trained_on={})
    own = scenes(40, rng)
    blurred = gaussian_filter(own, (0, 0, 2, 2, 0))
    shuffled = np.stack([own[rng.permutation(len(own)), place] for place in range(FRAMES)], 1)
    sets = {"own": own, "backwards": own[:, ::-1].copy(), "shuffled": shuffled, "blurred": blurred,
            "dark": own // 2}
    found = {}
    for name, frames in sets.items():
        write(tmp_path / name / "clips.zarr", frames)
        found[name] = fidelity(tmp_path / "vae", prepared, tmp_path / name, tmp_path / "cache",
                               tmp_path / name)["frames"]
        assert json.loads((tmp_path / name / "fidelity.json").read_text()) == {"frames": found[name]}
        assert found[name]["low"] < found[name]["high"] and found[name]["clips"] == 40
    for name in ("backwards", "shuffled"):  # as good, however little such clips hold together
        assert found[name]["value"] == pytest.approx(found["own"]["value"], rel=1e-6)
    for name in ("blurred", "dark"):
        assert found[name]["low"] > found["own"]["high"] and found[name]["value"] > 3 * found[name]["real"] > 0
