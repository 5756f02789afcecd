"""A disk without space: no client is told that its edits are saved, and all are once they are."""

import time
from pathlib import Path

import pytest
from disks import IS_ROOT, TAKING_IT, TOO_MUCH, fill
from driving import Driver
from kinds import KINDS, write
from serving import serve

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not IS_ROOT, reason="mounting a small file system needs root"),
]


def test_nothing_is_called_saved_while_the_disk_is_full(
    clients: Driver, small_disk: Path, tmp_path: Path, room: str
) -> None:
    with serve(small_disk / "data", *TAKING_IT, log=tmp_path / "log") as server:
        for kind in KINDS:
            clients.open(kind, kind, server.url, f"{room}-{kind}")
            clients.edit(kind, write("before "))
        clients.open("big", "y-websocket-3", server.url, f"{room}-big")
        clients.wait([*KINDS, "big"], "saved")
        fill(small_disk / "filler")
        clients.edit("big", write("x" * TOO_MUCH))
        while server.is_ready:
            time.sleep(0.02)

        for kind in KINDS:
            clients.edit(kind, write("during ", -1))
            clients.edit(kind, write("this", -1))
        clients.do("pass", seconds=1)
        while_full = {kind: clients.state(kind)["isUnsaved"] for kind in KINDS}
        (small_disk / "filler").unlink()
        clients.wait([*KINDS, "big"], "saved", seconds=60)
        server.kill()

        assert while_full == dict.fromkeys(KINDS, True)
        assert {
            kind: server.export(f"{room}-{kind}").strip() for kind in KINDS
        } == dict.fromkeys(KINDS, "before during this")
