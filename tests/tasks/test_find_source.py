"""What a digest in a table or a log stands for is found again, on one's own terminal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from flows.__main__ import app
from tasks.find_source import find_file, find_source
from tasks.params import DatasetParams
from tasks.readers import images
from tasks.tables import file_digest


def scans(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for number in range(2):
            Image.fromarray(rng.integers(0, 255, (9, 9), dtype=np.uint8)).save(root / name / f"{number}.png")
    return root


def dataset(location: Path, **changed: object) -> DatasetParams:
    base = {"name": "made", "reader": "images", "location": location, "clip_frames": 2, "frame_size": (9, 9),
            "split": {"train": 0.5, "val": 0.2, "test": 0.3}}
    return DatasetParams.model_validate({**base, **changed})


def test_a_clips_source_is_found_with_all_its_files(tmp_path: Path) -> None:
    root = scans(tmp_path / "scans")
    first, second = images.sources(root, images.Params())
    assert first.digest() != second.digest()
    found = find_source(second.digest()[:8].upper(), dataset(root))
    assert found == [root / "b" / "0.png", root / "b" / "1.png"]
    unread = dataset(root, max_file_mb=1e-9)
    assert find_source(first.found_by(False), unread)[:1] == [root / "a" / "0.png"]  # what is too large to be read
    assert first.found_by(False) != first.digest() == first.found_by(True)


def test_a_file_is_found_below_any_folder(tmp_path: Path) -> None:
    root = scans(tmp_path / "scans")
    wanted = root / "a" / "1.png"
    assert find_file(file_digest(wanted), root) == [wanted]
    done = CliRunner().invoke(app, ["source", file_digest(wanted)[:16], str(root)])
    assert (done.exit_code, done.output.replace("\n", "")) == (0, str(wanted))
    with pytest.raises(ValueError, match=r"no file in .*scans has a digest that begins with 0123456789"):
        find_file("0123456789", root)


@pytest.mark.parametrize("wrong", ["0123456", "not a digest", ""])
def test_what_is_no_digest_is_said_to_be_none(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(ValueError, match="no beginning of a digest; give 8 or more"):
        find_source(wrong, dataset(tmp_path))
