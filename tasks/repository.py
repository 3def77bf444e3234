"""What git keeps of the line. A released version is an annotated tag NAME-vN, whose message is the version's changelog, on a
commit whose dvc.lock has that release."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

LINE = ("params.yaml", "dvc.yaml", "dvc.lock")
"""The files that say what a version is; they are committed with it."""
CODE = ("flows", "tasks", "models")


def git(*words: str) -> str:
    """Run git in the working directory; returns what it printed.

    Raises:
        ValueError: with git's own words, if it fails.
    """
    done = subprocess.run(["git", *words], capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"git {words[0]}: {done.stderr.strip() or f'ended with status {done.returncode}'}")
    return done.stdout.strip()


def check_identity() -> None:
    """Commits will be somebody's.

    Raises:
        ValueError: if this folder is in no git repository, or git does not know who commits.
    """
    git("rev-parse", "--git-dir")
    git("var", "GIT_COMMITTER_IDENT")


def check_committed() -> str:
    """The commit that is checked out, if it and the files in `LINE` are all that decides a version.

    Raises:
        ValueError: naming the other files that were changed and not committed, or the code git does not know.
    """
    others = [f":(exclude){name}" for name in LINE]
    changed = git("diff", "--name-only", "HEAD", "--", ".", *others).splitlines()
    unknown = git("ls-files", "--others", "--exclude-standard", "--", *CODE).splitlines()
    if changed or unknown:
        shown = ", ".join([*changed, *unknown][:5]) + (", ..." if len(changed) + len(unknown) > 5 else "")
        raise ValueError(f"{shown}: not committed, so no version could say what it was made by; commit, stash or remove it")
    return git("rev-parse", "HEAD")


def versions(name: str) -> list[int]:
    """Every N for which there is an annotated tag NAME-vN, smallest first."""
    tags = git("for-each-ref", "--format=%(objecttype) %(refname:strip=2)", f"refs/tags/{name}-v*").splitlines()
    found = [re.fullmatch(rf"tag {re.escape(name)}-v([0-9]+)", tag) for tag in tags]
    return sorted(int(one[1]) for one in found if one)


def stage_lock(stage: str, revision: str | None = None) -> dict[str, Any] | None:
    """What dvc.lock says of a stage, at a revision or (None) on disk; None if it never ran there."""
    try:
        text = Path("dvc.lock").read_text() if revision is None else git("show", f"{revision}:./dvc.lock")
    except FileNotFoundError:
        return None
    found: dict[str, Any] | None = yaml.safe_load(text)["stages"].get(stage)
    return found


def commit(message: str) -> bool:
    """Commit what changed of `LINE`, and nothing else, whatever is staged; returns whether anything had."""
    names = [name for name in LINE if Path(name).exists()]
    git("add", "--", *names)
    if not git("diff", "--name-only", "HEAD", "--", *names):
        return False
    git("commit", "--quiet", "--message", message, "--", *names)
    return True


def tag(name: str, message: str) -> None:
    """Lines that begin with # stay in the message."""
    git("tag", "--annotate", "--cleanup=verbatim", "--message", message, name)


def push(remote: str) -> None:
    """The branch that is checked out, and the annotated tags on it that the remote does not have."""
    git("push", "--quiet", "--follow-tags", remote, "HEAD")
