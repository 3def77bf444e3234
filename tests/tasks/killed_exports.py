"""    python killed_exports.py RELEASE FOLDER FORMAT...    begins each export in FOLDER/FORMAT and is killed on its way

Each in a process of its own, killed by SIGKILL at the second file that is to be renamed into place after the first part.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from tasks.export import PARTS, export
from tasks.open_release import open_release


def begin(folder: str, out: Path, kind: str) -> None:
    rename, seen = Path.replace, []

    def until_killed(self: Path, target: Path) -> Path:
        if seen or (out / PARTS / "000000.json").exists():
            seen.append(target)
        if len(seen) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(self, target)

    Path.replace = until_killed  # type: ignore[method-assign,assignment]
    export(open_release(folder), kind, out)


def main(folder: str, out: str, *kinds: str) -> None:
    for kind in kinds:
        if (child := os.fork()) == 0:
            begin(folder, Path(out) / kind, kind)
            os._exit(0)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


if __name__ == "__main__":
    main(*sys.argv[1:])
