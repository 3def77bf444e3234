"""docs/scale.md is what benchmarks/scale.py makes of the committed records; its arithmetic, by hand."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def scale() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scale", ROOT / "benchmarks" / "scale.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_script_makes(scale: ModuleType) -> None:
    assert (ROOT / "docs" / "scale.md").read_text() == scale.page(ROOT / "docs" / "results")


def test_costs_are_multiples_of_rates(scale: ModuleType, tmp_path: Path) -> None:
    """1.5 s of CPU for sampling and 0.25 s of filters a clip, 20 kB of it, 3 kB of evidence; workers count one by one."""
    machine = {"device": "cpu", "cores": 4, "threads": 1, "load": 0.5}
    sampled = {"clips": 40, "workers": 2, "model_seconds": 80.0, "cpu_seconds": 60.0, "overhead": 0.1, "bytes_a_clip": 20e3,
               "shard_clips": 64, "clip": {"frames": 8, "height": 40, "width": 48, "channels": 1}, **machine}
    curated = {"clips": 40, "workers": 1, "wall_seconds": 10.0, "evidence_bytes_a_clip": 3e3, **machine}
    for stage, one in (("sample", sampled), ("curate", curated)):
        (tmp_path / "data/timing" / stage).mkdir(parents=True)
        (tmp_path / "data/timing" / stage / "sfvd.json").write_text(json.dumps(one))
    (tmp_path / "results/demo").mkdir(parents=True)
    (tmp_path / "results/demo/timing.json").write_text(json.dumps(scale.take(tmp_path / "data")))
    grown = [{"clips": clips, "shards": -(-clips // 64), "plan_seconds": clips / 1e4, "store_seconds": clips / 1e3,
              "finish_seconds": clips / 1e4, "peak_mb": 500 + clips / 1e3} for clips in (1000, 10000)]
    (tmp_path / "results/bookkeeping.json").write_text(json.dumps(grown))
    (tmp_path / "speed").mkdir()
    (tmp_path / "speed/sampling.jsonl").write_text(json.dumps(
        {"device": "A GPU", "profile": "big", "batch_clips": 8, "clip": [16, 256, 256], "way": "bf16", "seconds_a_clip": 3.6,
         "peak_gib": 40.2}) + "\n")
    page = scale.page(tmp_path / "results")
    assert "| demo | sfvd | 8 x 40 x 48 | 40 | 2.00 | 1.50 | 10.0% | 0.250 | 20.0 | CPU, 1 thread, load 0.5 on 4 co" in page
    assert "| 1e3 | 16 | 20 MB | 0.417 h | 0.0694 h |" in page
    assert "| 1e7 | 156,250 | 200 GB | 4,170 h | 694 h |" in page
    assert "| A GPU | `big` | 8 of 16 x 256 x 256 | bf16 | 3.6 | 40 GiB | 1 h | 10 h | 100 h | 1,000 h | 10,000 h |" in page
    assert "| 1e4 | 157 | 1 s | 10 s | 1 s | 1.20 | 0.51 GB | measured |" in page
    assert "| 1e7 | 156,250 | 16.7 min | 2.78 h | 16.7 min | 1.20 | 10.50 GB | 1000 times 1e4 |" in page
    assert "| demo | 3.0 | 300 MB | 3 GB | 30 GB |" in page
    assert "<!--" not in page
