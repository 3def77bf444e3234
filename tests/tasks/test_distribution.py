"""Every metric against naive loops and closed forms; what is refused, flagged and kept."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import polynomial_kernel
from torch import Tensor

from models.seeding import generator
from tasks.distribution import distribution, measured
from tasks.features import features, load_extractor
from tasks.metrics import discrepancy
from tasks.metrics import neighbours as near
from tasks.metrics.discrepancy import cmmd, kid
from tasks.metrics.distribution import METRICS, compare, flags
from tasks.metrics.frechet import Moments, frechet_distance, frechet_of_features
from tasks.metrics.neighbours import neighbours
from tasks.params import ControlParams
from tasks.records import ClipRecord
from tasks.store import ArraySpec, ClipStore
from tasks.tables import write_table


def sets(known: int = 23, made: int = 17, width: int = 6) -> tuple[Tensor, Tensor]:
    first, second = (torch.randn(n, width, generator=generator(n)) for n in (known, made))
    return first, 0.8 * second + 0.3


def one(made: Tensor) -> Tensor:
    return torch.ones(1, len(made))


@pytest.fixture(params=[5, 1024])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks, the last one short, or one."""
    for module in (discrepancy, near):
        monkeypatch.setattr(module, "BLOCK", request.param)


def test_kid_against_a_loop_over_pairs(block: None) -> None:
    known, made = sets()
    x, y = known.double().numpy(), made.double().numpy()
    within = [np.mean([polynomial_kernel(a[i : i + 1], a[j : j + 1], 3, 1 / 6, 1)[0, 0]
                       for i in range(len(a)) for j in range(len(a)) if i != j]) for a in (x, y)]
    wanted = sum(within) - 2 * polynomial_kernel(x, y, 3, 1 / 6, 1).mean()
    assert float(kid(known, made, one(made))) == pytest.approx(wanted, rel=1e-9)


def test_kid_is_unbiased_and_a_resample_too() -> None:
    """Over many draws of one distribution its mean is 0, and so is that of bootstrap samples around the value."""
    values = [float(kid(*torch.randn(2, 12, 3, generator=generator(seed)), torch.ones(1, 12))) for seed in range(400)]
    assert abs(np.mean(values)) < 4 * np.std(values) / 20
    known, made = sets(60, 60)
    drawn = kid(known, made, torch.from_numpy(np.random.default_rng(0).multinomial(60, np.full(60, 1 / 60), 2000)))
    assert float(drawn.mean()) == pytest.approx(float(kid(known, made, one(made))), abs=0.1 * float(drawn.std()))


def test_kid_is_the_mean_of_what_torchmetrics_has_over_subsets() -> None:
    """KID is reported as the mean over random subsets of equal size (torch-fidelity's 100 of 1000): ours is that of all."""
    poly_mmd = pytest.importorskip("torchmetrics.image.kid").poly_mmd
    known, made = (rows.double() for rows in sets(6, 5))
    subsets = [poly_mmd(known[list(first)], made[list(second)]) for first in combinations(range(6), 4)
               for second in combinations(range(5), 4)]
    assert float(kid(known, made, one(made))) == pytest.approx(float(torch.stack(subsets).mean()), rel=1e-9)


def test_cmmd_against_its_definition(block: None) -> None:
    known, made = (rows.double() / rows.double().norm(dim=1, keepdim=True) for rows in sets())
    means = [np.mean([[np.exp(-float((a - b).square().sum()) / 200) for a in first] for b in second])
             for first, second in ((known, known), (made, made), (known, made))]
    assert float(cmmd(7 * known, made, one(made))) == pytest.approx(1000 * (means[0] + means[1] - 2 * means[2]), rel=1e-6)


def test_a_weighted_biased_discrepancy_is_that_of_the_rows_taken() -> None:
    known, made = sets()
    rows = [0, 0, 3, 5, 5, 5]
    weights = torch.bincount(torch.tensor(rows), minlength=len(made))[None]
    assert float(cmmd(known, made, weights)) == pytest.approx(float(cmmd(known, made[rows], torch.ones(1, 6))), rel=1e-6)


def naive_shares(known: Tensor, made: Tensor, k: int) -> dict[str, float]:
    """As their papers print them."""
    def apart(a: Tensor, b: Tensor) -> float:
        return float((a.double() - b.double()).norm())

    balls = [[sorted(apart(a, b) for j, b in enumerate(rows) if i != j)[k - 1] for i, a in enumerate(rows)]
             for rows in (known, made)]
    in_real = np.array([[apart(x, y) < r for y in made] for x, r in zip(known, balls[0], strict=True)])
    in_made = np.array([[apart(x, y) < r for y, r in zip(made, balls[1], strict=True)] for x in known])
    return {"precision": in_real.any(0).mean(), "recall": in_made.any(1).mean(), "density": in_real.sum() / (k * len(made)),
            "coverage": in_real.any(1).mean()}


def test_neighbours_against_loops_over_pairs(block: None) -> None:
    known, made = sets()
    found = compare(known[:, None], made[:, None])
    for name, wanted in naive_shares(known, made, near.NEAREST).items():
        assert wanted > 0 and float(found[name]) == pytest.approx(wanted, abs=1e-12), name


def test_a_clip_on_the_edge_of_a_ball_is_outside() -> None:
    """Of equal sets density is 1: a ball holds its own clip and the k - 1 that are nearer than the k-th."""
    rows = 100 + torch.randn(40, 8, generator=generator(0))
    assert float(neighbours(rows, rows.clone()).balls.mean()) / near.NEAREST == 1


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_rounding_decides_nothing(data: st.DataObject) -> None:
    """Rows of whole numbers, far from 0 and full of ties: what single precision decides is what exact integers do."""
    width, offset = data.draw(st.integers(1, 40)), data.draw(st.sampled_from([0, 1000, 100_000]))
    sizes = st.integers(near.NEAREST + 1, 40)
    known, made = (torch.randint(0, data.draw(st.sampled_from([2, 5, 2000])), (data.draw(sizes), width),
                                 generator=torch.Generator().manual_seed(data.draw(st.integers(0, 99)))) for _ in range(2))
    away = (known[:, None] - made).square().sum(2)
    radii = []
    for rows in (known, made):
        own = (rows[:, None] - rows).square().sum(2) + torch.eye(len(rows), dtype=torch.int64) * 10**12
        radii.append(own.sort(1).values[:, near.NEAREST - 1])
    found = neighbours(known + offset, made + offset)
    inside = away < radii[0][:, None]
    assert torch.equal(found.balls, inside.sum(0).double())
    assert torch.equal(found.covered, inside.any(1).double())
    assert torch.equal(found.recalled, (away < radii[1]).any(1).double())


def test_frechet_of_many_and_of_few_rows() -> None:
    known, made = sets(40, 30)
    moments = [Moments.of(rows[:, None]).gaussians(torch.ones(1, len(rows))) for rows in (known, made)]
    assert float(frechet_of_features(known, made)) == pytest.approx(float(frechet_distance(*moments)), rel=1e-9)
    wide = [rows @ torch.randn(6, 50, generator=generator(1)) for rows in (known, made)]
    moments = [Moments.of(rows[:, None]).gaussians(torch.ones(1, len(rows))) for rows in wide]
    assert float(frechet_of_features(*wide)) == pytest.approx(float(frechet_distance(*moments)), rel=1e-4)
    with pytest.raises(ValueError, match="too few to be drawn from again"):
        frechet_of_features(*wide, torch.ones(2, 30))


def test_too_few_is_refused_or_flagged() -> None:
    def whole(n: int) -> Tensor:
        return torch.randn(n, 1, 8, generator=generator(n))

    few = measured(whole(60), whole(7), None)
    assert few["frechet"]["value"] > 0 and few["frechet"]["low"] is None and "rank-deficient" in few["frechet"]["flags"][0]
    assert few["precision"]["flags"][0].startswith("7 synthetic clips, needs 51") and few["kid"]["real"] is None
    assert few["kid"]["flags"] == ["0 held-out clips stand beside 7 synthetic ones"]
    refused = measured(whole(60), whole(1), whole(1))
    assert all(cell["value"] is None and cell["low"] is None and cell["flags"][0].startswith("refused: 1 synthetic")
               for cell in refused.values())
    enough = measured(whole(120), whole(121), whole(122))
    for name, cell in enough.items():
        assert cell["flags"] == [] == flags(name, {"synthetic": 121}, 8) and cell["real"] is not None
        low, high = METRICS[name].span
        assert (low is None or low <= cell["value"]) and (high is None or cell["value"] <= high)
        assert cell["low"] < cell["high"]


def test_of_two_clips_an_interval_leaves_out_resamples_of_one() -> None:
    """KID of one clip, taken twice, is of no pair; there would be no interval, and no file."""
    known, made = (torch.randn(n, 1, 8, generator=generator(n)) for n in (60, 2))
    assert kid(known[:, 0], made[:, 0], torch.tensor([[2, 0]])).isnan()
    found = measured(known, made, None)["kid"]
    assert found["low"] <= found["value"] <= found["high"]


def write(path: Path, number: int, seed: int) -> ClipStore:
    frames = np.random.default_rng(seed).integers(0, 255, (number, 3, 12, 12, 1)).astype(np.uint8)
    store = ClipStore.create(path, {"frames": ArraySpec((3, 12, 12, 1), "uint8")}, number, "f")
    store.write_shard(0, [f"{row:032x}" for row in range(number)], {"frames": frames})
    store.finish(number)
    return store


def test_real_clips_are_looked_at_once_for_all_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = write(tmp_path / "prepared" / "clips.zarr", 20, 0)
    write_table(tmp_path / "prepared" / "manifest.parquet",
                [ClipRecord(clip, f"p{row}", "0", 0, 1, None, "", False, row, "train" if row < 12 else "test")
                 for row, clip in enumerate(store.ids)], ClipRecord)
    looks = []
    read = ClipStore.read
    monkeypatch.setattr(
        ClipStore, "read", lambda self, rows: looks.append((self.path.parent.name, len(rows))) or read(self, rows))
    cache = tmp_path / "cache"
    for name in ("first", "second", "first"):
        write(tmp_path / name / "clips.zarr", 8, len(name))
        found = distribution(ControlParams(), tmp_path, tmp_path / "prepared", tmp_path / name, cache, tmp_path / name)
        assert json.loads((tmp_path / name / "distribution.json").read_text()) == found
    assert sorted(looks) == [("first", 8), ("prepared", 8), ("prepared", 12), ("second", 8)]
    (seen,) = found.values()
    assert seen["clips"] == {"training": 12, "synthetic": 8, "held-out": 8} and (seen["frames"], seen["features"]) == (3, 48)


def test_a_damaged_file_of_the_cache_is_made_again(tmp_path: Path) -> None:
    store, extractor = write(tmp_path / "clips.zarr", 4, 0), load_extractor({"kind": "random3d"}, tmp_path)
    first = features(extractor, store, [2, 0], tmp_path / "cache")
    (path,) = (tmp_path / "cache").iterdir()
    whole = path.read_bytes()
    for damaged in (whole[:-1] + bytes([whole[-1] ^ 1]), whole[:50]):
        path.write_bytes(damaged)
        assert torch.equal(features(extractor, store, [2, 0], tmp_path / "cache"), first) and path.read_bytes() == whole
    assert torch.equal(features(extractor, store, [0, 2], tmp_path / "cache"), first[[1, 0]])
