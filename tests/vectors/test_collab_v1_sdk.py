"""The Python client reads and writes the frames that the vectors promise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from collab.errors import InvalidMessage
from collab.protocol import yjs
from collab.protocol.messages import (
    AwarenessUpdate,
    BeginTurn,
    SyncStep1,
    SyncStep2,
    Update,
)
from collab.sdk import messages
from collab.sdk.messages import (
    Ack,
    EndedTurn,
    Hello,
    Notice,
    RefusedUpdate,
    ServerMessage,
)
from collab.turns import About

VECTORS = json.loads((Path(__file__).parent / "collab-v1.json").read_bytes())
HEARD = [each for each in VECTORS["messages"] if each["from"] != "client"]


def meaning(vector: dict[str, Any]) -> str:
    return str(vector["meaning"])


def message_of(fields: dict[str, Any]) -> ServerMessage:
    match fields:
        case {"type": "sync-step-1", "stateVector": vector}:
            return SyncStep1(bytes.fromhex(vector))
        case {"type": "sync-step-2", "update": update}:
            return SyncStep2(bytes.fromhex(update))
        case {"type": "update", "update": update}:
            return Update(bytes.fromhex(update))
        case {"type": "awareness", "update": states}:
            return AwarenessUpdate(bytes.fromhex(states))
        case {
            "type": "hello",
            "version": version,
            "epoch": epoch,
            "state": state,
            "maxUpdateBytes": most,
        }:
            return Hello(version, epoch, state == "live", most)
        case {
            "type": "ack",
            "sequence": sequence,
            "position": position,
            "level": level,
        }:
            return Ack(sequence, position, level)
        case {"type": "refused", "sequence": sequence, "code": code, "reason": reason}:
            return RefusedUpdate(sequence, code, reason)
        case {"type": "notice", "kind": kind, "retryAfterMilliseconds": milliseconds}:
            return Notice(kind, milliseconds)
        case {"type": "turn-ended", "id": turn, "code": code, "reason": reason}:
            return EndedTurn(turn, code, reason)
    raise AssertionError(f"no server says {fields['type']}")


@pytest.mark.parametrize("vector", HEARD, ids=meaning)
def test_what_a_server_says_is_read(vector: dict[str, Any]) -> None:
    assert messages.decode(bytes.fromhex(vector["frame"])) == message_of(
        vector["message"]
    )


def test_a_hello_of_before_names_no_limit_and_one_of_a_later_version_says_more() -> (
    None
):
    before = bytes.fromhex("6e01016504") + b"live"

    assert messages.decode(before) == Hello(1, "e", True, 1 << 19)
    assert messages.decode(before + b"\x07more") == Hello(1, "e", True, 7)


@pytest.mark.parametrize("vector", VECTORS["malformed"], ids=meaning)
def test_what_is_malformed_is_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(InvalidMessage):
        messages.decode(bytes.fromhex(vector["frame"]))


@pytest.mark.parametrize(
    "vector",
    [each for each in VECTORS["messages"] if each["message"]["type"] == "cancel"],
    ids=meaning,
)
def test_a_cancellation_is_written(vector: dict[str, Any]) -> None:
    fields = vector["message"]

    frame = messages.cancel(fields["turn"], fields["principal"])

    assert frame.hex() == vector["frame"]


@pytest.mark.parametrize(
    "vector",
    [each for each in VECTORS["messages"] if each["message"]["type"] == "turn"],
    ids=meaning,
)
def test_a_turn_is_written_so_that_the_server_reads_the_same(
    vector: dict[str, Any],
) -> None:
    fields = dict(vector["message"])
    about = {key: fields[key] for key in ("task", "model", "reason") if fields[key]}

    frame = messages.turn(fields["id"], json.dumps(about))

    said = BeginTurn(fields["id"], About(**about))
    assert yjs.decode_v1(frame) == yjs.decode_v1(bytes.fromhex(vector["frame"])) == said
