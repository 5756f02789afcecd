"""The playground's demo agent: the reviewer of `examples/`, in a process of its own, for one room at a time.

It comes as everybody does, over a socket. With access control it speaks for whoever has sent for it, by tickets for that
room alone, and may do no more there than read, write and be seen.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import collab
from collab import logs
from collab.auth.permissions import PRESENCE, READ, WRITE, Principal
from collab.errors import Busy, CollabError, NothingHere
from collab.names import room_key, room_name
from collab.server.access import Access
from collab.server.limits import Limits
from collab.server.responses import Json

NAME, ROLE = "Demo reviewer", "reviewer"
MAX_AGENTS = 8  # at once, in all rooms of this process
IDLE_SECONDS = 600  # in which nobody changes anything; then it leaves
LIFE_SECONDS = 4 * 3600.0  # then it is sent away in any case
END_SECONDS = 5.0  # to leave the room by itself, before it is killed
TICKET_SECONDS = 0.1  # between two tickets for one agent

log = logs.logger(__name__)


class Demo:
    """`/playground/agent`: POST has it come to a room, DELETE leave. Leaving the context ends all of them."""

    def __init__(self, access: Access, limits: Limits, address: str) -> None:
        """`address` is this server's own, as a program on this machine reaches it."""
        self._access, self._limits, self._address = access, limits, address
        self._here: dict[str, Process | None] = {}  # by room; None is on its way
        self._unwanted: set[str] = set()  # of those on their way
        self._tasks: asyncio.TaskGroup | None = None

    async def __aenter__(self) -> Self:
        self._tasks = await asyncio.TaskGroup().__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        tasks, self._tasks = self._tasks, None
        for process in self._here.values():
            _send_away(process)
        if tasks is not None:
            await tasks.__aexit__(kind, error, traceback)

    def routes(self) -> list[Route]:
        path = "/playground/agent"
        return [
            Route(path, self.come, methods=["POST"]),
            Route(path, self.leave, methods=["DELETE"]),
        ]

    async def come(self, request: Request) -> Response:
        """202 when it is on its way, 200 when it is here."""
        room, principal = await self._asked(request)
        key = room_key(principal.tenant, room)
        if key in self._here:
            return Json({"status": "here"})
        if self._tasks is None or len(self._here) >= MAX_AGENTS:
            raise Busy("as many demo agents are at work as there may be")
        self._here[key] = None
        self._tasks.create_task(self._attend(key, room, principal))
        return Json({"status": "coming"}, status_code=202)

    async def leave(self, request: Request) -> Response:
        """204 when it is told to. Raises NothingHere where it came by another process of this server, or not at all."""
        room, principal = await self._asked(request)
        key = room_key(principal.tenant, room)
        if key not in self._here:
            raise NothingHere(
                "only the process by which it was sent for can send it away; it leaves when nothing changes for ten minutes"
            )
        self._unwanted.add(key)
        _send_away(self._here[key])
        return Response(status_code=204)

    async def _asked(self, request: Request) -> tuple[str, Principal]:
        """For which room, and by whom. Raises what `Access.enter` does, for who may not write there too."""
        access = self._access
        room = room_name(request.query_params.get("room", ""))
        credential = access.credential(request)
        self._limits.arrive(credential.address)
        try:
            principal = await access.authority.authenticate(credential, room)
            self._limits.request(principal)
            access.allow(principal, room, READ | WRITE)
        except CollabError as error:
            access.denied(error, "demo", room=room, address=credential.address)
            raise
        return room, principal

    async def _start(self, room: str) -> Process:
        """Settings of this server, and what else is in its environment, are none of its business."""
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "collab.server.demonstrate"),
            *("--name", NAME, "--role", ROLE, "--idle-seconds", str(IDLE_SECONDS)),
            *(() if self._access.authority.is_open else ("--tickets",)),
            *("--", self._address, room),  # which may begin with a dash
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            env={"PYTHONUTF8": "1"},
            cwd=Path(collab.__file__).parent.parent,
            start_new_session=True,  # the terminal's Ctrl-C is for the server alone
        )

    async def _attend(self, key: str, room: str, principal: Principal) -> None:
        """Start one, and bring it tickets until it ends."""
        process = None
        try:
            self._here[key] = process = await self._start(room)
            if self._tasks is None or key in self._unwanted:
                return  # the server has ended meanwhile, or it was sent away
            async with asyncio.timeout(LIFE_SECONDS):
                await self._bring_tickets(process, room, principal)
        except (TimeoutError, OSError, ValueError) as error:
            # It cannot be started, is old, does not listen any more, or talks too much.
            log.info("a demo agent is sent away", reason=type(error).__name__)
        finally:
            _send_away(process)
            if process is not None:
                await process.wait()
            del self._here[key]
            self._unwanted.discard(key)

    async def _bring_tickets(
        self, process: Process, room: str, principal: Principal
    ) -> None:
        """One for each line that it says. Who sent for it may have lost the right since: then it gets none."""
        access = self._access
        agent = replace(
            principal,
            kind="agent",
            name=NAME,
            role=ROLE,
            on_behalf_of=principal.on_behalf_of or principal.id,
            at_most=principal.at_most & (READ | WRITE | PRESENCE),
        )
        assert process.stdin is not None
        assert process.stdout is not None
        while await process.stdout.readline():
            try:
                access.allow(agent, room, READ | WRITE)
                ticket, _ = await access.tickets.issue(agent, room)
            except CollabError as error:
                log.info("a demo agent gets no ticket", code=error.code)
                return
            process.stdin.write(f"{ticket}\n".encode())
            await process.stdin.drain()
            await asyncio.sleep(TICKET_SECONDS)


def _send_away(process: Process | None) -> None:
    """It leaves by itself, or is killed."""
    if process is not None and process.returncode is None:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        asyncio.get_running_loop().call_later(END_SECONDS, _kill, process)


def _kill(process: Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
