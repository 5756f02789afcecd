"""What a server says when it listens."""

from __future__ import annotations

import socket

import pytest

from collab.server import banner


@pytest.mark.parametrize("is_secure", [False, True])
@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_what_belongs_together_stands_below_each_other(
    family: socket.AddressFamily,
    host: str,
    is_secure: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.create_server((host, 0), family=family) as listening:
        banner.show(listening, is_secure=is_secure)

    lines = capsys.readouterr().out.splitlines()
    notes = ("y-websocket", "Hocuspocus", "Y-Sweet", "REST", "/healthz")
    columns = {line.index(note) for note in notes for line in lines if note in line}
    assert len(columns) == 1
    assert all(line == line.rstrip() for line in lines)
