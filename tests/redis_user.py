"""The user of the documentation, for tests of whatever talks to Redis."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from services import Redis

_DEPLOYING = Path(__file__).parents[1] / "deploy" / "README.md"


def make_user(nodes: Sequence[Redis], directory: Path) -> Path:
    """Make `collab` on these with the rights that are written down; the file of its password."""
    found = re.search(r"```\n(ACL SETUSER collab .*?)```", _DEPLOYING.read_text(), re.S)
    assert found
    for node in nodes:
        node.do(*found[1].replace("PASSWORD", "secret").split())
    password = directory / "redis-password"
    password.write_text("secret")
    return password


def of_user(url: str) -> str:
    """The address with the user in it."""
    return url.replace("//", "//collab@", 1)
