"""CITATION.cff of a release (Citation File Format 1.2.0): who is to be named, from what `release` in the parameters says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

NOBODY = "makers not stated"
"""Stands where `release.authors` is empty, since the format wants an author."""


def citation(facts: Mapping[str, Any]) -> str:
    """The file, YAML.

    Args:
        facts: what release.json holds.
    """
    about = facts.get("about", {})
    told = {
        "cff-version": "1.2.0",
        "message": "If you use this data set, please cite it, and the source data that its models learned from.",
        "type": "dataset",
        "title": title(facts),
        "authors": [_author(name) for name in about.get("authors") or [NOBODY]],
        "version": facts["version"],
        "abstract": abstract(facts),
        "keywords": ["synthetic data", "medical video", facts["dataset"]["name"]],
        "license": about.get("licence"),
        "url": about.get("url"),
        "date-released": about.get("released"),
    }
    return yaml.safe_dump({key: value for key, value in told.items() if value}, sort_keys=False, allow_unicode=True, width=120)


def title(facts: Mapping[str, Any]) -> str:
    plain = f"{facts['name']}: synthetic clips learned from {facts['dataset']['name']}"
    return str(facts.get("about", {}).get("title") or plain)


def abstract(facts: Mapping[str, Any]) -> str:
    """Two sentences that no reader may miss."""
    clip, data = facts["clip"], facts["dataset"]
    source = f"simulated data ({data['name']})" if data["simulated"] else f"real recordings ({data['name']})"
    return (f"{facts['counts']['clips']} SYNTHETIC clips of {clip['frames']} frames, {clip['height']} x {clip['width']} "
            f"pixels, drawn by a generative model that learned from {source}. Not for diagnosis, treatment or any decision "
            "about a person.")


def in_words(facts: Mapping[str, Any]) -> str:
    """One line for a list of references."""
    about = facts.get("about", {})
    year = f" ({about['released'][:4]})" if about.get("released") else ""
    where = f" {about['url']}" if about.get("url") else ""
    authors = "; ".join(about.get("authors") or [NOBODY])
    return f"{authors}{year}. {title(facts)}, {facts['version']}. Synthetic data set.{where}"


def _author(name: str) -> dict[str, str]:
    """`Family, Given` is a person, anything else an entity."""
    family, comma, given = (part.strip() for part in name.partition(","))
    return {"family-names": family, "given-names": given} if comma else {"name": name}
