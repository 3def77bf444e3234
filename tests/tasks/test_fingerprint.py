"""Equal words for equal work, other words for any change."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from models.trainer import TrainParams
from tasks.fingerprint import code_digest, fingerprint, params_digest, tree_digest
from tasks.records import ScoreRecord

ROOT = Path(__file__).parents[2]


def test_content_counts_and_order_of_keys_does_not() -> None:
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    different = [
        fingerprint(), fingerprint("ab", "c"), fingerprint("a", "bc"), fingerprint(["ab", "c"]), fingerprint(1),
        fingerprint("1"), fingerprint(None), fingerprint({"a": 1}), fingerprint({"a": 2}), fingerprint({"a": 1.5}),
    ]  # fmt: skip
    assert len(set(different)) == len(different)


def test_models_and_rows_count_by_content() -> None:
    params = TrainParams(steps=3, batch_size=2)
    assert fingerprint(params) == fingerprint(params.model_dump(mode="json"))
    assert fingerprint(params) != fingerprint(params.model_copy(update={"steps": 4}))
    assert params_digest(params) == params_digest(params.model_dump(mode="json")) != params_digest({})
    assert fingerprint([ScoreRecord("a", "f", 1.0)]) != fingerprint([ScoreRecord("a", "f", 2.0)])


@pytest.mark.parametrize("value", [Path("data"), object(), {1, 2}, b"x"])
def test_what_has_no_stable_form_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="no stable form"):
        fingerprint({"key": value})


def test_the_code_counts(tmp_path: Path) -> None:
    for name in ("models/a.py", "tasks/deep/b.py", "flows/c.py", "models/note.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    floors = ("models", "tasks")
    seen = {tree_digest(tmp_path, floors)}
    (tmp_path / "flows/c.py").write_text("z = 4\n")
    (tmp_path / "models/note.md").write_text("changed")
    assert tree_digest(tmp_path, floors) in seen
    (tmp_path / "tasks/deep/b.py").write_text("y = 3\n")
    seen.add(tree_digest(tmp_path, floors))
    (tmp_path / "tasks/deep/b.py").rename(tmp_path / "tasks/deep/c.py")
    seen.add(tree_digest(tmp_path, floors))
    (tmp_path / "models/d.py").write_text("")
    seen.add(tree_digest(tmp_path, floors))
    assert len(seen) == 4
    assert code_digest() == tree_digest(ROOT, floors)


def test_the_same_in_every_process() -> None:
    script = "from tasks.fingerprint import params_digest; print(params_digest({'b': [1, 'x'], 'a': None}))"
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        found = subprocess.check_output([sys.executable, "-c", script], cwd=ROOT, env=environment, text=True)
        assert found.strip() == params_digest({"a": None, "b": [1, "x"]})
