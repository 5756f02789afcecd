"""What is shown once when a server listens."""

from __future__ import annotations

import socket
import sys


def show(listening: socket.socket, *, is_secure: bool) -> None:
    """Say where the server is, on standard output."""
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    secure = "s" if is_secure else ""
    url, address = (f"{scheme}{secure}://{shown}:{port}" for scheme in ("http", "ws"))
    width = len(f"{url}/doc/ROOM/auth")
    lines = [
        ("open", f"{url}/", ""),
        ("connect", f"{address}/ws/ROOM", "y-websocket, pycrdt"),
        ("", f"{address}/hocuspocus", "Hocuspocus"),
        ("", f"{url}/doc/ROOM/auth", "Y-Sweet"),
        ("ask", f"{url}/v1", "REST: see /docs"),
        ("watch", f"{url}/metrics", "/healthz   /readyz"),
        ("stop", "Ctrl-C", ""),
    ]
    sys.stdout.write(f"listening on {url}\n\n")
    for verb, where, what in lines:
        sys.stdout.write(f"  {verb:<11}{where:<{width}}   {what}".rstrip() + "\n")
    sys.stdout.write("\n")
    sys.stdout.flush()
