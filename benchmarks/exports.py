"""What each export of a release weighs and takes; and the page about exports.

    python benchmarks/exports.py measure [RELEASE] > docs/results/exports.json
    python benchmarks/exports.py page > docs/exports.md

Without a release: one of the demo's size whose clips are the phantom's own; a trained generator takes a quarter of an hour.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from models import plugin
from tasks.export import FORMATS, export
from tasks.open_release import open_release
from tasks.params import load_params
from tasks.prepare import prepare
from tasks.records import ClipRecord
from tasks.release import ReleasedClip
from tasks.store import ClipStore
from tasks.tables import atomic_write, file_digest, read_table, write_json, write_table

ROOT = Path(__file__).parents[1]
MEASURED = ROOT / "docs" / "results" / "exports.json"


def measure(release: Path, what: str) -> dict[str, Any]:
    """Bytes of the release and of each export, and seconds of making it."""
    opened = open_release(str(release))
    found: dict[str, Any] = {"release": what, "clips": len(opened), "clip": opened.facts["clip"], "bytes": _bytes(release),
                             "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1), "exports": {}}
    for kind in plugin.kinds(FORMATS):
        plugin.load(FORMATS, kind)  # its libraries take seconds, whatever is exported
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            out = export(opened, kind, Path(folder) / kind)
            found["exports"][kind] = {"seconds": round(time.perf_counter() - began, 2), "bytes": _bytes(out)}
            rows = (out / "manifest.csv").read_text().splitlines()
            if "psnr_db" in rows[0]:
                values = sorted(float(row.rpartition(",")[2]) for row in rows[1:])
                found["exports"][kind]["psnr_db"] = {"lowest": values[0], "median": values[len(values) // 2]}
    return found


def table(found: dict[str, Any]) -> str:
    lines = ["| format | opened by | lost | size, of the release's | s / 100 clips |", "|---|---|---|---|---|"]
    for kind, one in found["exports"].items():
        form = plugin.load(FORMATS, kind)
        lost = form.LOSES
        if "psnr_db" in one:
            median, lowest = one["psnr_db"]["median"], one["psnr_db"]["lowest"]
            lost += f" Here {median:.1f} dB in the median clip, {lowest:.1f} dB in the worst."
        tool, size, time_taken = form.OPENED_BY.partition("; in Python")[0], one["bytes"] / found["bytes"], one["seconds"]
        lines.append(f"| `{kind}` | {tool} | {lost} | {size:.2f} | {100 * time_taken / found['clips']:.1f} |")
    return "\n".join(lines)


def page() -> str:
    found = json.loads(MEASURED.read_text())
    clip = found["clip"]
    about = (f"Measured on {found['clips']} clips of {clip['frames']} frames, {clip['height']} x {clip['width']} pixels "
             f"({found['release']}), {found['bytes'] / 1e6:.1f} MB as a release, on {found['cores']} cores under a load of "
             f"{found['load']}: times are upper bounds.")
    text = (Path(__file__).parent / "exports.md").read_text()
    return text.replace("TABLE", f"{table(found)}\n\n{about}")


def phantom_release(folder: Path) -> Path:
    """The training clips of the phantom in params.yaml, as if they were a generator's."""
    tree = load_params(ROOT / "params.yaml")
    prepare(tree.dataset, tree.seed, folder / "prepared")
    store = ClipStore.open(folder / "prepared" / "clips.zarr")
    records = read_table(folder / "prepared" / "manifest.parquet", ClipRecord)
    out = folder / "release"
    made = ClipStore.create(out / "clips.zarr", store.arrays, tree.release.shard_clips, "stand-in")
    for shard, first in enumerate(range(0, len(store), made.shard_clips)):
        rows = range(first, min(first + made.shard_clips, len(store)))
        made.write_shard(shard, [store.ids[row] for row in rows], store.load(rows))
    made.finish(len(store))
    frames, height, width, channels = store.arrays["frames"].shape
    manifest = [ReleasedClip(one.clip_id, "none", [one.patient], "phantom", one.label, one.text, tree.dataset.classes,
                             frames, height, width, digest) for one, digest in zip(records, made.digests, strict=True)]
    write_table(out / "manifest.parquet", manifest, ReleasedClip)
    atomic_write(out / "README.md", b"# A stand-in for a release, to be weighed\n")
    write_json(out / "release.json", {
        "name": tree.release.name, "version": "v0", "store_digest": made.digest, "counts": {"clips": len(store)},
        "checkpoints": {}, "dataset": tree.dataset.model_dump(include={"name", "simulated", "licence", "classes"}),
        "clip": {"frames": frames, "height": height, "width": width, "channels": channels},
        "files": {name: file_digest(out / name) for name in ("manifest.parquet", "README.md")},
    })
    return out


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main(what: str, *release: str) -> None:
    if what == "page":
        sys.stdout.write(page())
        return
    with tempfile.TemporaryDirectory() as folder:
        made = Path(release[0]) if release else phantom_release(Path(folder))
        said = open_release(release[0]).name if release else "the phantom's own, a stand-in for generated ones"
        sys.stdout.write(json.dumps(measure(made, said), indent=2) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
