"""Git: which tags are versions, what is committed and what stands in the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks import repository
from tasks.repository import git


@pytest.fixture(autouse=True)
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory: one line inside a repository of several."""
    folder = tmp_path / "lines" / "one"
    (folder / "tasks").mkdir(parents=True)
    monkeypatch.chdir(folder)
    for name in (*repository.LINE, "tasks/prepare.py", "README.md", "../other.txt"):
        (folder / name).write_text(f"stages: {{release: {{outs: [{name}]}}}}\n")
    git("init", "--quiet", "..")
    git("config", "user.name", "a")
    git("config", "user.email", "a@b")
    git("add", "..")
    git("commit", "--quiet", "--message", "start")


def test_only_annotated_tags_of_that_name_are_versions() -> None:
    for name in ("set-v10", "set-v2", "set-v3-rc", "other-set-v7", "set-vx"):
        repository.tag(name, name)
    git("tag", "set-v99")
    assert repository.versions("set") == [2, 10]
    assert repository.versions("s.t") == []


def test_a_tag_keeps_its_whole_message() -> None:
    repository.tag("set-v1", "set v1\n\n# a line that git would take for a comment\n")
    assert "# a line" in git("tag", "--list", "-n9", "set-v1")


def test_only_the_files_of_the_line_are_committed() -> None:
    Path("params.yaml").write_text("new: 1\n")
    Path("README.md").write_text("staged by somebody")
    git("add", "README.md")
    assert repository.commit("next")
    assert git("show", "--name-only", "--format=%s", "HEAD").split() == ["next", "one/params.yaml"]
    assert git("diff", "--name-only", "--cached") == "one/README.md"
    assert not repository.commit("again")


def test_a_first_lock_is_committed_and_read() -> None:
    git("rm", "--quiet", "dvc.lock")
    git("commit", "--quiet", "--message", "none")
    assert repository.stage_lock("release") is None
    Path("dvc.lock").write_text("stages: {release: {outs: [now]}}\n")
    assert repository.commit("lock")
    repository.tag("set-v1", "one")
    Path("dvc.lock").write_text("stages: {release: {outs: [later]}}\n")
    assert repository.stage_lock("release") == {"outs": ["later"]}
    assert repository.stage_lock("release", "set-v1") == {"outs": ["now"]}
    assert repository.stage_lock("audit", "set-v1") is None


def test_what_is_not_committed_is_named() -> None:
    for name in repository.LINE:
        Path(name).write_text("of the line")
    Path("../other.txt").write_text("of another line")
    Path("notes.txt").write_text("of no stage")
    assert repository.check_committed() == git("rev-parse", "HEAD")
    Path("tasks/prepare.py").write_text("changed")
    Path("tasks/mine.py").write_text("new")
    with pytest.raises(ValueError, match=r"^one/tasks/prepare.py, tasks/mine.py: not committed"):
        repository.check_committed()


def test_commits_and_tags_are_pushed(tmp_path: Path) -> None:
    git("init", "--quiet", "--bare", str(tmp_path / "hub"))
    git("remote", "add", "hub", str(tmp_path / "hub"))
    repository.tag("set-v1", "one")
    repository.push("hub")
    repository.push("hub")
    assert git("ls-remote", "--tags", "hub").split()[1] == "refs/tags/set-v1"
    with pytest.raises(ValueError, match=r"git push: .*nowhere"):
        repository.push("nowhere")


def test_a_folder_without_git_or_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"git rev-parse: .*not a git repository"):
        repository.check_identity()
    git("init", "--quiet")
    with pytest.raises(ValueError, match="tell me who you are"):
        repository.check_identity()
