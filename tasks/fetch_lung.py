"""Lung ultrasound from its owners: the freely licensed cine clips of the POCUS repository (Born et al. 2021).

Its table says for every clip who made it and under which licence. Only clips under CC BY, which allows any use with
attribution, are taken; those for non-commercial use, or of unknown licence, are left.
"""

from __future__ import annotations

import csv
import re
import shutil
import tempfile
from pathlib import Path

from tasks.readers import leads_out
from tasks.tables import make_folder, stays_below

OWNER = "jannisborn/covid19_ultrasound"
REVISION = "9e254a140b4faa2c200b8bb5cee2347b7198fbef"
LICENCES = re.compile(r"CC BY \d(\.\d)?")
COLUMNS = {"effusion": "Effusion", "consolidations": "Consolidations", "b_lines": "B-lines", "a_lines": "A-lines",
           "pleural_irr": "Pleural line irregularities"}


def fetch_lung(target: Path, source: Path) -> str:
    """Copy the clips to `target`/videos and their table to `target`/manifest.csv; says what is there.

    Args:
        source: a clone of the repository (data/dataset_metadata.csv, data/pocus_videos), or a folder that this made before.

    Raises:
        ValueError: if it is neither, or holds no clip under CC BY.
    """
    rows = _made_before(source) if (source / "manifest.csv").exists() else _owners(source)
    if outside := [row["path"] for row in rows if leads_out(Path(row["path"]), source)]:
        raise ValueError(f"data lung: {outside[0]} is a link that leads out of {source}; put the file itself there")
    if not rows:
        raise ValueError(f"data lung: {source} holds no clip under CC BY; take a clone of github.com/{OWNER} at {REVISION[:7]}")
    make_folder(target.parent)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        made = Path(scratch) / "made"
        (made / "videos").mkdir(parents=True)
        for row in rows:
            shutil.copyfile(row["path"], made / "videos" / row["dst"])
        names = [name for name in rows[0] if name != "path"]
        with (made / "manifest.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, names, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        if target.exists():
            target.rename(Path(scratch) / "old")
        made.rename(target)
    return f"{target} holds {len(rows)} clips of {len({row['patient'] for row in rows})} patients, all under CC BY"


def _made_before(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(newline="") as file:
        rows = [{**row, "path": str(folder / "videos" / row["dst"])} for row in csv.DictReader(file)]
    if strange := [row["dst"] for row in rows if "/" in row["dst"] or not stays_below(row["dst"])]:
        raise ValueError(f"data lung: manifest.csv names {strange[0]!r:.80}, which is no file in {folder / 'videos'}")
    if missing := [row["path"] for row in rows if not Path(row["path"]).exists()]:
        raise ValueError(f"data lung: {missing[0]} is missing ({len(missing)} in all); copy the folder again")
    return [row for row in rows if LICENCES.fullmatch(row["license"].strip())]


def _owners(clone: Path) -> list[dict[str, str]]:
    table, videos = clone / "data" / "dataset_metadata.csv", clone / "data" / "pocus_videos"
    if not (table.exists() and videos.is_dir()):
        raise ValueError(f"data lung: {clone} has neither manifest.csv nor data/dataset_metadata.csv with data/pocus_videos; "
                         f"give a clone of github.com/{OWNER}")
    there = {file.stem: file for file in sorted(videos.rglob("*")) if file.is_file()}
    rows = []
    with table.open(newline="", encoding="utf-8", errors="replace") as opened:
        for row in csv.DictReader(opened):
            file = there.get(row["Filename"].strip())
            if file is None or not LICENCES.fullmatch(row["License"].strip()):
                continue
            patient = row["Patient ID / Name"].strip()  # without one the reader will quarantine the clip
            found = {name: "1" if row[column].strip() in ("1", "1.0") else "0" for name, column in COLUMNS.items()}
            rows.append({"dst": f"{file.parent.name.lower()}__{file.name}", "label": _label(row["Label"]), "patient": patient,
                         "license": row["License"].strip(), "probe": row["Probe"].strip().lower(), **found,
                         "doi": row["DOI"].strip(), "path": str(file)})
    return rows


def _label(word: str) -> str:
    """"COVID-19" -> "covid", "Bacterial pneumonia" -> "bacterial_pneumonia"."""
    return word.strip().lower().replace(" ", "_").replace("covid-19", "covid")
