"""What a process that decodes may take, how one that took more ended, and one call in such a process.

Neither imports torch: what is to be decoded had better not find it there, and a fork of many threads is none.
"""

from __future__ import annotations

import contextlib
import math
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from tasks.readers import QuarantinedError

SECONDS, MEMORY_GB = 600, 8
"""What one file may take where nothing else is said."""
OPEN_FILES = 256
PROCESSOR_SHARE = 4
"""Seconds of processor time for one of the clock: decoders of video have threads."""
BROKEN, OUT_OF_MEMORY = 1, 3
"""How a process ends that failed, and one that was refused memory: much may be held, and C code may have taken it badly."""
_GOOD, _REFUSED = b"+", b"-"


def limit(memory: int) -> None:
    """No files written, few open, no core dumped, and `memory` bytes beyond what the process has."""
    with contextlib.suppress(OSError, ValueError):  # there is /proc on Linux only, and macOS refuses this limit
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + memory,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def start_clock(seconds: int) -> None:
    """From now on the kernel ends the process when it takes too long, in C code as well; `signal.alarm(0)` stops the clock."""
    used = math.ceil(sum(os.times()[:2]))
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (used + PROCESSOR_SHARE * seconds, hard))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # whatever a process that forked this one does about it
    signal.alarm(seconds)


def how_it_ended(status: int, time: str, memory: str) -> str | None:
    """In plain words, from what `os.waitpid` says; None for one that ended well.

    Args:
        time, memory: what the limits are, in words.
    """
    code = os.waitstatus_to_exitcode(status)
    if code == 0:
        return None
    if code == OUT_OF_MEMORY:
        return f"takes more memory to decode than {memory}"
    if code in (-signal.SIGALRM, -signal.SIGXCPU):
        return f"takes longer to decode than {time}"
    if code == -signal.SIGKILL:
        return "cannot be decoded: its decoder was killed, as by a machine short of memory"
    return f"cannot be decoded: its decoder crashed ({signal.Signals(-code).name if code < 0 else f'status {code}'})"


def limited(make: Callable[[], bytes]) -> bytes:
    """What `make` gives in a fork of this process that has `SECONDS` and, beyond what this has, `MEMORY_GB`.

    Raises:
        QuarantinedError: if `make` raises one, or its process ends otherwise than by giving something.
    """
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        _give(make, theirs)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        said, content = pipe.read(1), pipe.read()
    ended = how_it_ended(os.waitpid(child, 0)[1], f"{SECONDS} s", f"{MEMORY_GB} GB")
    if ended is not None or said == _REFUSED:
        raise QuarantinedError(ended or content.decode())
    return content


def _give(make: Callable[[], bytes], to: int) -> NoReturn:
    try:
        limit(int(MEMORY_GB * 1e9))
        start_clock(SECONDS)
        try:
            said, content = _GOOD, make()
        except QuarantinedError as error:
            said, content = _REFUSED, str(error).encode()
        with os.fdopen(to, "wb") as pipe:
            pipe.write(said)
            pipe.write(content)
        os._exit(0)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    finally:
        os._exit(BROKEN)
