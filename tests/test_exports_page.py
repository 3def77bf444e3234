"""docs/exports.md is what benchmarks/exports.py makes of the committed measurement, and names every format there is."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import exports
from models import plugin
from tasks.export import FORMATS

ROOT = Path(__file__).parent.parent


def test_the_page_is_what_the_measurement_says() -> None:
    assert (ROOT / "docs" / "exports.md").read_text() == exports.page()


def test_every_format_was_measured() -> None:
    assert sorted(json.loads(exports.MEASURED.read_text())["exports"]) == plugin.kinds(FORMATS)
    assert all(f"`{kind}`" in exports.page() for kind in plugin.kinds(FORMATS))


def test_sizes_and_times_by_hand() -> None:
    found = {"clips": 50, "bytes": 1000, "exports": {"nifti": {"seconds": 4.0, "bytes": 1500}}}
    assert exports.table(found).splitlines()[2].endswith("| 1.50 | 8.0 |")
