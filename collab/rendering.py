"""Documents in the forms that others read: small ones are written at once, large ones in a child process."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Self

from collab.compaction import Child, ChildDied, rendered
from collab.document.export import FORMS, export
from collab.document.replay import Request, encode_request
from collab.errors import Busy, CollabError, RoomUnavailable

INLINE_BYTES = 32_768  # of a document: 2 ms for a text, 10 ms for deep maps and lists
MAX_WAITING = 32  # renderings that wait for the child
MAX_WAITING_OF_ROOM = 8  # so that one room does not keep the others waiting
MAX_KEPT_BYTES = 16 << 20  # for the next who asks
ENTRY_BYTES = 500  # that one takes beside its content

_Kept = tuple[bytes, dict[tuple[str, str], bytes]]


class Renderer:
    """Writes documents, and keeps what was written until they change. An async context manager."""

    def __init__(
        self,
        *,
        memory_bytes: int = 2 << 30,
        cpu_seconds: int = 10,
        hang_seconds: float = 15.0,
    ) -> None:
        self._child = Child(
            memory_bytes=memory_bytes,
            cpu_seconds=cpu_seconds,
            hang_seconds=hang_seconds,
        )
        self._turn = asyncio.Lock()
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._bytes = 0
        self._under_way: dict[tuple[str, int, str, str], asyncio.Future[bytes]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._child.end()

    def render_at_once(
        self, room: str, snapshot: bytes, form: str, root: str
    ) -> bytes | None:
        """The document in one of `FORMS`, when it is small or was written before. One that has not changed gives the
        very same snapshot. Raises what the functions of `collab.document.export` raise.
        """
        kept = self._of(room, snapshot)
        content = kept[1].get((form, root))
        if content is None and len(snapshot) <= INLINE_BYTES:
            content = export(snapshot, form, root)
            self._keep(room, kept, (form, root), content)
        return content

    async def render(self, room: str, snapshot: bytes, form: str, root: str) -> bytes:
        """Likewise, whatever its size. Raises Busy, too, when too many wait, and RoomUnavailable for a document that
        takes too long.
        """
        content = self.render_at_once(room, snapshot, form, root)
        if content is None:
            kept = self._of(room, snapshot)
            content = await self._together(room, snapshot, form, root)
            self._keep(room, kept, (form, root), content)
        return content

    def _keep(
        self, room: str, kept: _Kept, key: tuple[str, str], content: bytes
    ) -> None:
        if self._kept.get(room) is kept and key not in kept[1]:
            kept[1][key] = content
            self._bytes += len(content) + ENTRY_BYTES
            while self._bytes > MAX_KEPT_BYTES:
                self._bytes -= _size(self._kept.popitem(last=False)[1])

    def _of(self, room: str, snapshot: bytes) -> _Kept:
        """What was written of this very state of the document, now the youngest."""
        kept = self._kept.pop(room, None)
        if kept is not None and kept[0] is not snapshot:
            self._bytes -= _size(kept)
            kept = None
        if kept is None:
            kept = (snapshot, {})
            self._bytes += _size(kept)
        self._kept[room] = kept
        return kept

    async def _together(
        self, room: str, snapshot: bytes, form: str, root: str
    ) -> bytes:
        """However many ask for the same at the same time, it is written once."""
        what = (room, id(snapshot), form, root)
        future = self._under_way.get(what)
        if future is not None:
            return await asyncio.shield(future)
        of_room = sum(name == room for name, *_ in self._under_way)
        if len(self._under_way) >= MAX_WAITING or of_room >= MAX_WAITING_OF_ROOM:
            raise Busy("too many documents are being written; come back in a moment")
        future = self._under_way[what] = asyncio.get_running_loop().create_future()
        try:
            content = await self._in_child(snapshot, form, root)
            future.set_result(content)
            return content
        except BaseException as error:
            is_ours = isinstance(error, CollabError)
            future.set_exception(error if is_ours else Busy("ask again"))
            future.exception()  # nobody else may be waiting for it
            raise
        finally:
            del self._under_way[what]

    async def _in_child(self, snapshot: bytes, form: str, root: str) -> bytes:
        request = encode_request(
            Request.RENDER, snapshot, FORMS.index(form), [(0, root.encode())]
        )
        async with self._turn:
            try:
                return await rendered(
                    self._child, request, "this document cannot be written in that form"
                )
            except ChildDied:
                raise RoomUnavailable(
                    "this document takes too long to write in that form"
                ) from None


def _size(kept: _Kept) -> int:
    return len(kept[0]) + 1000 + sum(len(one) + ENTRY_BYTES for one in kept[1].values())
