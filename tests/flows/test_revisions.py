"""What changed between commits and since the last one: `dvc metrics diff` and `cinefab compare`, by real git and DVC."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import command, environment

from tasks.tables import read_json, write_json

METRICS = "data/reports/metrics.json"
NAME = "appearance.sfvd.contrast.value"


def commit(folder: Path, api: str, message: str) -> None:
    command(folder, api, "git", "add", "--all")
    command(folder, api, "git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "--message", message)


def difference(folder: Path, api: str, *revisions: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(command(folder, api, "dvc", "metrics", "diff", "--json", *revisions))
    return found


def compared(folder: Path, api: str, first: str, second: str) -> str:
    return command(folder, api, "python", "-m", "flows", "compare", first, second)


@pytest.fixture(scope="module")
def changed(line: Path, api: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A line committed as it was made, then with one measure doubled and one parameter changed by hand, not committed."""
    folder = tmp_path_factory.mktemp("revisions") / "checkout"
    shutil.copytree(line, folder)
    commit(folder, api, "made")
    assert difference(folder, api) == {}
    assert "Nothing changed" in compared(folder, api, "HEAD", "data")
    measured = folder / "data" / "control" / "sfvd" / "appearance.json"
    numbers = read_json(measured)
    numbers["contrast"]["value"] *= 2
    write_json(measured, numbers)  # by rename: what DVC's cache holds under the old name stays
    shown = read_json(folder / METRICS)
    write_json(folder / METRICS, {**shown, NAME: 2 * shown[NAME]})
    asked = folder / "data" / "reports" / "params.yaml"
    params = yaml.safe_load(asked.read_text())
    asked.unlink()
    asked.write_text(yaml.safe_dump(params | {"seed": 1}, sort_keys=False))
    return folder


def test_dvc_sees_numbers_alone(changed: Path, api: str) -> None:
    found = json.loads(command(changed, api, "dvc", "metrics", "show", "--json"))[""]["data"]
    assert {METRICS, "data/benchmark/metrics.json"} == set(found)
    numbers = found[METRICS]["data"]
    assert {"counts.released", "counts.sampled.sfvd", NAME} <= set(numbers)
    assert all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers.values())


def test_since_the_last_commit_and_between_two(changed: Path, api: str) -> None:
    old = read_json(changed / METRICS)[NAME] / 2
    wanted = {METRICS: {NAME: {"old": old, "new": 2 * old, "diff": old}}}
    assert difference(changed, api) == wanted
    told = compared(changed, api, "HEAD", "data")
    assert "Changed: 1 parameter (seed), 1 number of sets (0 with intervals apart); no result of the benchmark changed." in told
    assert "  seed: 0 -> 1" in told
    (row,) = (line for line in told.splitlines() if line.split()[:1] == [NAME])  # with the interval in both, which is the same
    assert f" {old:.4g} [" in row and f" {2 * old:.4g} [" in row and f"{old:+.3g}" in row
    command(changed, api, "dvc", "commit", "--force", "control@sfvd", "report")
    commit(changed, api, "changed")
    assert difference(changed, api) == {}
    assert difference(changed, api, "HEAD~1", "HEAD") == wanted
    between = compared(changed, api, "HEAD~1", "HEAD")
    assert between.splitlines()[2:] == told.splitlines()[2:]


def test_a_revision_whose_files_are_nowhere(changed: Path, api: str, tmp_path: Path) -> None:
    folder = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(changed), str(folder)], check=True)
    words = ["python", "-m", "flows", "compare", "HEAD", str(changed / "data")]
    done = subprocess.run(words, cwd=folder, env=environment(api), capture_output=True, text=True)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("cinefab: HEAD: DVC has no whole run of it in its cache")
