"""What a server loads before it serves, and what only afterwards."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Says which modules there are once the port is open, and ends.
PROGRAM = """
import os, sys
from collab.server import banner

def show(*about, **more):
    print(*sys.modules, flush=True)
    os._exit(0)

banner.show = show
from collab.__main__ import main
main()
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    data = str(tmp_path_factory.mktemp("data"))
    flags = ["serve", "--port", "0", "--data", data]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_the_program_has_seen_a_server(loaded: set[str]) -> None:
    assert {"collab.server.app", "collab.store.sqlite", "uvloop"} <= loaded


@pytest.mark.parametrize(
    "module",
    [
        "collab.sdk",
        "collab.server.api.docs",
        "collab.server.api.models",
        "collab.server.api.routes",
        "collab.server.supervisor",
        "collab.commands.auditing",
        "collab.commands.contents",
        "collab.commands.keys",
        "collab.commands.maintenance",
        "collab.commands.tokens",
        "collab.bus.redis",
        "collab.store.postgres",
        "collab.store.redis",
        "asyncpg",
        "cryptography",
        "httpx2",
        "joserfc",
        "pydantic_settings",
        "redis",
        "rich",
        "structlog",
    ],
)
def test_a_server_serves_before_it_loads_what_the_first_sockets_do_without(
    loaded: set[str], module: str
) -> None:
    assert module not in loaded
