"""Ports of one's own, for programs that keep theirs while they are started again."""

from __future__ import annotations

import contextlib
import os
import random
import socket
from collections import deque

# Below those that the system gives to connections. Each process of pytest-xdist has a share, so that none takes what
# a program of another one is about to come back to.
SHARES = 16
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
PORTS = (
    range(20_000 + int(WORKER) % SHARES, 32_000, SHARES)
    if WORKER
    else range(20_000, 32_000)
)
_given: deque[int] = deque(maxlen=len(PORTS) // 2)  # whose programs may be about to


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    chance = (
        random.SystemRandom()
    )  # as many processes as a pool has draw each for itself
    while True:
        port = chance.choice(PORTS)
        if port in _given:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _given.append(port)
            return port
