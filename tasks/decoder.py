"""Raw files are decoded in another process, with limits: decoders are C code, and a file may be made to turn them against us.

    volume = decoded("dicom", location, params, DecoderParams())[0].read()

What crashes, hangs or asks for too much memory there costs one file, which is quarantined with that reason, and the next one is
read by a new worker. Nothing that comes back is trusted more than a file: a JSON header, then the bytes of arrays of numbers,
no larger than a worker's memory.
"""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
import weakref
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from models import plugin
from tasks.decoder_process import receive, receive_into, send
from tasks.params import DecoderParams
from tasks.pseudonyms import key
from tasks.readers import QuarantinedError, Source, Volume

FOLDERS = ("folder", "images", "masks", "table")
"""Options of readers that name what is looked into, relative to the location."""
_ROOT = Path(__file__).parent.parent


def decoded(reader: str, location: Path, options: BaseModel, limits: DecoderParams) -> list[Source]:
    """The sources of a reader, listed and read by another process, which lives as long as any of them; one thread at a time.

    A reader that computes what it gives (the phantom) is called here.

    Args:
        options: the reader's own Params.

    Raises:
        ValueError: naming the location, if its sources cannot be listed.
    """
    module = plugin.load("tasks.readers", reader)
    if getattr(module, "COMPUTED", False):
        return list(module.sources(location, options))
    for name in FOLDERS:
        if isinstance(value := getattr(options, name, None), str) and not _inside(location, value):
            raise ValueError(f"dataset.options.{name}: {value!r:.80} leads out of the data set's folder, {location}")
    if getattr(options, "by_hash", False):
        key()  # made now, if there is none: the other process may write no file
    task = {"reader": reader, "location": str(location), "options": options.model_dump(mode="json")}
    return _Decoder(limits).sources(location, task)


def _inside(location: Path, value: str) -> bool:
    try:
        return (location / value).resolve().is_relative_to(location.resolve())
    except (OSError, ValueError, RuntimeError):  # a NUL, or links in a circle
        return False


class _Decoder:
    """One process that lists, and the worker it has at the time."""

    def __init__(self, limits: DecoderParams) -> None:
        self._memory, self._seconds = int(limits.memory_gb * 1e9), limits.seconds
        self._control, theirs = socket.socketpair()
        path = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        # arenas: or every thread of a video decoder reserves 64 MB that count as taken
        env = {**os.environ, "PYTHONPATH": path, "MALLOC_ARENA_MAX": "2"}
        command = [sys.executable, "-P", "-m", "tasks.decoder_process", str(theirs.fileno())]
        with theirs:  # libraries complain on standard error, in the words of the file
            process = subprocess.Popen(command, env=env, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._worker: socket.socket | None = None  # closes with the last reference, which ends the worker
        weakref.finalize(self, _end, process)

    def sources(self, location: Path, task: dict[str, Any]) -> list[Source]:
        try:
            send(self._control, {**task, "memory": self._memory, "seconds": self._seconds})
            answer = receive(self._control)
        except OSError:
            answer = {"error": "the process that lists its files ended; see dataset.decoder"}
        if "error" in answer:
            raise ValueError(f"dataset.location: {location}: {answer['error']}")
        self._next_worker()
        return [Source(**{**said, "files": tuple(map(Path, said["files"])), "read": partial(self.read, number)})
                for number, said in enumerate(answer["sources"])]

    def read(self, number: int) -> Volume:
        """What the source's own `read` returns, or why it did not."""
        assert self._worker is not None
        try:
            send(self._worker, number)
            if (reason := (answer := receive(self._worker)).get("refused")) is not None:
                raise QuarantinedError(reason)
            frames, *masks = (self._array(self._worker, dtype, shape) for dtype, shape in answer["arrays"])
        except OSError:
            raise QuarantinedError(self._next_worker()) from None
        labels, spacing = (None if answer[name] is None else tuple(answer[name]) for name in ("labels", "spacing_mm"))
        return Volume(frames, masks[0] if masks else None, answer["frame_time_ms"], answer["mask_volume"], labels, spacing)

    def _array(self, worker: socket.socket, dtype: str, shape: list[int]) -> NDArray[Any]:
        kind = np.dtype(dtype)
        if kind.kind not in "buif" or math.prod(shape) * kind.itemsize > self._memory:
            raise ConnectionError("a worker that is not to be believed")
        array = np.empty(shape, kind)
        receive_into(worker, array.reshape(-1).view(np.uint8).data)
        return array

    def _next_worker(self) -> str:
        """Have another worker; how the last one ended."""
        if self._worker is not None:
            self._worker.close()
        said, descriptors, _, _ = socket.recv_fds(self._control, 4096, 1)
        if not descriptors:
            raise ValueError("dataset: the process that starts decoders was killed; run the stage again")
        self._worker = socket.socket(fileno=descriptors[0])
        return str(json.loads(said))


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
