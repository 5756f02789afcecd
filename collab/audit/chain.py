"""The file of the audit log: lines of JSON, each with a hash over itself and the hash before it.

A line ends in `,"hash":"<64 hex digits>"}`. The hash is SHA-256 over the hash of the line before (as hex digits, 64
zeros before the very first) and the line's bytes up to that comma, closed by `}`. The first line of a file is a
`begin` that names the hash it goes on from, so a file that was moved away is continued by the next one.

Beside it, in the data directory, `audit.head` says where the chain stands on disk; its lock orders the processes that
write. A line that is lost from the end of the file is missed, since the chain goes on from the head.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import orjson

from collab.errors import CollabError, StoreLocked

NOTHING = "0" * 64  # the hash before the very first line
HEAD = "audit.head"
SEAL_BYTES = len(',"hash":"' + NOTHING + '"}')

MAX_TEXT = 256  # characters of one value
MAX_LINE_BYTES = 16_384
TAIL_BYTES = 262_144  # in which the last line is looked for
LOCK_SECONDS = 5.0  # that another process may hold the chain

# Nobody hands us one; but a person may well name a whole key where its id is wanted.
_SECRET = re.compile(r"(ck_\w+)\.[\w-]+|tk_[\w-]{8,}|eyJ[\w-]+\.[\w-]+\.[\w-]*")


class Happening(NamedTuple):
    """What a line tells. Never content, never a token."""

    seconds: float  # since 1970
    event: str
    principal: str = ""
    tenant: str = ""
    room: str = ""
    details: dict[str, Any] = {}  # noqa: RUF012 - never changed


class Head(NamedTuple):
    """Where the chain stands."""

    seq: int = 0
    hash: str = NOTHING
    path: str = ""  # of the file that is written to


def seal(body: bytes, previous: str) -> tuple[bytes, str]:
    """A line without its end of line, and its hash."""
    digest = hashlib.sha256(previous.encode() + body).hexdigest()
    return body[:-1] + b',"hash":"' + digest.encode() + b'"}', digest


def unseal(line: bytes) -> tuple[bytes, str]:
    """What was sealed, and the hash that stands there. Any bytes."""
    return line[:-SEAL_BYTES] + b"}", line[-66:-2].decode(errors="replace")


def body_of(happening: Happening, seq: int) -> bytes:
    """The line before it is sealed; what is too long is cut."""
    moment = datetime.fromtimestamp(happening.seconds, UTC)
    fields = {
        "seq": seq,
        "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "event": happening.event,
        "principal": _cut(happening.principal),
        "tenant": _cut(happening.tenant),
        "room": _cut(happening.room),
        "details": _cut(happening.details),
    }
    try:
        body = orjson.dumps(fields)
    except TypeError:  # a number beyond 64 bits
        body = orjson.dumps(fields | {"details": {"cut": 0}})
    if len(body) > MAX_LINE_BYTES:
        body = orjson.dumps(fields | {"details": {"cut": len(body)}})
    return body


def _cut(value: Any) -> Any:
    """What JSON can hold, and not too much of it."""
    match value:
        case None | bool() | int() | float():
            return value
        case str():
            if len(value) < 9 and value.isascii():
                return value  # too short to hide a secret
            text = value[: 8 * MAX_TEXT].encode(errors="backslashreplace").decode()
            return _SECRET.sub(lambda found: f"{found[1] or found[0][:3]}…", text)[
                :MAX_TEXT
            ]
        case dict():
            return {str(_cut(str(key))): _cut(one) for key, one in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_cut(one) for one in value]
        case _:
            return _cut(str(value))


def read_head(data: Path) -> Head | None:
    """Where the chain of this data directory stands; None when it has no audit log."""
    try:
        return _parse_head((data / HEAD).read_bytes())
    except OSError:
        return None


def _parse_head(written: bytes) -> Head:
    try:
        found = orjson.loads(written)
        return Head(int(found["seq"]), str(found["hash"]), str(found["path"]))
    except (ValueError, KeyError, TypeError):
        return Head()


class Chain:
    """The writing end, for one process at a time: a server's thread, a command. A context manager."""

    def __init__(self, data: Path, path: Path) -> None:
        self.path = path.absolute()
        self._data = data
        self._lock = self._file = -1
        self._size = -1  # of the file when this process last wrote

    def __enter__(self) -> Self:
        """Open and lock once, so that what cannot work is known at once. Raises OSError or StoreLocked."""
        self._data.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = self._open(self._data / HEAD, os.O_RDWR)
        self.append(())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for each in (self._file, self._lock):
            if each >= 0:
                os.close(each)
        self._lock = self._file = -1

    def append(self, happenings: Sequence[Happening]) -> None:
        """Add lines; when this returns they are on disk. When it raises OSError, none of them is in the file."""
        self._take_lock()
        try:
            self._reopen()
            self._write(happenings)
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _open(self, path: Path, flags: int) -> int:
        """For its owner alone; what an operator begins as root belongs to whom the data belongs."""
        file = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, 0o600)
        owner = os.stat(self._data)
        if os.geteuid() == 0 and os.fstat(file).st_uid != owner.st_uid:
            os.fchown(file, owner.st_uid, owner.st_gid)
        return file

    def _take_lock(self) -> None:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise StoreLocked(
                        "another process holds the audit log and does not let go of it"
                    ) from None
                time.sleep(0.005)

    def _reopen(self) -> None:
        """The file may have been moved away: then a new one is begun."""
        if self._file >= 0:
            try:
                here, there = os.fstat(self._file), os.stat(self.path)
                if (here.st_ino, here.st_dev) == (there.st_ino, there.st_dev):
                    return
            except FileNotFoundError:
                pass
            os.close(self._file)
            self._file = -1
        self._file = self._open(self.path, os.O_RDWR | os.O_APPEND)
        self._size = -1

    def _write(self, happenings: Sequence[Happening]) -> None:
        head = _parse_head(os.pread(self._lock, 4096, 0))
        size = os.fstat(self._file).st_size
        pending: list[Happening] = []
        opening = b""
        if not size:
            pending.append(
                Happening(time.time(), "begin", details={"previous": head.hash})
            )
        elif size != self._size:
            found, torn = self._tail(size)
            if found.seq > head.seq:
                head = found  # a crash came between the lines and the head
            if torn:
                # Nothing is ever cut off: what stands there stays.
                opening = b"\n"
                if _head_of(torn).seq != head.seq:
                    digest = hashlib.sha256(torn).hexdigest()
                    details = {"bytes": len(torn), "sha256": digest}
                    pending.append(Happening(time.time(), "torn", details=details))
        pending += happenings
        if not pending:
            return
        seq, digest = head.seq, head.hash
        lines = [opening] if opening else []
        for happening in pending:
            seq += 1
            line, digest = seal(body_of(happening, seq), digest)
            lines.append(line + b"\n")
        try:
            _write_all(self._file, b"".join(lines))
            os.fdatasync(self._file)
        except OSError:
            os.ftruncate(self._file, size)
            raise
        self._size = os.fstat(self._file).st_size
        self._say(Head(seq, digest, str(self.path)))

    def _say(self, head: Head) -> None:
        written = orjson.dumps(head._asdict()) + b"\n"
        os.pwrite(self._lock, written, 0)
        os.ftruncate(self._lock, len(written))

    def _tail(self, size: int) -> tuple[Head, bytes]:
        """The last line that reads, and what stands there without its end of line."""
        start = max(0, size - TAIL_BYTES)
        lines = os.pread(self._file, size - start, start).split(b"\n")
        heads = (_head_of(line) for line in reversed(lines))
        return next((head for head in heads if head.seq), Head()), lines[-1]


def _head_of(line: bytes) -> Head:
    try:
        found = orjson.loads(line)
        return Head(int(found["seq"]), str(found["hash"]))
    except (ValueError, KeyError, TypeError):
        return Head()


def _write_all(file: int, content: bytes) -> None:
    while content:
        content = content[os.write(file, content) :]


def note(
    data: Path,
    event: str,
    *,
    room: str = "",
    tenant: str = "",
    is_first: bool = False,
    **details: Any,
) -> None:
    """One line by a command; nothing when this data directory has no audit log, unless this may be its first.

    Written before the command acts. Raises CollabError when it cannot be: then the command must not act.
    """
    head = read_head(data) or (Head() if is_first else None)
    if head is None:
        return
    details["user"] = _user()
    happening = Happening(time.time(), event, "operator", tenant, room, details)
    try:
        with Chain(
            data, Path(head.path) if head.path else data / "audit.jsonl"
        ) as chain:
            chain.append((happening,))
    except OSError as error:
        raise CollabError(
            f"the audit log cannot be written, so nothing was done: {error.strerror}"
        ) from None


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
