"""How pages are rendered: templates lie beside this file, and a name that is missing is an error, not an empty space."""

from __future__ import annotations

from pathlib import Path

import jinja2

from tasks.account import interval, p_value


def pages() -> jinja2.Environment:
    """Templates `*.html`, with the filters `interval` and `p`; texts are escaped."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined, autoescape=True
    )
    environment.filters |= {"interval": interval, "p": p_value}
    return environment
