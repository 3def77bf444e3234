"""Profiles merge over params.yaml, keep its comments and are idempotent."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tasks.params import load_params
from tasks.profiles import apply_profiles, set_version

ROOT = Path(__file__).parents[2]


def test_merge_replace_and_report(tmp_path: Path) -> None:
    params, profile = tmp_path / "params.yaml", tmp_path / "p.yaml"
    params.write_text("# keep me\na: {x: 1, y: 2}\nb: [1]\nc: {old: 1}\n")
    profile.write_text("a: {x: 5}\nb: [1]\nc!: {new: 2}\n")
    assert apply_profiles(params, [profile]) == [("a.x", 1, 5), ("c.new", "(absent)", 2), ("c.old", 1, "(absent)")]
    assert params.read_text().startswith("# keep me")
    assert yaml.safe_load(params.read_text()) == {"a": {"x": 5, "y": 2}, "b": [1], "c": {"new": 2}}
    assert apply_profiles(params, [profile]) == []


def test_unknown_profile_names_the_known(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("a: 1\n")
    (tmp_path / "known.yaml").write_text("a: 2\n")
    with pytest.raises(ValueError, match="choose one of known"):
        apply_profiles(tmp_path / "params.yaml", [tmp_path / "nope.yaml"])


@pytest.mark.parametrize(
    "names", [["phantom"], ["hippocampus"], ["hippocampus", "study"], ["phantom", "gpu"], ["hippocampus", "gpu"],
              ["lung"], ["lung", "classification_study"], ["manoeuvres"], ["hippocampus_volume"], ["actions"], ["b_lines"]]
)
def test_every_shipped_profile_gives_valid_parameters(tmp_path: Path, names: list[str]) -> None:
    params = tmp_path / "params.yaml"
    params.write_text((ROOT / "params.yaml").read_text())
    apply_profiles(params, [ROOT / "profiles" / f"{name}.yaml" for name in names])
    assert load_params(params).seed == 0


def test_the_committed_parameters_are_the_phantom_ones(tmp_path: Path) -> None:
    """Otherwise `make demo` would leave the checkout changed."""
    params = tmp_path / "params.yaml"
    params.write_text((ROOT / "params.yaml").read_text())
    assert apply_profiles(params, [ROOT / "profiles" / "phantom.yaml"]) == []


def test_there_and_back_again(tmp_path: Path) -> None:
    """Every data set's profile, then the phantom's, gives the committed values back: phantom sets everything."""
    params = tmp_path / "params.yaml"
    params.write_text((ROOT / "params.yaml").read_text())
    for name in ("hippocampus", "lung", "manoeuvres", "hippocampus_volume", "actions", "b_lines", "phantom"):
        apply_profiles(params, [ROOT / "profiles" / f"{name}.yaml"])
    assert yaml.safe_load(params.read_text()) == yaml.safe_load((ROOT / "params.yaml").read_text())


def test_a_version_is_all_that_changes(tmp_path: Path) -> None:
    params, before = tmp_path / "params.yaml", (ROOT / "params.yaml").read_text()
    params.write_text(before)
    set_version(params, "v1")
    assert params.read_text() == before
    set_version(params, "v2")
    assert params.read_text() == before.replace("version: v1", "version: v2") != before
