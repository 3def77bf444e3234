"""DS and OS against loops over pairs of frames; sets that repeat themselves, or their training clips, stand out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_line
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from models.clip import ClipBatch, Condition, MemoryClips
from models.seeding import generator
from tasks.features import real_clips
from tasks.likeness import likeness
from tasks.metrics import similarity
from tasks.metrics.similarity import likest, likest_other, similarity_name, ssim_table, windows

Found = dict[str, dict[str, object]]


def clips(number: int, seed: int, shape: tuple[int, ...] = (2, 3, 14, 17)) -> MemoryClips:
    """Noise around one picture, so that some pairs are alike: (N, T, C, H, W)."""
    rng = generator(seed)
    picture = torch.randn(1, *shape, generator=generator(0))
    frames = (0.4 * picture + 0.3 * torch.randn(number, *shape, generator=rng)).clamp(-1, 1)
    ids = tuple(str(row) for row in range(number))
    return MemoryClips(ClipBatch(ids, frames, Condition(ids, torch.zeros(number, 1, 1, 1, dtype=torch.uint8))))


def all_frames(source: MemoryClips) -> Tensor:
    return source.read(range(len(source))).frames


def by_hand(first: Tensor, second: Tensor) -> float:
    """Two clips, frame by frame and colour by colour, by scikit-image."""
    pairs = zip(*(((one.double() + 1) / 2).flatten(0, 1).numpy() for one in (first, second)), strict=True)
    return float(np.mean([structural_similarity(*pair, data_range=1, gaussian_weights=True, use_sample_covariance=False)
                          for pair in pairs]))


@pytest.mark.parametrize("block", [2, 3, 32])
def test_the_likest_are_what_loops_over_pairs_find(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity, "BLOCK", block)
    made, known = clips(7, 1), clips(5, 2)
    own, others = all_frames(made), all_frames(known)
    assert likest(made, known).tolist() == pytest.approx([max(by_hand(a, b) for b in others) for a in own], abs=1e-6)
    assert likest_other(made).tolist() == pytest.approx(
        [max(by_hand(a, b) for at, b in enumerate(own) if at != row) for row, a in enumerate(own)], abs=1e-6)


def test_equal_clips_are_wholly_alike_and_no_pair_depends_on_its_order() -> None:
    seen = windows(all_frames(clips(6, 1)))
    table = ssim_table(seen, seen)
    assert torch.allclose(table.diagonal(), torch.ones(6).double(), atol=1e-9) and (table <= 1 + 1e-9).all()
    assert torch.allclose(table, table.mT, atol=1e-9)
    opposite = windows(-all_frames(clips(6, 1)))
    assert (ssim_table(seen, opposite).diagonal() < table.diagonal() - 0.5).all()


def test_large_frames_are_averaged_down_and_the_name_says_so() -> None:
    small = all_frames(clips(3, 1, (2, 1, 48, 64)))
    large = small.repeat_interleave(2, -1).repeat_interleave(2, -2)
    assert similarity_name(48, 64) == "SSIM of frames of 48 x 64 pixels"
    assert similarity_name(96, 128) == "SSIM of frames averaged down to 64 x 64 pixels"
    wide = windows(small.repeat_interleave(2, -1))
    assert torch.allclose(ssim_table(wide, wide), ssim_table(*[windows(small)] * 2), atol=1e-5)
    assert windows(large).pixels.shape == (3, 2, 64, 64)
    with pytest.raises(ValueError, match="window is 11 pixels wide, but frames are 10x40"):
        windows(torch.zeros(1, 2, 1, 10, 40))


def test_too_few_are_refused() -> None:
    with pytest.raises(ValueError, match="1 clip has no other to be like"):
        likest_other(clips(1, 0))
    with pytest.raises(ValueError, match="no clip to be like"):
        likest(clips(1, 0), clips(0, 0))


def test_memory_is_read_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    read = MemoryClips.read
    monkeypatch.setattr(MemoryClips, "read", lambda self, rows: asked.append(len(rows)) or read(self, rows))
    monkeypatch.setattr(similarity, "BLOCK", 3)
    likest(clips(7, 1), clips(5, 2))
    likest_other(clips(7, 1))
    assert max(asked) == 3


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("line")
    tiny_line.build(data, tiny_line.params())
    return data / "prepared"


def measured(prepared: Path, folder: Path, frames: np.ndarray, conditions: list[str]) -> Found:
    tiny_line.synthetic(folder, frames, conditions)
    found = likeness(prepared, folder, folder.parent / "cache", folder)
    assert json.loads((folder / "likeness.json").read_text()) == found
    return found


def test_sets_that_repeat_and_sets_that_copy(prepared: Path, tmp_path: Path) -> None:
    store, rows = real_clips(prepared, "train")
    real = store.load(rows)["frames"]
    fresh = np.stack([tiny_line.scene(number, np.random.default_rng(number))[0] for number in range(70, 76)])
    found = {name: measured(prepared, tmp_path / name, frames, list("aabbcd"))
             for name, frames in {"copied": real, "collapsed": fresh[[0, 0, 0, 1, 1, 1]], "fresh": fresh}.items()}
    for one in found.values():
        for cell in one.values():
            assert cell["low"] <= cell["value"] <= cell["high"] and cell["span"][0] <= cell["value"] <= cell["span"][1] + 1e-6
            assert cell["clips"] == {"training": 6, "synthetic": 6, "held-out": 4} and cell["frames"] == tiny_line.FRAMES
            assert (cell["direction"], cell["similarity"]) == ("lower is better", "SSIM of frames of 32 x 32 pixels")
            assert cell["flags"] == ["4 conditions: an interval over fewer than 15 is too narrow",
                                     "4 held-out clips stand beside 6 synthetic ones"]
    assert found["copied"]["OS"]["value"] == pytest.approx(1) and found["copied"]["OS"]["sd"] == pytest.approx(0, abs=1e-6)
    assert found["collapsed"]["DS"]["value"] == pytest.approx(1)
    assert max(found[name]["OS"]["high"] for name in ("collapsed", "fresh")) < 0.99
    assert max(found[name]["DS"]["high"] for name in ("copied", "fresh")) < 0.99
    held, places = real_clips(prepared, "test")
    others = held.read(places).frames
    assert found["fresh"]["DS"]["real"] == pytest.approx(
        np.mean([max(by_hand(a, b) for at, b in enumerate(others) if at != row) for row, a in enumerate(others)]), abs=1e-6)


def test_one_clip_is_refused_and_one_condition_has_no_interval(prepared: Path, tmp_path: Path) -> None:
    frames = np.stack([tiny_line.scene(number, np.random.default_rng(0))[0] for number in (90, 91)])
    alone = measured(prepared, tmp_path / "alone", frames[:1], ["a"])
    for one in alone.values():
        assert one["value"] is one["sd"] is one["low"] is one["real"] is None
        assert one["flags"] == ["refused: 1 synthetic clip, needs 2"]
    for one in measured(prepared, tmp_path / "pair", frames, ["a", "a"]).values():
        assert one["low"] is one["high"] is None and one["value"] > 0 and one["real"] is not None


def test_held_out_clips_are_looked_at_once_for_all_sets(prepared: Path, tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    frames = np.stack([tiny_line.scene(number, np.random.default_rng(0))[0] for number in range(90, 96)])
    looked = []
    monkeypatch.setattr("tasks.likeness.likest_other", lambda source: looked.append(len(source)) or likest_other(source))
    for name in ("first", "second", "first"):
        measured(prepared, tmp_path / name, frames[::-1] if name == "second" else frames, list("abcdef"))
    assert looked == [6, 4, 6]
