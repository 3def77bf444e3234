"""dvc.yaml and the code name the same folders, commands and parameters."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from flows.__main__ import app
from flows.layout import Layout
from flows.repeat import line
from tasks.params import Params

ROOT = Path(__file__).parents[2]
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STAGES = PIPELINE["stages"]


def outs(name: str) -> set[str]:
    stage = STAGES[name].get("do", STAGES[name])
    return {next(iter(out)) if isinstance(out, dict) else out for out in stage.get("outs", []) + stage.get("metrics", [])}


def test_outputs_are_the_layout() -> None:
    data = Layout(Path("data"))
    assert outs("prepare") == {str(data.prepared)}
    assert outs("condition") == {str(data.conditions)}
    assert outs("train") == {str(data.checkpoint("${key}"))}
    assert outs("critic") == {str(data.critics / "${key}")}
    assert outs("sample") == {str(data.clips / "${key}")}
    assert outs("curate") == {str(data.decisions / "${key}")}
    assert outs("control") == {str(data.control / "${key}")}
    assert outs("audit") == {str(data.audit / "${release.source}")}
    assert all(Path(out).is_relative_to(data.benchmark) for out in outs("benchmark"))
    assert outs("release") == {str(data.release)}
    assert outs("report") == {str(data.reports)}
    assert PIPELINE["metrics"] == [str(data.reports / "metrics.json")]


def test_every_stage_is_a_command_of_its_own_name() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    for name, stage in STAGES.items():
        words = stage.get("do", stage)["cmd"].split()
        assert words[:4] == ["python", "-m", "flows", name]
        assert name in commands


def test_a_repeat_runs_every_stage() -> None:
    calls = [node.func.id for node in ast.walk(ast.parse(inspect.getsource(line.fn)))
             if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    assert set(calls) & set(STAGES) == set(STAGES)


def test_every_parameter_belongs_to_a_stage() -> None:
    named = {key.split(".")[0] for stage in STAGES.values() for key in stage.get("do", stage)["params"]}
    # `cinefab repeat` and `serve` are no stages of one line, and the engine changes no result
    assert named | {"repeats", "schedule", "engine"} == set(Params.model_fields)


def test_every_code_dependency_exists() -> None:
    for stage in STAGES.values():
        for dep in stage.get("do", stage)["deps"]:
            if "$" not in dep and not dep.startswith("data/"):
                assert (ROOT / dep).exists(), dep


def test_a_line_works_on_a_disk() -> None:
    """`Path` makes s3:/bucket of a URL, and the line would be written into a folder of that name."""
    with pytest.raises(ValueError, match="--data: s3:/bucket/run is no folder"):
        Layout(Path("s3://bucket/run"))
    assert Layout(Path("/data/a:b/run")).prepared == Path("/data/a:b/run/prepared")
