"""A provider with a socket: connects, reads, writes, keeps itself seen, and comes back. Runs under gevent."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Sequence
from urllib.parse import quote

import gevent
from agreement import Standing, content
from gevent.event import Event
from provider import AnotherHistory, Provider, Report
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from collab.errors import CollabError
from collab.protocol.yjs import COLLAB_V1

CONNECT_SECONDS = 10.0
CLOSE_SECONDS = 2.0
SILENT_SECONDS = 45.0  # the server says something every twelve
HEARTBEAT_SECONDS = 15.0
MAX_FRAME_BYTES = 1 << 26

# A server that goes down for a restart says so, and its clients come back.
ORDERLY = (1000, 1001, 1012)


class Lost(Exception):
    """A connection that should have lived; the message begins with the close code."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"{code} {reason}".rstrip())
        self.code = code


class Unreachable(Exception):
    """No connection came about; the message says what came instead."""


class Member:
    """A provider's life on the wire, in greenlets of its own: whoever edits the document never waits for a socket."""

    def __init__(
        self,
        provider: Provider,
        urls: Sequence[str],
        report: Report,
        chance: random.Random,
    ) -> None:
        self.provider = provider
        self.ended = ""  # why it will not come back
        self._urls, self._report, self._chance = urls, report, chance
        self._socket: ClientConnection | None = None
        self._life: gevent.Greenlet | None = None
        self._is_over = self._is_dropped = False
        self._has_frames, self._hurry = Event(), Event()
        self._compared: tuple[int, Standing] = (-1, ())
        provider.on_outgoing = self._has_frames.set

    def start(self, *, within_seconds: float = 0.0) -> None:
        """Begin at some moment of these: who is started together does not have to come together."""
        delay = self._chance.uniform(0, within_seconds)
        self._life = gevent.spawn_later(delay, self._live)

    def drop(self) -> None:
        """Cut the connection as a failing network would."""
        if self._socket is not None:
            self._is_dropped = True
            try:
                self._socket.socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it is gone already

    def hurry(self) -> None:
        """Connect now instead of at the end of a pause."""
        self._hurry.set()

    def end(self) -> None:
        """Leave for good."""
        self._is_over = True
        if self._socket is not None:
            self._socket.close()
        if self._life is not None:
            self._life.kill()

    def standing(self) -> Standing:
        """What its document is, or why that cannot be compared yet."""
        provider = self.provider
        if self.ended:
            return (f"is gone: {self.ended}",)
        if not provider.is_synced:
            return ("is not connected",)
        if provider.unacknowledged:
            return (f"waits for {len(provider.unacknowledged)} acknowledgements",)
        if self._compared[0] != provider.version:
            self._compared = (provider.version, content(provider))
        return self._compared[1]

    def _live(self) -> None:
        attempt = 0
        while not self._is_over and not self.ended:
            # Whoever is let in and sent away again has not arrived.
            if self._connect() and self._carry():
                attempt = 0
            self._hurry.wait(self.provider.pause_seconds(attempt, self._chance))
            self._hurry.clear()
            attempt += 1

    def _connect(self) -> bool:
        url = (
            f"{self._chance.choice(self._urls)}/ws/{quote(self.provider.room, safe='')}"
        )
        started = time.monotonic()
        failure: Exception | None = None
        try:
            self._socket = connect(
                url,
                subprotocols=[COLLAB_V1],
                compression=None,
                proxy=None,
                open_timeout=CONNECT_SECONDS,
                close_timeout=CLOSE_SECONDS,
                ping_interval=None,
                max_size=MAX_FRAME_BYTES,
            )
        except InvalidStatus as error:
            failure = Unreachable(f"HTTP {error.response.status_code}")
        except (OSError, WebSocketException) as error:
            failure = Unreachable(type(error).__name__)
        self._report("connect", time.monotonic() - started, failure)
        return failure is None

    def _carry(self) -> bool:
        """Both ways, until the connection is over; whether it ever was in step with the room."""
        assert self._socket is not None
        self._is_dropped = False
        self.provider.open()
        writer = gevent.spawn(self._write, self._socket)
        started = time.monotonic()
        try:
            while True:
                frame = self._socket.recv(timeout=SILENT_SECONDS, decode=False)
                assert isinstance(frame, bytes)
                self.provider.receive(frame)
        except ConnectionClosed as end:
            closed = end.rcvd
            lost = Lost(closed.code, closed.reason) if closed else Lost(1006)
        except TimeoutError:
            lost = Lost(1006, f"nothing came for {SILENT_SECONDS:g} seconds")
        except AnotherHistory as error:
            lost, self.ended = Lost(1006, str(error)), str(error)
        except CollabError as error:
            lost = Lost(1006, f"not understood: {error}")
        finally:
            writer.kill()
            was_synced = self.provider.is_synced
            self.provider.close()
        is_expected = self._is_over or self._is_dropped or lost.code in ORDERLY
        self.drop()  # when it was not the server who ended it
        if 4400 <= lost.code < 4500:
            self.ended = f"closed with {lost}"
        if not is_expected:
            self._report("connection", time.monotonic() - started, lost)
        return was_synced

    def _write(self, connection: ClientConnection) -> None:
        outgoing = self.provider.outgoing
        # Those who came together do not have to be renewed together.
        due = time.monotonic() + self._chance.uniform(0.2, 1) * HEARTBEAT_SECONDS
        try:
            while True:
                while outgoing:
                    connection.send(outgoing.popleft())
                self._has_frames.clear()
                self._has_frames.wait(max(0.0, due - time.monotonic()))
                if time.monotonic() >= due:
                    self.provider.renew()
                    due = time.monotonic() + HEARTBEAT_SECONDS
        except ConnectionClosed:
            pass  # whoever reads tells of it
