"""The recorded streams, made once for all test processes."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest
from converging import Stream, load, record


@pytest.fixture(scope="session")
def streams(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> list[Stream]:
    """400 editing sessions of Yjs users, and how Yjs ends each of them."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    return load(_once(shared / "streams.jsonl"))


def _once(path: Path) -> Path:
    """The file, made by whichever test process comes first."""
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            record(path, first_seed=1, streams=400)
    return path
