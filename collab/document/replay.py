"""Replays a room's log in a child process, where an endless loop or a crash of native code harms nobody.

Run as a program it answers requests on its standard input until that ends. A request is a length and that many
bytes: what to do, then the checkpoint and the rows. To `compact`, the answer is one frame; to `watch`, one frame
per row before it is applied, so that the parent knows which one was the last.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from enum import Enum
from struct import Struct, pack, unpack_from
from time import thread_time
from typing import Any, BinaryIO, NamedTuple

from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, XmlText

from collab.document.budget import LOAD_BYTE_SECONDS, LOAD_SECONDS
from collab.document.deletions import Ranges, deletions
from collab.document.export import FORMS, encode_error, export, roots
from collab.document.gate import Gate
from collab.document.past import answer_encoded
from collab.errors import CollabError, InvalidMessage
from collab.protocol.division import steps
from collab.protocol.lists import has_characters_in_list
from collab.protocol.statevector import state_vector

Tail = Sequence[tuple[int, bytes]]

_LENGTH = Struct("<Q")
_HEAD = Struct(
    "<BBQQQ"
)  # what to do, is there a checkpoint, its position, its length, the number of rows
_UNBOUNDED = 1 << 62
# Made and kept until what is young is looked through for garbage: more than the order of a large document has.
_YOUNG_OBJECTS = 100_000


class Request(Enum):
    """What a child can do."""

    COMPACT = 0
    WATCH = 1
    COMPARE = 2
    RENDER = 3  # a checkpoint; the number of the form and, as a row, the root
    PAST = 5  # a checkpoint and, as rows, what `past.encode_question` makes


class Answer(Enum):
    """The first byte of what a child says."""

    COMPACTED = 0  # then the position and the snapshot
    UNREADY = 1  # something waits for what is missing, at every position
    FAILED = 2  # then the reason
    AT = 3  # then the position of the row that comes next; 0 is the checkpoint
    SURVIVED = 4  # and, when asked to compare, they are equal
    DIFFERENT = 5  # then in what
    RENDERED = 6  # then the content; of the past, the answer
    REFUSED = 7  # then the error, by `encode_error`


class Replayed(NamedTuple):
    """A document from its log, up to the last position at which nothing waited outside it."""

    snapshot: bytes
    position: int


class NotVerified(Exception):
    """A snapshot, loaded again, is not the document it was made of."""


def replay(snapshot: bytes | None, tail: Tail, *, start: int = 0) -> Replayed | None:
    """A verified snapshot of what the log holds; None when nothing beyond `start` can be put into one.

    An update that waits for what is missing is in no snapshot, so the log is cut where nothing waits. Raises
    NotVerified, and whatever guard, gate and native code raise.
    """
    doc, clear = _applied(snapshot, tail)
    if clear is not None and clear != tail[-1][0]:
        doc, _ = _applied(snapshot, [row for row in tail if row[0] <= clear])
    if clear is None or clear <= start:
        return None
    encoded = doc.get_update()
    # Every opening of the room would load it in one go; the log has it in another order, and can take a hundredth of that.
    if verify(doc, encoded) > LOAD_SECONDS + LOAD_BYTE_SECONDS * len(encoded):
        raise NotVerified("it takes too long to load; the log is quicker")
    return Replayed(encoded, clear)


def _applied(
    snapshot: bytes | None, tail: Tail, about_to: Callable[[int], None] | None = None
) -> tuple[Doc[Any], int | None]:
    """The document, and the last position at which nothing waited; tells `about_to` of each row before it."""
    doc: Doc[Any] = Doc()
    gate = Gate(max_bytes=_UNBOUNDED, max_updates=_UNBOUNDED)
    if about_to is not None:
        about_to(0)
    if snapshot is not None:
        doc.apply_update(snapshot)
        gate.load(snapshot, state_vector(doc.get_state()))
    clear = None
    for position, update in tail:
        if about_to is not None:
            about_to(position)
        for ready in gate.admit(update):
            for part in steps(ready):
                doc.apply_update(part)
        if not len(gate):
            clear = position
    return doc, clear


def verify(doc: Doc[Any], snapshot: bytes) -> float:
    """Load the snapshot into a new document and compare content, state vector and deletions; NotVerified else.

    Returns how many seconds that load took. Reading the content settles how `doc` reads its roots: it is of no further use.
    """
    fresh: Doc[Any] = Doc()
    begun = thread_time()
    fresh.apply_update(snapshot)
    seconds = thread_time() - begun
    if state_vector(doc.get_state()) != state_vector(fresh.get_state()):
        raise NotVerified("state vector")
    if _deleted(doc) != _deleted(fresh):
        raise NotVerified("deletions")
    if has_characters_in_list(snapshot):
        raise NotVerified("a list that cannot be read")
    kinds = roots(snapshot)
    if set(doc.keys()) != kinds.keys() or rendered(doc, kinds) != rendered(
        fresh, kinds
    ):
        raise NotVerified("content")
    return seconds


def _deleted(doc: Doc[Any]) -> Ranges:
    try:
        return deletions(doc.get_update(doc.get_state()))
    except InvalidMessage as error:
        raise NotVerified(str(error)) from None


_TYPES: dict[str, Any] = {"text": Text, "map": Map, "array": Array, "xml": XmlFragment}


def rendered(doc: Doc[Any], kinds: dict[str, str]) -> dict[str, Any]:
    """All that a reader of the document could see, as plain values."""
    return {
        name: _plain(doc.get(name, type=_TYPES.get(kind, Text)))
        for name, kind in kinds.items()
    }


def _plain(value: Any) -> Any:
    match value:
        case Text():
            return [(_plain(piece), style) for piece, style in value.diff()]
        case XmlText():
            return (
                _attributes(value),
                [(_plain(piece), style) for piece, style in value.diff()],
            )
        case XmlElement():
            children = [_plain(child) for child in value.children]
            return value.tag, _attributes(value), children
        case XmlFragment():
            return [_plain(child) for child in value.children]
        case Map():
            return {key: _plain(item) for key, item in value.items()}
        case Array():
            return [_plain(item) for item in value]
        case Doc():
            return value.guid
        case _:
            return value


def _attributes(element: Any) -> dict[str, Any]:
    return dict(element.attributes)


# What parent and child say to each other


def encode_request(
    request: Request, snapshot: bytes | None, start: int, tail: Tail
) -> bytes:
    """A frame for a child's standard input."""
    positions, updates = zip(*tail, strict=True) if tail else ((), ())
    rows, snapshot_bytes = len(updates), len(snapshot) if snapshot else 0
    head = _HEAD.pack(
        request.value, snapshot is not None, start, snapshot_bytes, rows
    ) + pack(f"<{2 * rows}Q", *positions, *map(len, updates))
    size = len(head) + snapshot_bytes + sum(map(len, updates))
    return b"".join((_LENGTH.pack(size), head, snapshot or b"", *updates))


def decode_request(
    frame: bytes,
) -> tuple[Request, bytes | None, int, list[tuple[int, bytes]]]:
    """What `encode_request` was given."""
    request, has_snapshot, start, length, rows = _HEAD.unpack_from(frame)
    numbers = unpack_from(f"<{2 * rows}Q", frame, _HEAD.size)
    at = _HEAD.size + 16 * rows
    snapshot = frame[at : at + length] if has_snapshot else None
    at += length
    tail = []
    for position, size in zip(numbers[:rows], numbers[rows:], strict=True):
        tail.append((position, frame[at : at + size]))
        at += size
    return Request(request), snapshot, start, tail


def encode_answer(answer: Answer, position: int = 0, rest: bytes = b"") -> bytes:
    """A frame for the parent."""
    return (
        _LENGTH.pack(9 + len(rest))
        + bytes((answer.value,))
        + _LENGTH.pack(position)
        + rest
    )


def decode_answer(frame: bytes) -> tuple[Answer, int, bytes]:
    """Answer, position and rest of a frame without its length; the parent does not trust a child."""
    return Answer(frame[0]), _LENGTH.unpack_from(frame, 1)[0], frame[9:]


def read_length(head: bytes) -> int:
    """How long the frame after these eight bytes is."""
    return int(_LENGTH.unpack(head)[0])


def serve(requests: BinaryIO, answers: BinaryIO, *, cpu_seconds: int) -> None:
    """Answer requests until there are no more."""
    while head := requests.read(_LENGTH.size):
        _allow_cpu(cpu_seconds)
        request, snapshot, start, tail = decode_request(
            requests.read(read_length(head))
        )
        try:
            if request is Request.WATCH:
                _watch(snapshot, tail, answers)
            elif request is Request.RENDER:
                _render(snapshot or b"", start, tail[0][1].decode(), answers)
            elif request is Request.PAST:
                _past(snapshot, tail, answers)
            elif request is Request.COMPARE:
                _compare(snapshot, start, tail, answers)
            else:
                _compact(snapshot, start, tail, answers)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a Rust panic is not an Exception
            reason = f"{type(error).__name__}: {error}".encode()
            answers.write(encode_answer(Answer.FAILED, 0, reason))
        answers.flush()
        gc.collect(1)  # of what this answer took, now that nobody waits for it


def _compact(snapshot: bytes | None, start: int, tail: Tail, answers: BinaryIO) -> None:
    replayed = replay(snapshot, tail, start=start)
    if replayed is None:
        answers.write(encode_answer(Answer.UNREADY))
    else:
        answers.write(
            encode_answer(Answer.COMPACTED, replayed.position, replayed.snapshot)
        )


def _watch(snapshot: bytes | None, tail: Tail, answers: BinaryIO) -> None:
    def about_to(position: int) -> None:
        answers.write(encode_answer(Answer.AT, position))
        answers.flush()

    doc, _ = _applied(snapshot, tail, about_to)
    doc.get_update()  # encoding has panicked where applying had not
    answers.write(encode_answer(Answer.SURVIVED))


def _render(snapshot: bytes, form: int, root: str, answers: BinaryIO) -> None:
    _tell(lambda: export(snapshot, FORMS[form], root), answers)


def _past(snapshot: bytes | None, tail: Tail, answers: BinaryIO) -> None:
    _tell(lambda: answer_encoded(snapshot, tail), answers)


def _tell(write: Callable[[], bytes], answers: BinaryIO) -> None:
    try:
        answers.write(encode_answer(Answer.RENDERED, 0, write()))
    except CollabError as error:
        answers.write(encode_answer(Answer.REFUSED, 0, encode_error(error)))


def _compare(snapshot: bytes | None, start: int, tail: Tail, answers: BinaryIO) -> None:
    """Whether the rows alone make what the snapshot and the rows after it make."""
    alone, _ = _applied(None, tail)
    doc, _ = _applied(snapshot, [row for row in tail if row[0] > start])
    try:
        verify(alone, doc.get_update())
    except NotVerified as difference:
        answers.write(encode_answer(Answer.DIFFERENT, start, str(difference).encode()))
    else:
        answers.write(encode_answer(Answer.SURVIVED))


def _allow_cpu(seconds: int) -> None:
    """From now on this many seconds of CPU, then the kernel ends the process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + seconds
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def main(memory_bytes: int, cpu_seconds: int) -> None:
    """The life of a child: it ends with its parent, whose death closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(10)
    gc.set_threshold(_YOUNG_OBJECTS)
    gc.freeze()  # what is here stays
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that prints may disturb the answers
    try:
        serve(sys.stdin.buffer, answers, cpu_seconds=cpu_seconds)
    except BrokenPipeError:
        os._exit(1)  # the parent is gone, and with it all who waited


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
