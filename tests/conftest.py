"""A key of the tests' own, so that none is made in the home folder of whoever runs them; and no GPU, but for test_gpu.py."""

from __future__ import annotations

import os

import pytest

from tasks.pseudonyms import KEY

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # inherited by what tests start; the same bits twice are a CPU's promise


@pytest.fixture(autouse=True, scope="session")
def key(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> None:
    """One file for all of pytest's workers, inherited by what they start."""
    own = tmp_path_factory.getbasetemp()
    os.environ[KEY] = str((own if worker_id == "master" else own.parent) / "key")
