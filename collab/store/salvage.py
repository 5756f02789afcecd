"""Writes a data file anew of what can still be read of one whose pages are damaged."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from collab.errors import StoreCorrupt
from collab.store.schema import MIGRATIONS, check, connect, migrate

# Table → its key, and whether it is read room by room, so that a damaged page costs one of them at most.
_TABLES = {
    "room": (("rowid",), False),
    "author": (("rowid",), False),
    "journal": (("rowid",), False),
    "log": (("room", "position"), True),
    "checkpoint": (("rowid",), True),
    "owner": (("room", "client"), True),
    "rejected": (("room", "position"), True),
    "about": (("rowid",), False),
    "attribution": (("rowid",), True),
    "answer": (("rowid",), False),
    "aside": (("rowid",), False),
}


def salvage(path: Path, target: Path) -> None:
    """Copy every record that can be read. What is missing then is for a look at the rooms to find.

    Raises StoreCorrupt when not even the tables can be told.
    """
    try:
        with closing(connect(path, is_read_only=True)) as source:
            source.text_factory = _text
            version = check(source, path)
            with closing(connect(target)) as copy:
                for number, script in enumerate(MIGRATIONS[:version], 1):
                    copy.executescript(f"{script}; PRAGMA user_version = {number}")
                copy.execute("BEGIN")
                for table in _tables(source):
                    _copy(source, copy, table)
                    if table == "room":
                        _copy_names(source, copy)
                copy.execute("COMMIT")
                _mark(source, copy)
                migrate(copy, target)
                copy.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        raise StoreCorrupt(
            f"nothing of {path} can be read ({error}): restore a backup"
        ) from None


def _text(text: bytes) -> str | bytes:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text


def _mark(source: sqlite3.Connection, copy: sqlite3.Connection) -> None:
    (application,) = source.execute("PRAGMA application_id").fetchone()
    copy.execute(f"PRAGMA application_id = {int(application)}")


def _tables(source: sqlite3.Connection) -> list[str]:
    there = {name for (name,) in source.execute("SELECT name FROM sqlite_schema")}
    return [table for table in _TABLES if table in there]


def _copy(source: sqlite3.Connection, copy: sqlite3.Connection, table: str) -> None:
    key, is_by_room = _TABLES[table]
    names = [row[1] for row in source.execute(f"PRAGMA table_info({table})")]
    columns, marks = ", ".join(names), ", ".join("?" * len(names))
    where = " AND ".join(f"{column} IS ?" for column in key)
    conditions = [""]
    if is_by_room:
        rooms = [number for (number,) in copy.execute("SELECT id FROM room")]
        conditions = [f"WHERE room = {int(number)}" for number in rooms]
    for condition in conditions:
        for found in _keys(source, table, key, condition):
            try:
                row = source.execute(
                    f"SELECT {columns} FROM {table} NOT INDEXED WHERE {where}", found
                ).fetchone()
            except sqlite3.DatabaseError:
                continue
            if row is not None:
                copy.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", row)


def _copy_names(source: sqlite3.Connection, copy: sqlite3.Connection) -> None:
    """Rooms whose row is lost, from the indexes: their records are then found damaged, and their content is not lost."""
    live, is_whole = _indexed(source, "name, id", "room_live", "WHERE deleted IS NULL")
    names, _ = _indexed(source, "name, id, epoch", "sqlite_autoindex_room_1", "")
    known = {number for (number,) in copy.execute("SELECT id FROM room")}
    taken = {
        name for (name,) in copy.execute("SELECT name FROM room WHERE deleted IS NULL")
    }
    found = {number: (name, "") for name, number in live}
    found |= {number: (name, epoch) for name, number, epoch in names}
    alive = {number for _, number in live}
    if not is_whole:  # then the newest of each name lives, as far as is known
        alive |= set({found[number][0]: number for number in sorted(found)}.values())
    for number, (name, epoch) in found.items():
        if number in known:
            continue
        is_live = number in alive and name not in taken
        copy.execute(
            "INSERT OR IGNORE INTO room (id, name, epoch, created, crc, fence, deleted, is_purged)"
            " VALUES (?, ?, ?, 0, 0, 0, ?, ?)",
            (number, name, epoch, None if is_live else 0, 0 if is_live else 1),
        )


def _indexed(
    source: sqlite3.Connection, columns: str, index: str, condition: str
) -> tuple[list[Any], bool]:
    """What an index alone can tell, from both ends as far as it goes, and whether that is all."""
    found: list[Any] = []
    for direction in ("ASC", "DESC"):
        try:
            for row in source.execute(
                f"SELECT {columns} FROM room INDEXED BY {index} {condition} ORDER BY name {direction}"
            ):
                found.append(row)
            return found, direction == "ASC"
        except sqlite3.DatabaseError:
            continue
    return found, False


def _keys(
    source: sqlite3.Connection, table: str, key: tuple[str, ...], condition: str
) -> Iterator[tuple[Any, ...]]:
    """From both ends as far as it goes; those that were met twice are told twice."""
    for direction in ("ASC", "DESC"):
        order = ", ".join(f"{column} {direction}" for column in key)
        try:
            yield from source.execute(
                f"SELECT {', '.join(key)} FROM {table} NOT INDEXED {condition} ORDER BY {order}"
            )
        except sqlite3.DatabaseError:
            continue
        return
