"""The data directory: handed over by a server that was killed, never shared."""

from __future__ import annotations

import fcntl
import os
import stat
import threading
from pathlib import Path

import pytest

from collab.errors import StoreLocked
from collab.store.directory import RESTORING, Directory


def test_a_lock_that_is_just_being_let_go_is_waited_for(tmp_path: Path) -> None:
    held = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)
    directory = Directory(tmp_path, reserve_bytes=0)

    threading.Timer(0.1, os.close, (held,)).start()
    directory.lock()

    directory.unlock()


def test_a_lock_that_somebody_keeps_is_a_sentence(tmp_path: Path) -> None:
    first, second = (Directory(tmp_path, reserve_bytes=0) for _ in range(2))
    first.lock()

    with pytest.raises(StoreLocked, match="stop it, or choose another"):
        second.lock()

    first.unlock()


def test_a_new_directory_is_for_its_owner_alone(tmp_path: Path) -> None:
    directory = Directory(tmp_path / "new", reserve_bytes=0)

    directory.lock()
    directory.unlock()

    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700


def test_what_a_killed_restore_left_unfinished_is_removed(tmp_path: Path) -> None:
    directory = Directory(tmp_path, reserve_bytes=0)
    directory.lock()
    staged = directory.stage()
    (staged / "collab.db").write_bytes(b"half")
    directory.unlock()

    directory.lock()
    directory.unlock()

    assert not staged.exists()
    assert not directory.database.exists()


def test_a_restore_that_was_decided_is_finished(tmp_path: Path) -> None:
    directory = Directory(tmp_path, reserve_bytes=0)
    (tmp_path / "collab.db").write_bytes(b"old")
    (tmp_path / "collab.db-wal").write_bytes(b"of the old one")
    (tmp_path / RESTORING).mkdir()
    (tmp_path / RESTORING / "collab.db").write_bytes(b"new")

    directory.lock()
    directory.unlock()

    assert directory.database.read_bytes() == b"new"
    assert not (tmp_path / "collab.db-wal").exists()
    assert not (tmp_path / RESTORING).exists()
