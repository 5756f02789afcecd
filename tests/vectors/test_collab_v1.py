"""The server reads and writes the frames that the vectors promise; client-js/test/protocol.test.ts does the same."""

import json
from pathlib import Path
from typing import Any

import pytest

from collab.errors import InvalidMessage
from collab.protocol import yjs
from collab.protocol.messages import (
    AwarenessUpdate,
    BeginTurn,
    CancelTurn,
    Message,
    QueryAwareness,
    SyncStep1,
    SyncStep2,
    Update,
)
from collab.turns import About

VECTORS = json.loads((Path(__file__).parent / "collab-v1.json").read_bytes())
SPOKEN = [each for each in VECTORS["messages"] if each["from"] != "server"]
HEARD = [each for each in VECTORS["messages"] if each["from"] != "client"]


def meaning(vector: dict[str, Any]) -> str:
    return str(vector["meaning"])


def message_of(fields: dict[str, Any]) -> Message:
    match fields:
        case {"type": "sync-step-1", "stateVector": vector}:
            return SyncStep1(bytes.fromhex(vector))
        case {"type": "sync-step-2", "update": update}:
            return SyncStep2(bytes.fromhex(update))
        case {"type": "update", "update": update}:
            return Update(bytes.fromhex(update))
        case {"type": "awareness", "update": states}:
            return AwarenessUpdate(bytes.fromhex(states))
        case {"type": "query-awareness"}:
            return QueryAwareness()
        case {"type": "turn", "id": id, **said}:
            return BeginTurn(id, About(**said))
        case {"type": "cancel", "turn": turn, "principal": principal}:
            return CancelTurn(turn, principal)
    raise AssertionError(f"no client says {fields['type']}")


def frame_of(fields: dict[str, Any]) -> bytes:
    match fields:
        case {"type": "sync-step-1", "stateVector": vector}:
            return yjs.sync_step_1(bytes.fromhex(vector))
        case {"type": "sync-step-2", "update": update}:
            return yjs.sync_step_2(bytes.fromhex(update))
        case {"type": "update", "update": update}:
            return yjs.update_message(bytes.fromhex(update))
        case {"type": "awareness", "update": states}:
            return yjs.awareness_message(bytes.fromhex(states))
        case {
            "type": "hello",
            "version": 1,
            "epoch": epoch,
            "state": state,
            "maxUpdateBytes": most,
        }:
            return yjs.hello(epoch, is_writable=state == "live", max_update_bytes=most)
        case {"type": "ack", "sequence": sequence, "position": position, "level": 2}:
            return yjs.ack(sequence, position)
        case {"type": "refused", "sequence": sequence, "code": code, "reason": reason}:
            return yjs.refused(sequence, code, reason)
        case {"type": "notice", "kind": kind, "retryAfterMilliseconds": wait}:
            return yjs.notice(kind, wait)
        case {"type": "turn-ended", "id": id, "code": code, "reason": reason}:
            return yjs.turn_ended(id, code, reason)
    raise AssertionError(f"no server says {fields['type']}")


def read(vector: dict[str, Any]) -> list[Message]:
    """As the server reads a frame of a client of `collab.v1`."""
    frame = bytes.fromhex(vector["frame"])
    own = yjs.decode_v1(frame)
    return yjs.decode(frame) if own is None else [own]


@pytest.mark.parametrize("vector", SPOKEN, ids=meaning)
def test_what_a_client_says_is_read(vector: dict[str, Any]) -> None:
    messages = read(vector)

    assert messages == [message_of(vector["message"])]
    assert type(messages[0]) is type(message_of(vector["message"]))


@pytest.mark.parametrize("vector", HEARD, ids=meaning)
def test_what_a_server_says_is_written(vector: dict[str, Any]) -> None:
    frame = frame_of(vector["message"])

    assert frame.hex() == vector["frame"]


@pytest.mark.parametrize("vector", VECTORS["malformed"], ids=meaning)
def test_what_is_malformed_is_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(InvalidMessage):
        read(vector)
