"""The other side of `tasks.decoder`: a process that can do little but decode.

It lists the sources of a reader once, then forks workers, one after the other, each of which decodes until it dies of what it
was given. The listing is not done again for the next one, and what a file did to a worker's memory is gone with it. Neither
imports torch: half a second instead of three, and there is less to be turned against us.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import plugin
from tasks.limits import BROKEN, OUT_OF_MEMORY, how_it_ended, limit, start_clock
from tasks.readers import QuarantinedError, Source


def main(control: socket.socket) -> None:
    """List the sources, send them, and have workers until whoever asks is gone."""
    task = receive(control)
    try:
        reader = plugin.load("tasks.readers", task["reader"])
        limit(task["memory"])
        sources: list[Source] = list(reader.sources(Path(task["location"]), reader.Params.model_validate(task["options"])))
    except MemoryError:
        send(control, {"error": "takes more memory than dataset.decoder.memory_gb to be listed"})
        return
    except Exception as error:  # whatever a hostile table or name brings about
        send(control, {"error": str(error) if isinstance(error, ValueError) else f"cannot be listed ({type(error).__name__})"})
        return
    send(control, {"sources": [_described(source) for source in sources]})
    ended: str | None = ""
    while ended is not None:
        ours, theirs = socket.socketpair()
        worker = os.fork()
        if worker == 0:
            control.close()
            ours.close()
            _work(theirs, sources, task["seconds"])
        theirs.close()
        try:
            socket.send_fds(control, [json.dumps(ended).encode()], [ours.fileno()])
        except OSError:  # nobody listens any more
            return
        finally:
            ours.close()
        ended = how_it_ended(os.waitpid(worker, 0)[1], f"dataset.decoder.seconds: {task['seconds']} s",
                             "dataset.decoder.memory_gb")


def send(to: socket.socket, header: Any, arrays: Sequence[NDArray[Any]] = ()) -> None:
    """A JSON value, its length before it, and behind it the arrays' bytes."""
    content = json.dumps(header).encode()
    to.sendall(len(content).to_bytes(8, "big") + content)
    for array in arrays:
        to.sendall(array.reshape(-1).view(np.uint8).data)


def receive(source: socket.socket) -> Any:
    """The JSON value that `send` sent; OSError if nobody sends any more."""
    length = bytearray(8)
    receive_into(source, memoryview(length))
    content = bytearray(int.from_bytes(length, "big"))
    receive_into(source, memoryview(content))
    return json.loads(content)


def receive_into(source: socket.socket, buffer: memoryview) -> None:
    """As many bytes as the buffer has; OSError if there are fewer."""
    while len(buffer):
        if not (count := source.recv_into(buffer)):
            raise ConnectionError("nobody sends any more")
        buffer = buffer[count:]


def _described(source: Source) -> dict[str, Any]:
    """All of a source but what decodes it."""
    kept = {field.name: getattr(source, field.name) for field in fields(source) if field.name != "read"}
    return {**kept, "files": [str(file) for file in source.files], "texts": dict(source.texts)}


def _work(asked: socket.socket, sources: Sequence[Source], seconds: int) -> None:
    """Decode what is asked for until nobody asks; never returns."""
    try:
        while (number := _asked_for(asked)) is not None:
            start_clock(seconds)
            header, arrays = _decoded(sources[number])
            signal.alarm(0)
            send(asked, header, arrays)
        os._exit(0)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    finally:
        os._exit(BROKEN)


def _asked_for(asked: socket.socket) -> int | None:
    with contextlib.suppress(OSError):
        return int(receive(asked))
    return None


def _decoded(source: Source) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    try:
        volume = source.read()
    except QuarantinedError as error:
        return {"refused": str(error)}, []
    except MemoryError:
        raise
    except Exception as error:  # decoders raise what they like; its words may hold what the file says of a person
        return {"refused": f"cannot be decoded ({type(error).__name__})"}, []
    if any(one is not None and one.dtype.kind not in "buif" for one in (volume.frames, volume.masks)):
        return {"refused": f"has pixels that are not numbers: {volume.frames.dtype}"}, []
    arrays = [np.ascontiguousarray(one) for one in (volume.frames, volume.masks) if one is not None]
    return {
        "arrays": [[one.dtype.str, one.shape] for one in arrays],
        "frame_time_ms": volume.frame_time_ms,
        "mask_volume": volume.mask_volume,
        "labels": volume.labels,
        "spacing_mm": volume.spacing_mm,
    }, arrays


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
