"""Which processes live, so that a load under way in another one is not taken for a crash."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

ALIVE_SECONDS = 8  # after which one that has said nothing counts as dead


def _place() -> str:
    """Where a process id means something: this boot of this machine, and this namespace of process ids."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    return ""


PLACE = _place()


def new_name() -> str:
    """Of an open store: process id, a name of its own, place."""
    return f"{os.getpid()}/{secrets.token_hex(8)}/{PLACE}"


def is_surely_dead(name: str) -> bool:
    """Of another store, when it ran here: nobody has to wait for its silence then."""
    pid, _, rest = name.partition("/")
    if not PLACE or rest.partition("/")[2] != PLACE or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
