"""Released versions: annotated git tags NAME-vN whose dvc.lock has the release.

Nothing is checked out. DVC's own file system resolves a file of a tag to its content address, in DVC's cache or on the remote;
here that address is handed on, so that ranges are read where the bytes are.
"""

from __future__ import annotations

import atexit
import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any

import fsspec
from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.open_repo import clean_repos
from dvc.scm import Git
from dvc_data.index import StorageKeyError

from tasks.placed_shards import Place

RELEASE = "data/release"
"""The folder of a release in every repository; `flows.layout` has the same."""
FACTS, STORE = "release.json", "clips.zarr"

NAMED = re.compile(r"([a-z0-9_-]+)@(v[0-9]+)")
_TAGGED = re.compile(r"([a-z0-9_-]+)-(v[0-9]+)")
_LOCAL = fsspec.filesystem("file")

atexit.register(clean_repos)  # what DVC cloned in this process; its own commands do the same


@dataclass(frozen=True)
class Version:
    """One released version.

    Attributes:
        changelog: the tag's message.
    """

    name: str
    version: str
    day: date
    changelog: str

    @property
    def tag(self) -> str:
        return f"{self.name}-{self.version}"

    @property
    def summary(self) -> str:
        """The changelog's first line after its title."""
        return next((line for line in self.changelog.splitlines()[1:] if line.strip()), self.changelog)

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


def versions(repo: str = ".") -> list[Version]:
    """Every released version of a git repository, by name, oldest first.

    Args:
        repo: path or URL.

    Raises:
        ValueError: if there is no such repository.
    """
    with plain(repo), Repo.open(repo, uninitialized=True) as today:
        return _tagged(today)


class VersionFiles(DVCFileSystem):
    """The files of one tag, read-only, as a file system of fsspec.

    Args:
        named: NAME@vN.
        repo: path or URL of the git repository.

    Raises:
        ValueError: if it has no such version.
    """

    cachable = False

    def __init__(self, named: str, repo: str = ".") -> None:
        if (parts := NAMED.fullmatch(named)) is None:
            raise ValueError(f"{named!r} is no version; write NAME@vN, as `cinefab list` does")
        self.named, self.tag, self._places = named, "-".join(parts.groups()), dict[str, Place]()
        with plain(repo):
            with Repo.open(repo, uninitialized=True) as today:
                known, remote = _tagged(today), _remote(today)
            if named not in map(str, known):
                raise ValueError(f"{named}: {repo} has no annotated tag {self.tag}; versions there: "
                                 f"{', '.join(map(str, known)) or 'none'}")
            super().__init__(repo, rev=self.tag, config=remote)
            _ = self.repo  # opened now, so that what is wrong with it is said here

    def place(self, path: str) -> Place:
        """Where the bytes of a file are: in DVC's cache if it is there, else on the remote.

        Raises:
            FileNotFoundError: if the version has no such file.
            ValueError: if it has, but there is no remote.
        """
        if path not in self._places:
            entry = self.info(path)["dvc_info"]["entry"]
            storage = self.repo.index.data["repo"].storage_map
            system, where = storage.get_cache(entry)
            if not system.exists(where):
                try:
                    system, where = storage.get_remote(entry)
                except StorageKeyError:
                    raise ValueError(f"{self.named}: {path} is not in DVC's cache, and the repository has no remote; "
                                     "add one with `dvc remote add --default`") from None
            self._places[path] = (_LOCAL if system.protocol == "local" else system.fs, where)
        return self._places[path]

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        """Bytes `start` to `end` of a file; the whole file's are compared with the hash that git has of it.

        Raises:
            FileNotFoundError: if the version has no such file.
            ValueError: if it has, but its bytes are nowhere or others.
        """
        system, where = self.place(path)
        try:
            content: bytes = system.cat_file(where, start=start, end=end)
        except FileNotFoundError:  # to zarr that would mean zeros
            raise ValueError(f"{self.named}: {path} is neither in DVC's cache nor on the remote; ask whoever released it "
                             f"to run `dvc push` at tag {self.tag} ({where})") from None
        known = self.info(path).get("md5")
        if start is None and end is None and known and hashlib.md5(content, usedforsecurity=False).hexdigest() != known:
            raise ValueError(f"{self.named}: {path} has other bytes than were released; delete {where} and pull it again")
        return content

    def digest(self, path: str) -> str | None:
        """The hash that git has of a file or folder; None if the version has none of it."""
        return self.info(path).get("md5") if self.exists(path) else None


def _tagged(repo: Repo) -> list[Version]:
    if not isinstance(repo.scm, Git):
        raise ValueError(f"{repo.root_dir}: is no git repository, so it has no versions")
    tags = {tag: repo.scm.get_tag(tag) for tag in repo.scm.list_tags() if _TAGGED.fullmatch(tag)}
    found = [
        Version(named[1], named[2], about.tag_datetime.date(), about.message.strip())
        for tag, about in tags.items()
        if (named := _TAGGED.fullmatch(tag)) and not isinstance(about, str)  # a light tag is somebody's bookmark
    ]
    return sorted(found, key=lambda one: (one.name, int(one.version[1:])))


def _remote(repo: Repo) -> dict[str, Any]:
    """The remote that the repository has by default today; the one of an old tag may be gone."""
    name = repo.config["core"].get("remote")
    return {"core": {"remote": name}, "remote": {name: repo.config["remote"][name]}} if name else {}


@contextmanager
def plain(repo: str) -> Iterator[None]:
    """What DVC says of a repository, as one line."""
    try:
        yield
    except DvcException as error:
        raise ValueError(f"{repo}: {' '.join(str(error.__cause__ or error).split())}") from error
