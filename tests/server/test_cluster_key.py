"""The key that replicas sign with."""

from __future__ import annotations

from pathlib import Path

import pytest

from collab.errors import InvalidMessage
from collab.protocol.envelope import WhoIsHere, decode, encode
from collab.server.app import _cluster_key
from collab.settings import Settings


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
