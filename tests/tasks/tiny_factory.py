"""A git and DVC repository with two released versions of the tiny line, as `dvc repro` and the schedule leave them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import tiny_line

from tasks.params import Params
from tasks.records import Decision
from tasks.release import release
from tasks.tables import read_table, write_table

ROOT = Path(__file__).parents[2]
STAGES = """
stages:
  prepare: {cmd: "true", outs: [{data/prepared: {persist: true}}]}
  benchmark: {cmd: "true", metrics: [data/benchmark/metrics.json]}
  release: {cmd: "true", outs: [{data/release: {persist: true}}]}
"""
"""The line's own outputs; what makes them ran already."""
RELEASED_AGAIN, NO_LONGER = tiny_line.WRONG, tiny_line.KEPT[0]
"""Rows of the set: what the second version has and the first has not, and the other way round."""


def run(folder: Path, *words: str) -> str:
    """A command of git, dvc or python in this folder, by a user of no name in particular."""
    who = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER") for what, value in (("NAME", "t"), ("EMAIL", "t@t"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(words, cwd=folder, env={**os.environ, **who, "PATH": path, "DVC_NO_ANALYTICS": "1"},
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def make(data: Path, tree: Params) -> None:
    folders = (data / name for name in ("prepared", "clips", "decisions", "audit", "benchmark", "release"))
    release(tree.release, tree.dataset, tree.audit, *folders)


def build(folder: Path, remote: str, **options: str) -> None:
    """The repository `folder`, version 2 checked out, both versions on the remote, which DVC opens with these options."""
    folder.mkdir(parents=True)
    run(folder, "git", "init", "-q", "-b", "main")
    (folder / ".dvc").mkdir()
    for name in (".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "dvc.yaml").write_text(STAGES)
    run(folder, "dvc", "remote", "add", "-q", "--default", "store", remote)
    for option, value in options.items():
        run(folder, "dvc", "remote", "modify", "store", option, value)
    data, tree = folder / "data", tiny_line.params()
    tiny_line.build(data, tree)
    make(data, tree)
    tag(folder, "v1", "7 clips released of 10 sampled")
    table = data / "decisions" / "sfvd" / "decisions.parquet"
    rows = read_table(table, Decision)
    ids = list(dict.fromkeys(row.clip_id for row in rows))
    back, gone = ids[RELEASED_AGAIN], ids[NO_LONGER]
    write_table(table, [replace(row, keep=row.keep or row.clip_id == back) if row.clip_id != gone
                        else replace(row, keep=row.filter != "similarity", reason="99.50 % like a clip kept before")
                        for row in rows], Decision)
    make(data, tree.model_copy(update={"release": tree.release.model_copy(update={"version": "v2"})}))
    tag(folder, "v2", "7 clips released of 10 sampled, others")
    run(folder, "dvc", "push", "-q", "--all-tags")
    run(folder, "git", "tag", "tiny-wires-v3")  # a light one is no release


def tag(folder: Path, version: str, summary: str) -> None:
    run(folder, "dvc", "commit", "-q", "-f")
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-q", "-m", f"Version {version}")
    run(folder, "git", "tag", "-a", f"tiny-wires-{version}", "-m", f"tiny-wires {version}\n\n{summary}\n")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
