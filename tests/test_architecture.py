"""Imports go down: flows -> tasks -> models; and the three names resolve inside this checkout."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "models": {"flows", "tasks", "prefect", "dvc", "zarr", "yaml", "pyarrow"},
    "tasks": {"flows", "prefect"},
    "flows": {"dvc", "torch", "zarr", "numpy"},
}

def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("floor", FORBIDDEN)
def test_imports_go_down(floor: str) -> None:
    offences = {
        str(path.relative_to(ROOT)): sorted(bad)
        for path in (ROOT / floor).rglob("*.py")
        if (bad := imported(path) & FORBIDDEN[floor])
    }
    assert not offences


def test_a_planted_import_is_found(tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text("def f():\n    import zarr.storage\n")
    assert imported(planted) & FORBIDDEN["models"] == {"zarr"}


@pytest.mark.parametrize("name", ["flows", "tasks", "models"])
def test_names_resolve_in_this_checkout(name: str) -> None:
    assert Path(importlib.import_module(name).__file__ or "").is_relative_to(ROOT)


def test_only_the_store_touches_zarr() -> None:
    users = {path.name for path in (ROOT / "tasks").rglob("*.py") if "zarr" in imported(path)}
    assert users <= {"store.py"}


def test_only_readers_of_what_git_has_touch_dvc() -> None:
    users = {path.name for path in (ROOT / "tasks").rglob("*.py") if imported(path) & {"dvc", "dvc_data"}}
    assert users <= {"versions.py", "revision.py"}


def test_nothing_unpickles() -> None:
    """No pickle, no torch.load: weights and states are safetensors, tables are Parquet, the rest JSON.

    Two files read weights as their owners publish them, tensors alone: their checksum is compared first, or, where nobody
    publishes one, names and shapes. Two run a published program, whose checksum is compared first.
    """
    published = {ROOT / "models" / "weight_files.py": "self.within(folder)", ROOT / "models" / "nets" / "i3d.py": "path"}
    programs = {ROOT / "models" / "features" / name for name in ("i3d.py", "inception_v3.py")}
    for floor in FORBIDDEN:
        for path in (ROOT / floor).rglob("*.py"):
            assert not imported(path) & {"pickle", "cloudpickle", "joblib", "dill"}, path
            assert ("torch.jit.load" in path.read_text()) == (path in programs), path
            loads = re.findall(r"torch\.load\(.*", path.read_text())
            if path in published:
                assert loads == [f'torch.load({published[path]}, map_location="cpu", weights_only=True)']
            else:
                assert not loads, path
