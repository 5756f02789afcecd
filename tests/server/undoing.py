"""`collab` with a claim that is granted to everybody, or that freezes itself (SIGSTOP) at a step of taking back.

    python undoing.py "" serve …
    python undoing.py "claims are granted" serve …
    python undoing.py "it is worked out" serve …

Production code has no such hooks: they are wrapped around it here.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

sys.path.insert(0, os.getcwd())

from collab import exclusion
from collab.bus.redis import RedisBus
from collab.cli import main
from collab.history.historian import Historian

# Those of the others, who wait for the frozen one.
CLAIM_SECONDS, MARGIN_SECONDS = 2.0, 1.0

take_back = Historian.take_back


async def granted(bus: RedisBus, channel: str, token: str, seconds: float) -> bool:
    """The broken build."""
    return True


async def frozen(historian: Historian, *arguments: Any) -> bytes | None:
    """Once, between the check that nobody has done it and the doing."""
    update = await take_back(historian, *arguments)
    Historian.take_back = take_back  # type: ignore[method-assign]  # as it was
    os.kill(os.getpid(), signal.SIGSTOP)
    return update


if __name__ == "__main__":
    how = sys.argv[1].split(", ")
    exclusion.CLAIM_SECONDS, exclusion.MARGIN_SECONDS = CLAIM_SECONDS, MARGIN_SECONDS
    if "claims are granted" in how:
        RedisBus.claim = RedisBus.renew = granted  # type: ignore[method-assign]  # what is broken
        exclusion.MARGIN_SECONDS = -1e9
    if "it is worked out" in how:
        Historian.take_back = frozen  # type: ignore[method-assign]  # for once
    sys.argv = ["collab", *sys.argv[2:]]
    main()
