"""What it costs that raw files are decoded in another process: `python benchmarks/decoder.py FOLDER READER [OPTIONS as JSON]`.

Every source is read here and there in turn, so that whatever else the machine does is shared out; then start and listing.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from models import plugin
from tasks.decoder import decoded
from tasks.params import DecoderParams


def main(folder: Path, reader: str, options: str = "{}") -> None:
    module = plugin.load("tasks.readers", reader)
    params = module.Params.model_validate(json.loads(options))
    began = time.perf_counter()
    there = decoded(reader, folder, params, DecoderParams())
    start = time.perf_counter() - began
    here, seconds, size = module.sources(folder, params), {"here": 0.0, "there": 0.0}, 0
    for number, (one, other) in enumerate(zip(here, there, strict=True)):
        for name, source in (("here", one), ("there", other))[:: 1 if number % 2 else -1]:
            began = time.perf_counter()
            volume = source.read()
            seconds[name] += time.perf_counter() - began
        size += volume.frames.nbytes
    print(f"{len(here)} files, {size / 1e6:.0f} MB of pixels: here {seconds['here']:.2f} s, there {seconds['there']:.2f} s "  # noqa: T201
          f"({seconds['there'] / seconds['here'] - 1:+.1%}), once {start:.2f} s to start and list")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
