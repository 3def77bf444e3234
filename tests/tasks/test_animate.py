"""A user's own picture becomes a video that a decoder reads; its first frame is the picture."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from tiny_line import build, params
from typer.testing import CliRunner

from flows.__main__ import app
from tasks.animate import animate
from tasks.train import train_generator

STEPS = {"steps": 2, "batch_size": 2, "save_every": 1}
ENTRY = {"kind": "lddm", "autoencoder": {"width": 8, "features": 8, "train": STEPS}, "denoiser": [16, 16], "diffusion": STEPS}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("animate")
    build(folder, params())
    train_generator("lddm", ENTRY, 0, folder / "prepared", folder / "lddm")
    return folder / "lddm"


def drawn(path: Path, mode: str = "L") -> Path:
    y, x = np.mgrid[:90, :120]
    grey = (127 + 100 * np.sin(x / 9) * np.cos(y / 13)).astype(np.uint8)
    Image.fromarray(grey).convert(mode).save(path)
    return path


@pytest.mark.parametrize("name", ["still.png", "colour.jpg"])
def test_a_picture_becomes_a_video(checkpoint: Path, tmp_path: Path, name: str) -> None:
    still = drawn(tmp_path / name, "RGB" if name.endswith("jpg") else "L")
    out = tmp_path / "clip.mp4"
    found = CliRunner().invoke(app, ["animate", str(still), "--checkpoint", str(checkpoint), "--out", str(out), "--seeds", "3",
                                     "--steps", "2"])
    assert found.exit_code == 0, found.output
    film = animate(still, checkpoint, tmp_path / "again.mp4", range(3), {"steps": 2})
    with av.open(str(out)) as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    assert len(frames) == len(film) and frames[0].shape[0] >= 256 and all(side % 2 == 0 for side in frames[0].shape[:2])
    factor = frames[0].shape[0] // film.shape[1]
    seen = frames[0][::factor, ::factor][: film.shape[1], : film.shape[2]].astype(float)
    assert np.abs(seen - film[0]).mean() < 6
    side = film.shape[2] // 3
    assert np.array_equal(film[0, :, :side], film[0, :, side : 2 * side])  # every motion starts at the same still
    assert list(tmp_path.glob(".*")) == []


def test_what_cannot_be_animated_is_one_clear_line(checkpoint: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"broken\.png cannot be read"):
        animate(broken, checkpoint, tmp_path / "clip.mp4")
    with pytest.raises(ValueError, match=r"\.gif is no video that is written here"):
        animate(drawn(tmp_path / "still.png"), checkpoint, tmp_path / "clip.gif")
    with pytest.raises(ValueError, match="no checkpoint"):
        animate(drawn(tmp_path / "still.png"), tmp_path, tmp_path / "clip.mp4")
