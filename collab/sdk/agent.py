"""Agent: one member of a server, in as many of its rooms as it opens."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal, Self

from collab.document.anchor import Anchor
from collab.document.blocks import Editor
from collab.sdk.connection import base_url
from collab.sdk.credential import Token
from collab.sdk.doc import Doc
from collab.sdk.errors import Conflict, Invalid, SdkError, Unavailable
from collab.sdk.presence import STATUSES, checked
from collab.sdk.provider import FLUSH_SECONDS, Phase, Provider

Kind = Literal["agent", "human", "service"]
Status = Literal["idle", "thinking", "writing", "waiting_approval", "error"]

KINDS = ("agent", "human", "service")
OPEN_SECONDS = 30.0
MAX_ROOMS = 1000  # open at once
MAX_DETAIL_CHARACTERS, MAX_TAIL_CHARACTERS = 256, 256


class Agent:
    """A member of the server at an address (http, https, ws or wss), from entering its block to leaving it; `connect` is
    another name of it. Each room has a socket of its own.

    async with collab.connect("https://example.org", token=token, name="Reviewer") as agent:
        doc = await agent.open("room")
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token = None,
        name: str = "",
        kind: Kind = "agent",
        role: str = "",
        color: str = "",
        on_behalf_of: str = "",
        tls: ssl.SSLContext | None = None,
        open_seconds: float = OPEN_SECONDS,
        flush_seconds: float = FLUSH_SECONDS,
    ) -> None:
        """With access control the server knows better than this what name, kind and role are; see `Provider.user`.

        `open_seconds` bounds the wait for a room, `flush_seconds` that on leaving it.
        """
        if kind not in KINDS:
            raise Invalid(f"there is no kind {kind!r}")
        self.base_url = base_url(url)
        self.name, self.kind, self.role = name, kind, role
        self._token, self._tls = token, tls
        self._open_seconds, self._flush_seconds = open_seconds, flush_seconds
        self._user = {
            key: value
            for key, value in (
                ("name", name),
                ("kind", kind),
                ("role", role),
                ("on_behalf_of", on_behalf_of),
                ("color", color),
            )
            if value
        }
        self._doing: dict[str, str] = {"status": "idle"}
        self._docs: dict[str, Doc] = {}
        self._lives: dict[str, asyncio.Task[None]] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._was_entered = False

    async def __aenter__(self) -> Self:
        if self._was_entered:
            raise Conflict("an agent's block is entered once: connect anew")
        self._was_entered = True
        self._tasks = await asyncio.TaskGroup().__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave all rooms, each after flushing it for a bounded time. Raises when something is not saved."""
        tasks, self._tasks = self._tasks, None
        if tasks is None:
            return  # it was left before
        faults: list[SdkError] = []
        try:
            async with asyncio.TaskGroup() as leaving:
                for doc in self._docs.values():
                    leaving.create_task(_leave(doc.provider, faults))
        finally:
            for life in self._lives.values():
                life.cancel()
            # An error of the program's own is not one of ours: it goes on as it is.
            is_cancelled = kind is not None and issubclass(kind, asyncio.CancelledError)
            given = (kind, error, traceback) if is_cancelled else (None, None, None)
            await tasks.__aexit__(*given)
        if faults and kind is None:
            raise faults[0]

    @property
    def rooms(self) -> Mapping[str, Doc]:
        """What is open."""
        return dict(self._docs)

    async def open(self, room: str, *, editor: Editor | None = None) -> Doc:
        """Enter a room; when this returns the document holds what the room holds. The same again gives the same.

        `editor` says whose document it is, while there is nothing in it that does: then what is empty is XML, and Markdown
        becomes the blocks of that editor.

        Raises the error of a server that refuses, and Unavailable when the room was not reached in time.
        """
        is_new = room not in self._docs
        doc = self._enter(room) if is_new else self._docs[room]
        doc.memory.editor = editor or doc.memory.editor
        try:
            await doc.provider.synced(self._open_seconds)
        except BaseException:
            if is_new or doc.provider.state.phase is Phase.REFUSED:
                self._forget(room)
            raise
        return doc

    def _enter(self, room: str) -> Doc:
        if self._tasks is None:
            raise Unavailable("the agent's block has not begun, or is over")
        if len(self._docs) >= MAX_ROOMS:
            raise Unavailable(f"{MAX_ROOMS} rooms are open already")
        provider = Provider(
            self.base_url,
            room,
            token=self._token,
            state=self._shown(),
            tls=self._tls,
            flush_seconds=self._flush_seconds,
        )
        doc = Doc(provider, self)
        self._docs[room] = doc
        self._lives[room] = self._tasks.create_task(provider.run())
        return doc

    async def close(self, room: str) -> None:
        """Leave one room, after flushing it for a bounded time. Raises when something is not saved."""
        doc = self._docs.get(room)
        if doc is None:
            return
        try:
            await doc.provider.leave()
        finally:
            self._forget(room)

    def _forget(self, room: str) -> None:
        self._docs.pop(room, None)
        life = self._lives.pop(room, None)
        if life is not None:
            life.cancel()

    def status(
        self,
        status: Status,
        *,
        detail: str = "",
        task: str = "",
        turn: str = "",
        tail: str = "",
    ) -> None:
        """Say in all rooms what this agent is doing. `tail` is what it has written and not put into the document yet.

        Raises Invalid when it is no text, or too much.
        """
        if status not in STATUSES:
            raise Invalid(f"there is no status {status!r}")
        doing = {
            "status": status,
            "task": task,
            "turn": turn,
            "detail": detail[:MAX_DETAIL_CHARACTERS],
            "tail": tail[-MAX_TAIL_CHARACTERS:],
        }
        self._doing = checked({key: value for key, value in doing.items() if value})
        for doc in self._docs.values():
            doc.provider.show({**doc.provider.shown, "agent": self._doing})

    def cursor(
        self, doc: Doc, anchor: Anchor | None, head: Anchor | None = None
    ) -> None:
        """Show where this agent is in one document, None for nowhere; from `anchor` to `head` when something is selected."""
        provider = doc.provider
        shown = dict(provider.shown)
        shown["cursor"] = (
            None
            if anchor is None
            else {"anchor": anchor.to_json(), "head": (head or anchor).to_json()}
        )
        provider.show(shown)

    def _shown(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"user": self._user}
        if self.kind == "agent":
            shown["agent"] = self._doing
        return shown


async def _leave(provider: Provider, faults: list[SdkError]) -> None:
    try:
        await provider.leave()
    except SdkError as error:
        faults.append(error)


connect = Agent
