"""Replicas that do not share a store, as real processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from processes import ROOT, Server
from services import Redis


def test_sqlite_on_several_nodes_is_refused_with_a_sentence(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    with Redis() as redis:
        flags = ("--redis", redis.url, "--store", "sqlite")
        serve(*flags)

        command = [sys.executable, "-m", "collab", "serve", "--port", "0", *flags]
        second = subprocess.run(
            [*command, "--data", str(tmp_path / "other")],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )

    assert second.returncode == 2
    assert "must share a store (--postgres or --store redis)" in second.stderr


def test_sqlite_comes_back_after_a_crash_and_is_no_stranger_to_itself(
    serve: Callable[..., Server],
) -> None:
    with Redis() as redis:
        server = serve("--redis", redis.url, "--store", "sqlite")
        server.kill()

        server.start()

        assert server.terminate() == 0
