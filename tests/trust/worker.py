"""Runs jobs in forked processes, each a session of its own: a Python whose imports are done and whose disk can fail.

    python -m tests.trust.worker < jobs      every line a JSON list of jobs; answers with their process ids, then their results

A fork costs milliseconds where imports cost seconds, which is what makes hundreds of kills affordable.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from tests.trust import jobs

KINDS = ("count", "EIO", "ENOSPC", "short write", "SIGKILL", "torn write and SIGKILL")


def main() -> None:
    for line in sys.stdin:
        wanted = json.loads(line)
        own = [_fork(job) for job in wanted]
        print(json.dumps(own), flush=True)  # noqa: T201
        began = time.monotonic()
        print(json.dumps([_result(pid, job, began) for pid, job in zip(own, wanted, strict=True)]), flush=True)  # noqa: T201


def _fork(job: dict[str, Any]) -> int:
    if (pid := os.fork()) == 0:
        os.setsid()
        status = 1
        try:
            with Path(job["said"]).open("w") as said:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
            status = _do(job)
        finally:
            os._exit(status)
    return pid


def _do(job: dict[str, Any]) -> int:
    disk = ctypes.CDLL(None)
    if "kind" in job:
        disk.fail_at(job["root"].encode(), ctypes.c_long(job["nth"]), ctypes.c_long(KINDS.index(job["kind"])))
    try:
        getattr(jobs, job["do"])(**{key: Path(value) for key, value in job["paths"].items()}, **job.get("more", {}))
        error = None
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
    calls = disk.calls_seen() if "kind" in job else 0
    Path(job["said"]).write_text(json.dumps({"error": error, "calls": calls}))
    return error is not None


def _result(pid: int, job: dict[str, Any], began: float) -> dict[str, Any]:
    _, status, used = os.wait4(pid, 0)
    took = {"seconds": time.monotonic() - began, "peak_mb": used.ru_maxrss / 1024}
    killed = -os.waitstatus_to_exitcode(status) if os.WIFSIGNALED(status) else 0
    said = {"error": None, "calls": 0} if killed else json.loads(Path(job["said"]).read_text())
    return {"killed": killed, **said, **took}


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
    os._exit(0)  # to take all that was imported down takes seconds
