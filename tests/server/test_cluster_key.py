"""The key that replicas sign with."""

from __future__ import annotations

from pathlib import Path

import pytest
from logged import capture_logs

from collab.errors import InvalidMessage
from collab.metrics import Metrics
from collab.protocol.envelope import WhoIsHere, decode, encode
from collab.replica import Replica
from collab.server.app import _cluster_key, make_tickets
from collab.settings import Settings
from collab.store.memory import MemoryStore


def test_two_clusters_with_one_file_do_not_believe_each_other(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("s" * 64)
    keys = [
        _cluster_key(Settings(cluster=name, cluster_key_file=file))
        for name in ("one", "one", "two")
    ]
    body = encode(WhoIsHere("a"), "room", keys[0])

    assert decode(body, "room", keys[1]) == WhoIsHere("a")
    with pytest.raises(InvalidMessage):
        decode(body, "room", keys[2])


@pytest.mark.parametrize(("has_key", "count"), [(True, 0), (False, 1)])
def test_access_control_without_the_key_is_warned_of(
    tmp_path: Path, has_key: bool, count: int
) -> None:
    file = tmp_path / "key"
    file.write_text("s" * 64)
    settings = Settings(
        redis="redis://127.0.0.1:1",
        auth=("keys",),
        cluster_key_file=file if has_key else None,
    )

    with capture_logs() as lines:
        make_tickets(settings, Replica(MemoryStore(), Metrics()))

    assert len(lines) == count
