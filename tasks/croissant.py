"""Croissant 1.0: what files there are, and what their tables' columns mean, as JSON-LD that other tools load.

https://docs.mlcommons.org/croissant/docs/croissant-spec.html. Tables are record sets, so that their rows can be read through
Croissant; films, volumes and shards are file sets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from tasks.citation import NOBODY, abstract, in_words, title

_CONTEXT: dict[str, Any] = {
    "@language": "en", "@vocab": "https://schema.org/", "sc": "https://schema.org/", "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/", "rai": "http://mlcommons.org/croissant/RAI/", "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"}, "examples": {"@id": "cr:examples", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    **{word: f"cr:{word}" for word in (
        "citeAs", "column", "equivalentProperty", "extract", "field", "fileProperty", "fileObject", "fileSet", "format",
        "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex",
        "repeated",
        "replace", "samplingRate", "separator", "source", "subField", "transform")},
}
_TYPES = {pa.string(): "sc:Text", pa.int64(): "sc:Integer", pa.float64(): "sc:Float", pa.bool_(): "sc:Boolean"}
_MEDIA = {
    "parquet": "application/x-parquet", "csv": "text/csv", "json": "application/json", "md": "text/markdown",
    "cff": "application/yaml", "mp4": "video/mp4", "mkv": "video/matroska", "gz": "application/gzip",
    "dcm": "application/dicom", "tar": "application/x-tar",
}


@dataclass(frozen=True)
class File:
    """One file by itself: its path below the folder, sha256 and bytes; `columns` (name to Croissant type) if it is a table."""

    path: str
    sha256: str
    size: int
    columns: Mapping[str, str] | None = None


def columns(schema: pa.Schema) -> dict[str, str]:
    """Croissant's types of a table's columns; `[]` ends that of a list."""
    return {column.name: f"{_TYPES[column.type.value_type]}[]" if pa.types.is_list(column.type) else _TYPES[column.type]
            for column in schema}


def croissant(facts: Mapping[str, Any], files: Sequence[File], sets: Mapping[str, str]) -> dict[str, Any]:
    """The whole description.

    Args:
        facts: what release.json holds.
        sets: glob below the folder of each set of like files, by name.
    """
    about = facts.get("about", {})
    told = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": facts["name"],
        "alternateName": title(facts),
        "description": abstract(facts),
        "version": f"{facts['version'].removeprefix('v')}.0.0",
        "license": about.get("licence") and f"https://spdx.org/licenses/{about['licence']}",
        "url": about.get("url"),
        "creator": [{"@type": "sc:Organization", "name": name} for name in about.get("authors") or [NOBODY]],
        "datePublished": about.get("released"),
        "keywords": ["synthetic", "medical video", facts["dataset"]["name"]],
        "citeAs": in_words(facts),
        "isLiveDataset": False,
        "distribution": [*(_object(file) for file in files), *(_set(name, glob) for name, glob in sets.items())],
        "recordSet": [_records(file) for file in files if file.columns],
    }
    return {key: value for key, value in told.items() if value is not None}


def _object(file: File) -> dict[str, Any]:
    return {"@type": "cr:FileObject", "@id": file.path, "name": file.path, "contentUrl": file.path,
            "contentSize": f"{file.size} B", "encodingFormat": _media(file.path), "sha256": file.sha256}


def _set(name: str, glob: str) -> dict[str, Any]:
    return {"@type": "cr:FileSet", "@id": name, "name": name, "includes": glob, "encodingFormat": _media(glob)}


def _media(path: str) -> str:
    return _MEDIA.get(path.rpartition(".")[2], "application/octet-stream")


def _records(file: File) -> dict[str, Any]:
    name = file.path.partition(".")[0]
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "field": [
        {"@type": "cr:Field", "@id": f"{name}/{column}", "name": f"{name}/{column}", "dataType": kind.removesuffix("[]"),
         **({"repeated": True} if kind.endswith("[]") else {}),
         "source": {"fileObject": {"@id": file.path}, "extract": {"column": column}}}
        for column, kind in (file.columns or {}).items()
    ]}
