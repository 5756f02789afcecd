"""The server reads and writes the frames that the vectors promise; client-js/test/protocol.test.ts does the same."""

import json
from pathlib import Path
from typing import Any

import pytest

from collab.errors import InvalidMessage
from collab.protocol import yjs
from collab.protocol.messages import (
    AwarenessUpdate,
    Message,
    QueryAwareness,
    SyncStep1,
    SyncStep2,
    Update,
)

VECTORS = json.loads((Path(__file__).parent / "collab-v1.json").read_bytes())
TURNS = {"turn", "turn-ended", "cancel"}  # read and written so far by clients alone
KNOWN = [each for each in VECTORS["messages"] if each["message"]["type"] not in TURNS]
SPOKEN = [each for each in KNOWN if each["from"] != "server"]
HEARD = [each for each in KNOWN if each["from"] != "client"]


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
        case {"type": "hello", "version": 1, "epoch": epoch, "state": state}:
            return yjs.hello(epoch, is_writable=state == "live")
        case {"type": "ack", "sequence": sequence, "position": position, "level": 2}:
            return yjs.ack(sequence, position)
        case {"type": "refused", "sequence": sequence, "code": code, "reason": reason}:
            return yjs.refused(sequence, code, reason)
        case {"type": "notice", "kind": kind, "retryAfterMilliseconds": wait}:
            return yjs.notice(kind, wait)
    raise AssertionError(f"no server says {fields['type']}")


@pytest.mark.parametrize("vector", SPOKEN, ids=meaning)
def test_what_a_client_says_is_read(vector: dict[str, Any]) -> None:
    messages = yjs.decode(bytes.fromhex(vector["frame"]))

    assert messages == [message_of(vector["message"])]
    assert type(messages[0]) is type(message_of(vector["message"]))


@pytest.mark.parametrize("vector", HEARD, ids=meaning)
def test_what_a_server_says_is_written(vector: dict[str, Any]) -> None:
    frame = frame_of(vector["message"])

    assert frame.hex() == vector["frame"]


@pytest.mark.parametrize("vector", VECTORS["malformed"], ids=meaning)
def test_what_is_malformed_is_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(InvalidMessage):
        yjs.decode(bytes.fromhex(vector["frame"]))
