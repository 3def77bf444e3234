"""A key of the tests' own: none is made in the home folder of whoever runs them."""

from __future__ import annotations

import pytest

from tasks.pseudonyms import KEY


@pytest.fixture(autouse=True, scope="session")
def key(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> None:
    """One file for all of pytest's workers, inherited by what they start."""
    import os

    own = tmp_path_factory.getbasetemp()
    os.environ[KEY] = str((own if worker_id == "master" else own.parent) / "key")
