"""A release as a folder that other people's tools open: one format of `tasks.exports`, with the card and what describes it.

    frames/, masks/, shards/ or data/   the clips, as the format has them
    manifest.csv                        one row a clip, in the release's order; lists are JSON
    README.md                           the data card
    CITATION.cff, croissant.json        how to cite it, and what is in it for programs
    export.json                         what it is an export of; written first, so that no other folder is written into
    SHA256SUMS                          of every file, written last; `sha256sum -c SHA256SUMS` checks them

The clips go in the release's shards: what a shard gives is renamed into place whole, then its record is written to `.parts`,
and a run that was killed goes on with the next one.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from models import plugin
from tasks.citation import citation
from tasks.croissant import File, croissant
from tasks.exports import Cells, Clip, Format
from tasks.fingerprint import fingerprint, params_digest
from tasks.open_release import Release
from tasks.tables import PARTIAL, atomic_write, file_digest, read_json, read_sealed, write_json, write_sealed

log = logging.getLogger(__name__)

IDENTITY, SUMS, PARTS = "export.json", "SHA256SUMS", ".parts"
SPLIT = "train"
"""Of every clip of a release: it comes of training patients (`tasks.release` refuses others)."""
FORMATS = "tasks.exports"
_NAME = re.compile(r"[\w-]{1,64}", re.ASCII)


def export(release: Release, kind: str, out: Path) -> Path:
    """Write the release as one format; done again it compares every checksum, killed it goes on.

    Args:
        kind: a module of `tasks.exports`.

    Returns:
        `out`.

    Raises:
        ValueError: if there is no such format, a library of it is not installed, `out` holds something else, or the release is
            damaged.
    """
    form = _format(kind)
    if strange := [clip for clip in release.ids if not _NAME.fullmatch(clip)]:
        raise ValueError(f"{release.name}: clip_id {strange[0]!r} cannot be a file's name, so it is no release of cinefab")
    identity = {"format": kind, "name": release.facts["name"], "version": release.facts["version"],
                "facts": params_digest(release.facts)}
    mark = fingerprint("export", identity)
    _claim(out, identity, mark)
    if (out / SUMS).exists():
        if not (broken := _broken(out)):
            return out
        log.warning("%s: %s is not as it was exported (%d such files); all of it is made again", out, broken[0], len(broken))
        (out / SUMS).unlink()
    for partial in out.rglob(f".*{PARTIAL}"):
        partial.unlink()
    rows: list[Cells] = []
    files: dict[str, str] = {}
    with tqdm(total=len(release), desc=f"export {kind}", unit="clip") as bar:
        for part, first in enumerate(range(0, len(release), release.shard_clips)):
            numbers = range(first, min(first + release.shard_clips, len(release)))
            made = _part(form, release, part, numbers, out, mark)
            rows += made["rows"]
            files |= made["files"]
            bar.update(len(numbers))
    _describe(form, release, rows, files, out)
    return out


def folder_name(release: Release, kind: str) -> str:
    """NAME-VERSION-FORMAT.

    Raises:
        ValueError: if a part of it is no name for a folder.
    """
    parts = [str(release.facts[key]) for key in ("name", "version")] + [kind]
    if strange := [part for part in parts if not _NAME.fullmatch(part)]:
        raise ValueError(f"{release.name}: {strange[0]!r} cannot be a folder's name; give --out")
    return "-".join(parts)


def _format(kind: str) -> Format:
    try:
        form: Any = plugin.load(FORMATS, kind)
    except ModuleNotFoundError as error:
        raise ValueError(f"export: {kind} needs {error.name}; install it with pip install 'cinefab[export]'") from None
    return form


def _claim(out: Path, identity: dict[str, str], mark: str) -> None:
    """Make the folder ours, or refuse it; what other code made of the same release is to be made again."""
    if (out / IDENTITY).is_file():
        there = read_json(out / IDENTITY)
        known = {key: there.get(key, "?") for key in (*identity, "mark")} if isinstance(there, dict) else {}
        if {key: known.get(key) for key in identity} != identity:
            what = f"{known['name']}@{known['version']} as {known['format']}" if known else "something else"
            same = known and known["name"] == identity["name"] and known["version"] == identity["version"]
            raise ValueError(f"{out}: holds the export of {what}{', as it was before' if same else ''}, not of this release as "
                             f"{identity['format']}; give another --out or delete it")
        if known["mark"] == mark:
            return
        (out / SUMS).unlink(missing_ok=True)
    elif out.exists() and (not out.is_dir() or any(path.suffix != PARTIAL for path in out.iterdir())):
        raise ValueError(f"{out}: is there already and is no export of cinefab; give another --out")
    write_json(out / IDENTITY, identity | {"mark": mark})


def _broken(out: Path) -> list[str]:
    """Files whose bytes are not those of SHA256SUMS."""
    lines = (line.split("  ", 1) for line in (out / SUMS).read_text().splitlines())
    return [name for digest, name in lines if not (out / name).is_file() or file_digest(out / name) != digest]


def _part(form: Format, release: Release, part: int, numbers: range, out: Path, mark: str) -> dict[str, Any]:
    """The rows and file digests of one part, written unless a run before did."""
    path = out / PARTS / f"{part:06d}.json"
    if path.exists():
        try:
            made = read_sealed(path)
        except ValueError:  # torn; the part is made again
            made = {}
        if made.get("mark") == mark and all((out / name).is_file() and file_digest(out / name) == digest
                                            for name, digest in made["files"].items()):
            return made
    own = form.write(part, _clips(release, numbers), release.facts, out)
    rows = [_cells(_known(release, number)) | cells for number, cells in zip(numbers, own, strict=True)]
    names = sorted({row[column] for row in rows for column in ("file", "mask_file") if row[column]})
    made = {"mark": mark, "rows": rows, "files": {name: file_digest(out / name) for name in names}}
    write_sealed(path, made)
    return made


def _clips(release: Release, numbers: range) -> Iterator[Clip]:
    """One at a time, so that memory does not grow with the shard."""
    for number in numbers:
        arrays = {name: values[0] for name, values in release.load([number]).items()}
        yield Clip(release.ids[number], arrays["frames"], arrays["masks"], _known(release, number))


def _known(release: Release, number: int) -> dict[str, Any]:
    row: dict[str, Any] = release.manifest.slice(number, 1).to_pylist()[0]
    return row | {"split": SPLIT}


def _cells(known: dict[str, Any]) -> Cells:
    return {name: json.dumps(value, ensure_ascii=False) if isinstance(value, list) else "" if value is None else str(value)
            for name, value in known.items()}


def _describe(form: Format, release: Release, rows: list[Cells], files: dict[str, str], out: Path) -> None:
    """Everything but the clips; the checksums last."""
    sheet = io.StringIO(newline="")
    common = list(_cells(_known(release, 0)))
    columns = common + sorted(set(rows[0]) - set(common))
    table = csv.DictWriter(sheet, columns, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    atomic_write(out / "manifest.csv", sheet.getvalue().encode())
    atomic_write(out / "README.md", _card(form, release, rows).encode())
    atomic_write(out / "CITATION.cff", citation(release.facts).encode())
    numbers = {"frames": "sc:Integer", "height": "sc:Integer", "width": "sc:Integer", "psnr_db": "sc:Float"}
    alone = [File(name, file_digest(out / name), (out / name).stat().st_size,
                  {column: numbers.get(column, "sc:Text") for column in columns} if name == "manifest.csv" else None)
             for name in ("manifest.csv", "README.md", "CITATION.cff", IDENTITY)]
    globs = sorted({f"{Path(name).parent}/*.{Path(name).name.partition('.')[2]}" for name in files})
    write_json(out / "croissant.json", croissant(release.facts, alone, {glob.partition("/")[0]: glob for glob in globs}))
    files = files | {file.path: file.sha256 for file in alone} | {"croissant.json": file_digest(out / "croissant.json")}
    atomic_write(out / SUMS, "".join(f"{files[name]}  {name}\n" for name in sorted(files)).encode())
    shutil.rmtree(out / PARTS, ignore_errors=True)


def _card(form: Format, release: Release, rows: list[Cells]) -> str:
    """The format's own words, then the release's card without how to open the release."""
    card = release.card.partition("\n## How to open it\n")[0].rstrip()
    return f"""{form.heading(release.facts, rows)}

{card}

## How to open this export

With {form.OPENED_BY}

What is lost: {form.LOSES[0].lower()}{form.LOSES[1:]}

| file | what |
|---|---|
| `manifest.csv` | one row a clip: its files, what was asked for, whose clips its condition came of, its split; lists are JSON |
| `CITATION.cff`, `croissant.json` | how to cite it, and what is in it for programs |
| `export.json`, `SHA256SUMS` | which release this is, and checksums: `sha256sum -c SHA256SUMS` |

`digest` in manifest.csv is the release's own hash of a clip's frames and masks.
"""
