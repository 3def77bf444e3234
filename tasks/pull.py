"""A released version as a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from tasks.release_facts import release_facts
from tasks.store import same_content
from tasks.store_check import verify
from tasks.tables import PARTIAL, file_digest
from tasks.versions import FACTS, RELEASE, STORE, VersionFiles, plain


def pull(named: str, out: Path, repo: str = ".") -> Path:
    """Have a version as a folder, every byte of it verified. Doing it again verifies it again.

    Of a repository on this machine the files go into its DVC cache and `out` gets hard links to them, so that nothing is stored
    twice; they are read-only. Of a repository elsewhere they are copied.

    Returns:
        `out`.

    Raises:
        ValueError: if there is no such version, `out` is something else, or a byte is not what was released.
    """
    files = VersionFiles(named, repo)
    if not out.exists():
        partial = out.with_name(out.name + PARTIAL)
        shutil.rmtree(partial, ignore_errors=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        with plain(repo):
            if files.repo.url is None:
                files.repo.fetch(targets=[RELEASE])
            files.get(RELEASE, str(partial), recursive=True)
        partial.rename(out)
    elif not same_content(out / FACTS, files.cat_file(f"{RELEASE}/{FACTS}")):
        raise ValueError(f"{out}: is there already and is not {named}; give another --out")
    if problems := _problems(out):
        raise ValueError(f"{out}: {problems[0]} ({len(problems)} problems); delete it and pull {named} again")
    return out


def _problems(folder: Path) -> list[str]:
    """What in a release's folder is not as its release.json says."""
    facts = release_facts((folder / FACTS).read_bytes(), str(folder / FACTS))
    tables = [f"{name}: its bytes are not those that were released" for name, digest in sorted(facts["files"].items())
              if not (folder / name).is_file() or file_digest(folder / name) != digest]
    return tables + [f"{STORE}/{problem}" for problem in verify(folder / STORE)]
