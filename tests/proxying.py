"""The proxies of deploy/proxy as real processes: the shipped files, with the ports and directories of a test in them."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from processes import ROOT
from services import Process
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

SHIPPED = ROOT / "deploy" / "proxy"


def put(pattern: str, replacement: str, text: str) -> str:
    """Replace what stands there once; a file that no longer has it is not what is tested."""
    found, count = re.subn(pattern, lambda _: replacement, text, flags=re.MULTILINE)
    assert count == 1, f"{pattern} stands there {count} times"
    return found


class Proxy(Process):
    """A proxy in front of some ports of this machine; `change` may spoil its configuration first."""

    file: str

    def __init__(
        self, backends: Sequence[int], change: Callable[[str], str] = lambda text: text
    ) -> None:
        super().__init__()
        self.backends = backends
        self.configuration = self.directory / self.file
        self._change = change

    @property
    def address(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def render(self, text: str) -> str:
        raise NotImplementedError

    def written(self) -> str:
        """Everything that it has logged."""
        raise NotImplementedError

    def write(self) -> None:
        shipped = (SHIPPED / self.file).read_text()
        self.configuration.write_text(self.render(self._change(shipped)))

    def is_ready(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


class Nginx(Proxy):
    file = "nginx.conf"

    def render(self, text: str) -> str:
        servers = "".join(
            f"\n        server 127.0.0.1:{port} max_fails=3 fail_timeout=5s;"
            for port in self.backends
        )
        text = put(r"(\n +server 10\.[0-9.]+:8000 max_fails=3.*)+", servers, text)
        text = put(r"listen 8080", f"listen 127.0.0.1:{self.port}", text)
        text = put(r"/run/nginx\.pid", str(self.directory / "pid"), text)
        folders = "".join(
            f"{kind}_temp_path {self.directory / kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        text = put(r"^http \{", f"http {{ {folders}", text)
        return text.replace("/var/log/nginx", str(self.directory))

    def command(self) -> list[str]:
        self.write()
        nowhere = str(self.directory / "error.log")  # before the file has been read
        file = str(self.configuration)
        return ["nginx", "-e", nowhere, "-c", file, "-g", "daemon off;"]

    def check(self) -> list[str]:
        return [*self.command(), "-t"]

    def written(self) -> str:
        files = ("access.log", "error.log", "log")
        found = [self.directory / file for file in files]
        return "".join(file.read_text() for file in found if file.exists())


class Haproxy(Proxy):
    file = "haproxy.cfg"

    def render(self, text: str) -> str:
        servers = "".join(
            f"\n    server replica{number} 127.0.0.1:{port}"
            for number, port in enumerate(self.backends, 1)
        )
        text = put(r"(\n +server replica\d replica\d:8000)+", servers, text)
        text = put(r"bind :8080", f"bind 127.0.0.1:{self.port}", text)
        if os.geteuid() != 0:  # it can only become another user as root
            text = put(r"^ +user haproxy\n +group haproxy\n", "", text)
        return text

    def command(self) -> list[str]:
        self.write()
        return ["haproxy", "-f", str(self.configuration)]

    def check(self) -> list[str]:
        return [*self.command(), "-c"]

    def written(self) -> str:
        return self.log.read_text()


PROXIES: tuple[type[Proxy], ...] = (Nginx, Haproxy)


class Stub:
    """Stands for a replica: names itself in each answer, sends back what a socket says, and drains when told to."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_draining = False
        self.status = 200  # of plain requests
        self.port = 0
        self.asked: list[Request] = []

    def answer(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path == "/readyz":
            return connection.respond(503 if self.is_draining else 200, "")
        self.asked.append(request)
        if "Upgrade" not in request.headers:
            return connection.respond(self.status, self.name)
        return connection.respond(503, self.name) if self.is_draining else None

    def sign(
        self, connection: ServerConnection, request: Request, response: Response
    ) -> Response:
        response.headers["Replica"] = self.name
        return response


@asynccontextmanager
async def stubs(count: int = 3) -> AsyncIterator[list[Stub]]:
    """So many, until the block ends."""

    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    if count == 0:
        yield []
        return
    async with stubs(count - 1) as others:
        stub = Stub(f"replica{count}")
        async with serve(
            echo,
            "127.0.0.1",
            0,
            process_request=stub.answer,
            process_response=stub.sign,
        ) as server:
            stub.port = next(iter(server.sockets)).getsockname()[1]
            yield [*others, stub]
