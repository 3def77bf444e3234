"""What `tests.trust.worker` can be asked to do, by name; arguments are folders."""

from __future__ import annotations

from tests.trust.tiny_stages import run

__all__ = ["run"]
