"""A cable that can be pulled: a network namespace joined by a pair of interfaces.

What a proxy only holds back is here lost on the way, and the kernel of either end sends it again, as between machines.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import subprocess
from contextlib import suppress
from functools import cache
from typing import Self

CLONE_NEWNET = 0x40000000


@cache
def is_available() -> bool:
    """Whether this account may make network namespaces here: root may, most containers may not."""
    if os.geteuid() != 0:
        return False
    try:
        with Cable():
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


class Cable:
    """`near` is our end's address, on which a server may listen; sockets by `connect` come from the far end.

    One at a time in a process: its number gives the names and addresses.
    """

    def __init__(self) -> None:
        number = os.getpid()
        self._name = f"cw{number}"
        subnet = 10 << 24 | (number & (1 << 22) - 1) << 2
        self.near, self.far = (
            socket.inet_ntoa((subnet | host).to_bytes(4)) for host in (1, 2)
        )

    def __enter__(self) -> Self:
        _ip("netns", "add", self._name)
        try:
            near, far = f"{self._name}n", f"{self._name}f"
            peer = ("peer", "name", far, "netns", self._name)
            _ip("link", "add", near, "type", "veth", *peer)
            _ip("addr", "add", f"{self.near}/30", "dev", near)
            _ip("link", "set", near, "up")
            _ip("-n", self._name, "addr", "add", f"{self.far}/30", "dev", far)
            self.plug()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *reason: object) -> None:
        # A namespace goes later than the command that deletes it; the pair goes at once.
        with suppress(subprocess.CalledProcessError):
            _ip("link", "del", f"{self._name}n")
        _ip("netns", "del", self._name)

    def pull(self) -> None:
        """Nothing passes, and nobody is told."""
        _ip("-n", self._name, "link", "set", f"{self._name}f", "down")

    def plug(self) -> None:
        _ip("-n", self._name, "link", "set", f"{self._name}f", "up")

    async def connect(
        self, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """From the far end to a port of the near one."""
        far = await asyncio.to_thread(self._socket)
        far.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(far, (self.near, port))
        except BaseException:
            far.close()
            raise
        return await asyncio.open_connection(sock=far)

    def _socket(self) -> socket.socket:
        """A socket stays in the namespace in which it was made, whoever uses it."""
        with open("/proc/thread-self/ns/net") as home:
            with open(f"/run/netns/{self._name}") as away:
                _enter(away.fileno())
            try:
                return socket.socket()
            finally:
                _enter(home.fileno())


def _enter(namespace: int) -> None:
    """This thread alone. `os.setns` is younger than the Python that we start from."""
    if ctypes.CDLL(None, use_errno=True).setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
