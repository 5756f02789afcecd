"""One client's half of `collab.v1`, without a socket: a real document, what it has not heard back of, what it measures."""

from __future__ import annotations

import json
import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

from pycrdt import Doc, Map, MapEvent, Text, TransactionEvent

from collab.protocol import yjs
from collab.protocol.varint import Reader, encode_string, encode_varint

MAX_STRING_BYTES = 65_536
MAX_OUTGOING = (
    5_000  # frames that a server has not taken yet; whoever edits waits for it then
)
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 30.0


class Report(Protocol):
    """Somebody who counts what happened: an event, how long it took, and what was wrong with it."""

    def __call__(
        self, event: str, seconds: float, failure: Exception | None = None
    ) -> None: ...


class Refused(Exception):
    """The server did not take an update; the message is the code that it named."""


class AnotherHistory(Exception):
    """The room was deleted or restored from a backup during the run: what it held is lost."""


class Sent(NamedTuple):
    """An update that the server owes an acknowledgement."""

    sequence: int
    at: float
    is_empty: bool  # a step 2 that brought nothing: acknowledged at once, and not worth a figure


class Provider:
    """A document that one connection at a time keeps in step with a room.

    Synchronous: `outgoing` holds the frames to be sent, in order; `on_outgoing` is called when there are some.
    Every edit carries a probe, {run, sender, sequence, micros}, in a map that the other members watch.
    """

    def __init__(
        self,
        room: str,
        name: str,
        report: Report,
        *,
        run: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.room, self.name, self.run = room, name, run
        self.outgoing: deque[bytes] = deque()
        self.on_outgoing: Callable[[], object] = lambda: None
        self.unacknowledged: deque[Sent] = deque()
        self.is_synced = False
        self.version = 0  # of the document: grows with whatever may have changed it
        self._report, self._clock = report, clock
        self._epoch = ""
        self._opened_at = self._synced_at = 0.0
        self._lost_at: float | None = None
        self._return_seconds = 0.0  # after which a server that drains wants to be asked
        self._is_open = self._may_send = self._is_receiving = False
        self._updates = 0  # sent on this connection
        self._probes_sent = 0
        self._probes_seen: dict[str, int] = {}
        self._arrived: list[tuple[str, int, float]] = []
        self._cursor = self._awareness_clock = 0
        self._doc: Doc[Any] = Doc()
        self.text = self._doc.get("text", type=Text)
        self._probes = self._doc.get("probes", type=Map)
        self._subscriptions = (
            self._doc.observe(self._changed),
            self._probes.observe(self._probed),
        )

    @property
    def document(self) -> Doc[Any]:
        """For comparing; edits go through `editing`."""
        return self._doc

    @property
    def is_clogged(self) -> bool:
        """The server does not take what is sent: more of it would only fill memory."""
        return len(self.outgoing) >= MAX_OUTGOING

    def open(self) -> None:
        """A socket is there: ask for what is missing, and be seen."""
        self._opened_at = self._clock()
        self._is_open = True
        self._updates = 0
        self.outgoing.clear()
        self._send(yjs.sync_step_1(self._doc.get_state()))
        self.renew()

    def close(self) -> None:
        """The socket is gone. What was not acknowledged goes out again in the next connection's step 2."""
        if self.is_synced:
            self._lost_at = self._clock()
        self.is_synced = self._is_open = self._may_send = False
        self.unacknowledged.clear()
        self.outgoing.clear()

    def pause_seconds(self, attempt: int, chance: random.Random) -> float:
        """Before the next connection: what the server asked for, and a random part of a pause that doubles with each
        attempt, so that a herd does not come back as one.
        """
        asked, self._return_seconds = self._return_seconds, 0.0
        longest = FIRST_PAUSE_SECONDS * 2 ** min(attempt, 30)
        return asked + chance.uniform(0, min(LONGEST_PAUSE_SECONDS, longest))

    def renew(self, cursor: int | None = None) -> None:
        """Say that this client is still here, and where its cursor is."""
        if cursor is not None:
            self._cursor = cursor
        if not self._is_open:
            return
        self._awareness_clock += 1
        state = json.dumps({"user": {"name": self.name}, "cursor": self._cursor})
        self._send(
            yjs.awareness_message(
                encode_varint(1)
                + encode_varint(self._doc.client_id)
                + encode_varint(self._awareness_clock)
                + encode_string(state)
            )
        )

    @contextmanager
    def editing(self) -> Iterator[Text]:
        """One edit. Nothing inside may wait: an edit of another greenlet would silently join this one."""
        with self._doc.transaction():
            yield self.text
            if self.is_synced:
                self._probes_sent += 1
                self._probes[self.name] = {
                    "run": self.run,
                    "sender": self.name,
                    "sequence": self._probes_sent,
                    "micros": int(self._clock() * 1e6),
                }

    def receive(self, frame: bytes) -> None:
        """Take in one frame of the server. Raises AnotherHistory, and InvalidMessage for what is no message."""
        reader = Reader(frame)
        kind = reader.read_varint()
        if kind == yjs.SYNC:
            self._receive_sync(reader)
        elif kind == yjs.ACK:
            self._acknowledged(reader.read_varint())
        elif kind == yjs.REFUSED:
            sequence = reader.read_varint()
            self._refused(sequence, reader.read_string(MAX_STRING_BYTES))
        elif kind == yjs.HELLO:
            reader.read_varint()
            self._greeted(reader.read_string(MAX_STRING_BYTES))
        elif kind == yjs.NOTICE and reader.read_string(MAX_STRING_BYTES) == "drain":
            self._return_seconds = reader.read_varint() / 1000

    def _receive_sync(self, reader: Reader) -> None:
        step = reader.read_varint()
        body = reader.read_bytes()
        if step == yjs.STEP_1:
            update = self._doc.get_update(body)
            self._may_send = True
            self._send_update(yjs.sync_step_2(update), is_empty=update == yjs.NOTHING)
            return
        self._is_receiving = True
        try:
            self._doc.apply_update(body)
        finally:
            self._is_receiving = False
            self.version += 1
        now = self._clock()
        if step == yjs.STEP_2 and not self.is_synced:
            self._synced(now)
        arrived, self._arrived = self._arrived, []
        for sender, sequence, made_at in arrived:
            # What was there before this connection says nothing about how fast the server is.
            if sequence > self._probes_seen.get(sender, 0):
                self._probes_seen[sender] = sequence
                if self.is_synced and made_at >= self._synced_at:
                    self._report("propagation", now - made_at)

    def _synced(self, now: float) -> None:
        self.is_synced, self._synced_at = True, now
        if self._lost_at is None:
            self._report("initial_sync", now - self._opened_at)
        else:
            self._report("reconnect", now - self._lost_at)
        self._lost_at = None

    def _greeted(self, epoch: str) -> None:
        if self._epoch and epoch != self._epoch:
            raise AnotherHistory("the room has another history than before")
        self._epoch = epoch

    def _acknowledged(self, sequence: int) -> None:
        now = self._clock()
        while self.unacknowledged and self.unacknowledged[0].sequence <= sequence:
            sent = self.unacknowledged.popleft()
            if not sent.is_empty:
                self._report("saved", now - sent.at)

    def _refused(self, sequence: int, code: str) -> None:
        now = self._clock()
        for sent in self.unacknowledged:
            if sent.sequence == sequence:
                self.unacknowledged.remove(sent)
                self._report("saved", now - sent.at, Refused(f"refused: {code}"))
                return

    def _changed(self, event: TransactionEvent) -> None:
        if self._is_receiving:
            return
        self.version += 1
        # Until the server has asked what it lacks, an edit is part of that answer.
        if self._may_send:
            self._send_update(yjs.update_message(event.update))

    def _probed(self, event: MapEvent) -> None:
        if not self._is_receiving:
            return
        for change in event.keys.values():
            probe = change.get("newValue")
            if isinstance(probe, dict) and probe.get("run") == self.run:
                self._arrived.append(
                    (probe["sender"], int(probe["sequence"]), probe["micros"] / 1e6)
                )

    def _send_update(self, frame: bytes, *, is_empty: bool = False) -> None:
        self._updates += 1
        self.unacknowledged.append(Sent(self._updates, self._clock(), is_empty))
        self._send(frame)

    def _send(self, frame: bytes) -> None:
        self.outgoing.append(frame)
        self.on_outgoing()
