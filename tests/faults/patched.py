"""The real server with something changed, as its command line: `python patched.py BUILD serve …`.

`newer` speaks as a later release may; the others are broken, and the harness must find each of them out.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

from pycrdt import Doc

import collab
from collab import compaction
from collab.bus.publisher import Publisher
from collab.cli import main
from collab.document.gate import Gate
from collab.protocol import envelope
from collab.protocol.varint import encode_bytes, encode_varint
from collab.replicas.link import Link
from collab.store.base import Checkpoint
from collab.store.sqlite import SqliteStore

LATE_SECONDS = 0.4  # between an acknowledgement that comes too early and the write
CHANCE = random.Random(1)


def newer() -> None:
    """Fields and kinds that nobody knows yet."""
    fields = envelope._fields
    publish = Link._publish
    unknown = (
        bytes((envelope.VERSION, 0))
        + encode_varint(77)
        + encode_varint(99)
        + encode_bytes(b"?")
    )

    def more(message: envelope.Message) -> Iterator[tuple[int, bytes]]:
        return itertools.chain(fields(message), [(99, b"from a later release")])

    def publish_more(link: Link, *arguments: Any) -> None:
        link._wire.publish(link.name, unknown)
        publish(link, *arguments)

    envelope._fields = more  # type: ignore[assignment]
    Link._publish = publish_more  # type: ignore[method-assign]
    collab.__version__ = "0.2.0"


def acknowledges_first() -> None:
    """Says "logged" and writes later."""
    append = SqliteStore.append

    def hasty(store: SqliteStore, entries: Any, done: Any) -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(done, entries, None)
        loop.call_later(LATE_SECONDS, append, store, entries, lambda *_: None)

    SqliteStore.append = hasty  # type: ignore[method-assign]


def drops_entries() -> None:
    """Passes over one in a hundred updates of other replicas, and never compares documents."""
    merge = Link.merge

    def careless(link: Link, update: bytes, owner: str) -> None:
        if CHANCE.random() > 0.01:
            merge(link, update, owner)

    Link.merge = careless  # type: ignore[method-assign]
    Link.compare = Link.exchange = lambda link: None  # type: ignore[method-assign]


def checkpoints_too_much() -> None:
    """Makes checkpoints of what the document shows, while something waits outside it, and says that they cover all."""

    async def make(store: Any, name: str, child: Any) -> Any:
        stored = await store.load(name)
        if not stored.tail:
            return stored, None
        doc: Doc[Any] = Doc()
        gate = Gate(max_bytes=1 << 22)
        before = [stored.checkpoint.snapshot] if stored.checkpoint else []
        for update in (*before, *(update for _, update in stored.tail)):
            for ready in gate.admit(update):
                doc.apply_update(ready)
        made = Checkpoint(stored.tail[-1][0], doc.get_update())
        is_stored = await store.checkpoint(name, made, fence=stored.fence)
        return stored, made if is_stored else None

    compaction.make_checkpoint = make


def publishes_through_a_pool() -> None:
    """Entries of one room leave on whichever connection is free: now and then one overtakes the one before."""
    publish = Publisher.publish
    waiting: dict[str, bytes] = {}

    def pooled(publisher: Publisher, channel: str, body: bytes) -> None:
        if channel not in waiting and CHANCE.random() < 0.2:
            waiting[channel] = body
            return
        publish(publisher, channel, body)
        if channel in waiting:
            publish(publisher, channel, waiting.pop(channel))

    Publisher.publish = pooled  # type: ignore[method-assign]


BUILDS: dict[str, Callable[[], None]] = {
    "newer": newer,
    "acknowledges first": acknowledges_first,
    "drops entries": drops_entries,
    "checkpoints too much": checkpoints_too_much,
    "publishes through a pool": publishes_through_a_pool,
}

if __name__ == "__main__":
    BUILDS[sys.argv[1]]()
    sys.argv = ["collab", *sys.argv[2:]]
    main()
