"""A run that DVC keeps under a git revision, as a folder.

By DVC as a library: its command line takes seconds for every file, this takes one for all.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def run_folder(run: str, data: Path, wanted: Sequence[str]) -> Iterator[Path]:
    """The folder `run`; or, if there is none and it is a git revision of this repository, what it holds of `data`, for a while.

    Args:
        wanted: patterns of the files below `data` that are needed; nothing else is fetched.

    Raises:
        ValueError: if `run` is neither, or DVC has not the files of that revision.
    """
    if Path(run).is_dir():
        yield Path(run)
        return
    if not _is_revision(run):
        raise ValueError(f"{run}: neither a folder nor a git revision of this repository")
    with TemporaryDirectory() as folder:
        _fetch(run, data, wanted, Path(folder))
        yield Path(folder)


def _is_revision(run: str) -> bool:
    command = ["git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{run}^{{commit}}"]
    return subprocess.run(command, capture_output=True).returncode == 0


def _fetch(revision: str, data: Path, wanted: Sequence[str], out: Path) -> None:
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from dvc_data.index import DataIndexError

    try:
        files = DVCFileSystem(rev=revision)
        for path in [path for pattern in wanted for path in files.glob((data / pattern).as_posix())]:
            own = out / Path(path).relative_to(data)
            own.parent.mkdir(parents=True, exist_ok=True)
            files.get_file(path, str(own))
    except (FileNotFoundError, DataIndexError, DvcException) as error:
        raise ValueError(f"{revision}: DVC has no whole run of it in its cache ({error}); if it was pushed, `dvc fetch "
                         "--all-commits` gets it") from None
