"""Ports of one's own, for programs that keep theirs while they are started again."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import socket

# Below those that the system gives to connections. Each process of pytest-xdist has a share, so that none takes what
# a program of another one is about to come back to; and what one has given out comes last again.
SHARES = 16
SHARE = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % SHARES
PORTS = range(20_000 + SHARE, 32_000, SHARES)
_order = itertools.cycle(random.SystemRandom().sample(PORTS, len(PORTS)))


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    while True:
        port = next(_order)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
