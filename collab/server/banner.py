"""What is shown once when a server listens."""

from __future__ import annotations

import socket
import sys

_BANNER = """listening on {url}

  open       {url}/
  connect    {address}/ws/ROOM          y-websocket, pycrdt
             {address}/hocuspocus       Hocuspocus
             {url}/doc/ROOM/auth   Y-Sweet
  ask        {url}/v1       REST: see /docs
  watch      {url}/metrics   /healthz   /readyz
  stop       Ctrl-C

"""


def show(listening: socket.socket, *, is_secure: bool) -> None:
    """Say where the server is, on standard output."""
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    secure = "s" if is_secure else ""
    sys.stdout.write(
        _BANNER.format(
            url=f"http{secure}://{shown}:{port}",
            address=f"ws{secure}://{shown}:{port}",
        )
    )
    sys.stdout.flush()
