"""A user's own picture becomes a video that a decoder reads; its first frame is the picture."""

from __future__ import annotations

import os
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
AUTOENCODER = {"width": 8, "features": 8, "train": STEPS}
ENTRIES = {
    "lddm": {"kind": "lddm", "autoencoder": AUTOENCODER, "denoiser": [16, 16], "diffusion": STEPS},
    "cinn": {"kind": "cinn", "autoencoder": AUTOENCODER, "flow": {"couplings": 2, "width": 16, "context": 16, "train": STEPS}},
    "vdm": {"kind": "vdm", "video": {"channels": [8], "attention": [], "head_width": 8, "train": STEPS}},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint of each kind."""
    folder = tmp_path_factory.mktemp("animate")
    build(folder, params())
    for kind, entry in ENTRIES.items():
        train_generator(kind, entry, 0, folder / "prepared", folder / kind)
    return folder


def drawn(path: Path, mode: str = "L") -> Path:
    y, x = np.mgrid[:90, :120]
    grey = (127 + 100 * np.sin(x / 9) * np.cos(y / 13)).astype(np.uint8)
    Image.fromarray(grey).convert(mode).save(path)
    return path


@pytest.mark.parametrize(("name", "kind", "steps"), [("still.png", "lddm", 2), ("colour.jpg", "lddm", None),
                                                     ("still.png", "cinn", None)])
def test_a_picture_becomes_a_video(trained: Path, tmp_path: Path, name: str, kind: str, steps: int | None) -> None:
    checkpoint, still = trained / kind, drawn(tmp_path / name, "RGB" if name.endswith("jpg") else "L")
    out = tmp_path / "clip.mp4"
    found = CliRunner().invoke(app, ["animate", str(still), "--checkpoint", str(checkpoint), "--out", str(out), "--seeds", "3",
                                     *(["--steps", str(steps)] if steps else [])])
    assert found.exit_code == 0, found.output
    film = animate(still, checkpoint, tmp_path / "again.mp4", range(3), {"steps": steps} if steps else None)
    with av.open(str(out)) as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    assert len(frames) == len(film) and frames[0].shape[0] >= 256 and all(side % 2 == 0 for side in frames[0].shape[:2])
    factor = frames[0].shape[0] // film.shape[1]
    seen = frames[0][::factor, ::factor][: film.shape[1], : film.shape[2]].astype(float)
    assert np.abs(seen - film[0]).mean() < 6
    side = film.shape[2] // 3
    assert np.array_equal(film[0, :, :side], film[0, :, side : 2 * side])  # every motion starts at the same still
    assert list(tmp_path.glob(".*")) == []


def test_what_cannot_be_animated_is_one_clear_line(trained: Path, tmp_path: Path) -> None:
    checkpoint, still = trained / "lddm", drawn(tmp_path / "still.png")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"broken\.png: cannot be read"):
        animate(broken, checkpoint, tmp_path / "clip.mp4")
    with pytest.raises(ValueError, match=r"\.gif is no video that is written here"):
        animate(still, checkpoint, tmp_path / "clip.gif")
    with pytest.raises(ValueError, match="no checkpoint"):
        animate(still, tmp_path, tmp_path / "clip.mp4")
    with pytest.raises(ValueError, match="its generator is vdm, which does not animate stills"):
        animate(still, trained / "vdm", tmp_path / "clip.mp4")
    with pytest.raises(ValueError, match="its generator is cinn, which knows no steps; it has temperature"):
        animate(still, trained / "cinn", tmp_path / "clip.mp4", sampling={"steps": 2})
    assert not (tmp_path / "clip.mp4").exists()


def test_a_picture_that_ends_its_decoder_ends_nothing_else(trained: Path, tmp_path: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.animate.picture", lambda file, mode: os._exit(7))
    with pytest.raises(ValueError, match=r"still\.png: cannot be decoded: its decoder crashed \(status 7\)"):
        animate(drawn(tmp_path / "still.png"), trained / "lddm", tmp_path / "clip.mp4")
