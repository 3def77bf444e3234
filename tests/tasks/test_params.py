"""A bad configuration fails before any work, in lines that name key, value and remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.params import load_params

ROOT = Path(__file__).parents[2]
Edit = Callable[[dict[str, Any]], None]


def setting(path: str, value: Any) -> Edit:
    def edit(tree: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        for parent in parents:
            tree = tree[parent]
        tree[last] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (setting("sede", 1), "sede: Extra inputs"),
        (setting("dataset.clip_frames", 0), "dataset.clip_frames: Input should be greater than 0"),
        (setting("dataset.split", {"train": 0.9, "val": 0.2, "test": 0.2}), "train \\+ val \\+ test is 1.3"),
        (setting("dataset.reader", "nope"), "'nope' is not in tasks.readers; choose one of"),
        (setting("dataset.options.patientz", 3), "patientz"),
        (setting("generators.sfvd.kind", "gan"), "'gan' is not in models.generators"),
        (setting("generators.sfvd.colour", 3), "colour"),
        (setting("samples.sfvd.generator", "lddm"), "samples.sfvd.generator: 'lddm' is not among generators: sfvd"),
        (setting("samples.sfvd.sampling.step", 3), "step"),
        (setting("filters.agreement.critic", "who"), "filters.agreement.critic: 'who' is not among critics"),
        (setting("filters.agreement.critic", "vae"), "filters.agreement.critic: 'vae' is a vae, but agreement looks"),
        (setting("benchmark.baseline", "who"), "benchmark.baseline: 'who' is not among arms"),
        (setting("benchmark.arms.mixed.synthetic", "who"), "benchmark.arms.mixed.synthetic: 'who' is not among samples"),
        (setting("benchmark.arms.mixed", {"geometric": True}), "an arm needs real"),
        (setting("release.source", "who"), "release.source: 'who' is not among samples"),
        (setting("engine", {"processes": 2}), "processes: 2 cannot share out 1 batches; .* every training of generators.sfvd"),
        (setting("engine", {"kind": "ray"}), "engine.kind: Input should be 'threads' or 'dask'"),
        (setting("engine", {"address": "tcp://host:8786"}), "engine: .*address: of kind: dask alone"),
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, edit: Edit, message: str) -> None:
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    edit(tree)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(ValueError, match=message):
        load_params(tmp_path / "params.yaml")


def test_no_file_and_no_yaml(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file; run cinefab from"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("a: [1\n")
    with pytest.raises(ValueError, match="not YAML"):
        load_params(tmp_path / "params.yaml")
