"""The past of a document: what attribution takes beside it, who wrote what, what it was, and taking a long turn back.

A log is put into the store of a server before it starts, compacted as the server does. Then everything is asked over
HTTP, as anybody would, and timed from the request to the whole answer.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import httpx2
import traces
from pycrdt import Doc, Text, TransactionEvent
from servers import Server

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "traces")]

import editing_traces  # noqa: E402  # found by the line above

from collab.compaction import (  # noqa: E402  # likewise
    Child,
    make_attribution,
    make_checkpoint,
)
from collab.document.attribution import attribute  # noqa: E402  # likewise
from collab.errors import CollabError  # noqa: E402  # likewise
from collab.store.base import Author, Entry, Row  # noqa: E402  # likewise
from collab.store.sqlite import SqliteStore  # noqa: E402  # likewise

if TYPE_CHECKING:
    from scenarios import Bench

ROOM = "past"
PACE = 300  # milliseconds between two edits
AT_ONCE = 500  # rows that are appended together
ADA, BOT = Author("anonymous", "ada"), Author("anonymous", "bot", "t")
ASKED = 60
STARTS = 7  # of a server, each to be asked for the first time
FLUSHES = 1000
LARGE_BYTES = 1 << 20
TYPED = "[typed inside]"
PAGE = "all that was ever written down here is of some use to somebody\n" * 65
FORMS = "format=text&root=" + traces.ROOT

Log = list[tuple[Author, bytes]]


def attribution(bench: Bench) -> None:
    """What it takes to know who wrote what, beside the document itself, for a lone author and for two at once."""
    found = {}
    with tempfile.TemporaryDirectory(prefix="collab-bench-") as folder:
        logs = {
            traces.source(): [update for _, update in _alone(bench)],
            "two at once": _together(Path(folder)),
        }
    for name, updates in logs.items():
        rows = [
            Row(at, at * PACE, Author(f"user-{at // 400 % 2}", "", f"t{at // 400}"), update)
            for at, update in enumerate(updates, 1)
        ]  # fmt: skip
        doc: Doc[Any] = Doc()
        for update in updates:
            doc.apply_update(update)
        whole = len(doc.get_update())
        begun = time.process_time()
        size = len(attribute(None, rows))
        spent = time.process_time() - begun
        found[f"{name}: % of the document"] = [size / whole * 100]
        found[f"{name}: µs a row"] = [spent / len(rows) * 1e6]
        bench.aim("attribution", f"{name}, of the document", size / whole * 100, 15, unit=" %")  # fmt: skip
    bench.figures["attribution"] = {bench.ours.name: found}


def past(bench: Bench) -> None:
    """The document anywhere in a long history, as text; and who wrote what in all of it: asked again, after each edit of
    somebody who types, and for the first time since the server started, which has been asked about another room or none.
    """
    log = _alone(bench)
    chance = Random(3)
    with _stored(log) as folder:
        with _serving(bench, folder) as (server, ask):
            end = ask("GET", "").json()["position"]
            places = [chance.randrange(1, end + 1) for _ in range(ASKED)]
            ask("GET", f"/document?{FORMS}&at={end}")  # the child process starts
            before = server.cpu_seconds()
            read = [_timed(lambda at=at: ask("GET", f"/document?{FORMS}&at={at}")) for at in places]  # fmt: skip
            spent = (server.cpu_seconds() - before) / len(read) * 1e3
            ask("GET", "/blame")
            still, typing = [], []
            for _ in range(ASKED // 3):
                still.append(_timed(lambda: ask("GET", "/blame")))
                ask("PATCH", "/document", _splice(0, "x"))
                typing.append(_timed(lambda: ask("GET", "/blame")))
            spans = len(ask("GET", "/blame").json()["spans"])
        count = 1 if bench.is_quick else STARTS
        alone = [_first(bench, folder, is_child_there=False) for _ in range(count)]
        first = [_first(bench, folder, is_child_there=True) for _ in range(count)]
    bench.figures["past"] = {
        bench.ours.name: {
            "edits": [float(len(log))],
            "document p50 ms": [_share(read, 0.5)],
            "document p95 ms": [_share(read, 0.95)],
            "document most ms": [max(read)],
            "document CPU ms": [spent],
            "first blame p50 ms": [_share(first, 0.5)],
            "first blame most ms": [max(first)],
            "and the child process starts ms": [_share(alone, 0.5)],
            "blame p50 ms": [_share(still, 0.5)],
            "blame after an edit p50 ms": [_share(typing, 0.5)],
            "spans": [float(spans)],
        }
    }
    bench.aim("past", "document p95", _share(read, 0.95), 60, unit=" ms")
    bench.aim("past", "blame after an edit, p50", _share(typing, 0.5), 50, unit=" ms")
    bench.aim("past", "first blame of a room, p50", _share(first, 0.5), 50, unit=" ms")


def _first(bench: Bench, folder: Path, *, is_child_there: bool) -> float:
    """Of a room that is open, and that nobody has asked about since the server started."""
    with _serving(bench, folder) as (_, ask):
        ask("GET", f"/document?{FORMS}")
        if is_child_there:
            ask("PATCH", "/document", _splice(0, PAGE), room="another")
            ask("GET", "/blame", room="another")
        return _timed(lambda: ask("GET", "/blame"))


def undo(bench: Bench) -> None:
    """A turn of a thousand flushes in a document of a megabyte, into which somebody typed, taken back and brought again."""
    log, expected = _turn()
    undone: list[float] = []
    redone: list[float] = []
    spent: list[float] = []
    with _stored(log) as folder, _serving(bench, folder) as (server, ask):
        written = ask("GET", f"/document?{FORMS}").text
        ask("POST", "/turns/t/undo", {})  # the child process starts
        for _ in range(10 if bench.is_quick else 25):
            left = ask("GET", f"/document?{FORMS}").text
            if left.count(TYPED) != 1 or left.replace(TYPED, "") != expected:
                bench.lost.append("undo: not what it was before, with what was typed")
            redone.append(_timed(lambda: ask("POST", "/turns/t/redo", {})))
            if ask("GET", f"/document?{FORMS}").text != written:
                bench.lost.append("undo: not what was written")
            before = server.cpu_seconds()
            undone.append(_timed(lambda: ask("POST", "/turns/t/undo", {})))
            spent.append((server.cpu_seconds() - before) * 1e3)
    bench.figures["undo"] = {
        bench.ours.name: {
            "undo p50 ms": [_share(undone, 0.5)],
            "undo p95 ms": [_share(undone, 0.95)],
            "undo CPU ms": [_share(spent, 0.5)],
            "redo p50 ms": [_share(redone, 0.5)],
            "redo p95 ms": [_share(redone, 0.95)],
        }
    }
    bench.aim("undo", "undo p95", _share(undone, 0.95), 200, unit=" ms")


def _share(times: Sequence[float], share: float) -> float:
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _timed(ask: Callable[[], object]) -> float:
    begun = time.perf_counter()
    ask()
    return (time.perf_counter() - begun) * 1e3


def _splice(index: int, insert: str) -> dict[str, Any]:
    return {"splices": [{"root": traces.ROOT, "index": index, "insert": insert}]}


# What is asked about


def _alone(bench: Bench) -> Log:
    count = 20_000 if bench.is_quick else traces.EDITS
    return [(ADA, update) for update in traces.updates(traces.edits(), count)]


def _together(scratch: Path) -> list[bytes]:
    """The updates of two authors who only hear of each other now and then."""
    trace = editing_traces.load(editing_traces.find("friendsforever", scratch))
    docs: list[Doc[Any]] = [Doc(client_id=0xFFFFFFFF - n) for n in range(2)]
    made: list[bytes] = []
    for doc in docs:
        doc.observe(_note(made))
    updates: list[bytes] = []
    for txn, news in zip(trace["txns"], editing_traces.ancestry(trace), strict=True):
        doc = docs[txn["agent"]]
        for number in news:
            doc.apply_update(updates[number])
        made.clear()
        text = doc.get(traces.ROOT, type=Text)
        with doc.transaction():
            for at, removed, inserted in txn["patches"]:
                if removed:
                    del text[at : at + removed]
                if inserted:
                    text.insert(at, inserted)
        updates.append(made[0])
    return updates


def _note(made: list[bytes]) -> Callable[[TransactionEvent], None]:
    return lambda event: made.append(event.update)


def _turn() -> tuple[Log, str]:
    """A large document, a turn all over it, and somebody typing into that; and what was there before the turn."""
    doc: Doc[Any] = Doc(client_id=1)
    text = doc.get(traces.ROOT, type=Text)
    made: list[bytes] = []
    log: Log = []
    doc.observe(_note(made))
    while len(text) < LARGE_BYTES:
        text.insert(len(text), PAGE)
    log += [(ADA, update) for update in made]
    bot: Doc[Any] = Doc(client_id=2)
    bot.apply_update(doc.get_update())
    made.clear()
    bot.observe(_note(made))
    theirs = bot.get(traces.ROOT, type=Text)
    chance, before = Random(4), str(text)
    place = 0
    for flush in range(FLUSHES):
        if flush % 50 == 0:
            place = 20_000 + flush // 50 * 45_000
        with bot.transaction():
            if flush % 10 == 0:
                del theirs[place : place + chance.randrange(5, 20)]
            theirs.insert(place, "a few tokens of it ")
        place += len("a few tokens of it ")
    log += [(BOT, update) for update in made]
    for _, update in log[-FLUSHES:]:
        doc.apply_update(update)
    made.clear()
    text.insert(20_100, TYPED)
    log += [(ADA, made[-1])]
    return log, before


@contextmanager
def _stored(log: Log) -> Iterator[Path]:
    """A store that holds a log."""
    with tempfile.TemporaryDirectory(prefix="collab-bench-") as folder:
        asyncio.run(_fill(Path(folder), log))
        yield Path(folder)


@contextmanager
def _serving(
    bench: Bench, folder: Path
) -> Iterator[tuple[Server, Callable[..., httpx2.Response]]]:
    """A server on a store, and a way to ask about the room."""
    with (
        Server(bench.ours, bench.core, folder=folder) as server,
        httpx2.Client(timeout=60) as client,
    ):
        url = f"http://127.0.0.1:{server.port}/v1/rooms"

        def ask(
            method: str, path: str, body: dict[str, Any] | None = None, room: str = ROOM
        ) -> httpx2.Response:
            answer = client.request(method, f"{url}/{room}{path}", json=body)
            answer.raise_for_status()
            return answer

        yield server, ask


async def _fill(folder: Path, log: Log) -> None:
    async with SqliteStore(folder) as store:
        done = asyncio.Event()

        def appended(entries: Sequence[Entry], error: CollabError | None) -> None:
            if error is not None:
                raise error
            if entries[-1].last == len(log):
                done.set()

        for start in range(0, len(log), AT_ONCE):
            some = log[start : start + AT_ONCE]
            authors, updates = zip(*some, strict=True)
            at = 1_700_000_000_000 + start * PACE
            store.append([Entry(ROOM, "e", start + 1, at, updates, authors)], appended)
        await done.wait()
        limits = {"memory_bytes": 4 << 30, "cpu_seconds": 600, "hang_seconds": 600.0}
        async with Child(**limits) as child:
            made: object = True
            while made is not None:
                stored, made = await make_checkpoint(store, ROOM, child)
            fence, until = stored.fence, len(log)
            while await make_attribution(store, ROOM, child, fence=fence, until=until):
                pass
