"""The dialects against frames recorded from stock clients, and from the servers those were made for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from collab.errors import InvalidMessage
from collab.protocol import hocuspocus, messages, yjs, ysweet
from collab.protocol.messages import Message
from collab.protocol.varint import encode_string

VECTORS = Path(__file__).parents[1] / "vectors"
BINARY = {"state_vector", "update", "states", "token"}  # a Hocuspocus token is text

Vector = dict[str, Any]


def frames(dialect: str, sender: str) -> list[Any]:
    recorded = json.loads((VECTORS / f"{dialect}.json").read_text())["frames"]
    return [
        pytest.param(frame, id=f"{number}-{frame['means']['type']}")
        for number, frame in enumerate(recorded)
        if frame["from"] == sender
    ]


def spoken(means: Vector, *, token_is_text: bool = False) -> Message:
    """The message a recorded frame holds."""
    fields = {
        name: value
        for name, value in means.items()
        if name not in ("type", "room", "session", "trailing")
    }
    binary = BINARY - {"token"} if token_is_text else BINARY
    converted = {
        name: bytes.fromhex(value) if name in binary else value
        for name, value in fields.items()
    }
    message: Message = getattr(messages, means["type"])(**converted)
    return message


def address(means: Vector) -> bytes:
    session = means["session"]
    return encode_string(
        means["room"] if session is None else f"{means['room']}\x00{session}"
    )


def written(means: Vector) -> bytes:
    """What a server writes to say this, without an address."""
    match means["type"]:
        case "SyncStep1":
            return yjs.sync_step_1(bytes.fromhex(means["state_vector"]))
        case "SyncStep2":
            return yjs.sync_step_2(bytes.fromhex(means["update"]))
        case "Update":
            return yjs.update_message(bytes.fromhex(means["update"]))
        case "AwarenessUpdate":
            return yjs.awareness_message(bytes.fromhex(means["states"]))
        case "Authenticated":
            return hocuspocus.authenticated(may_write=means["scope"] == "read-write")
        case "Stateless":
            return hocuspocus.stateless(means["text"])
        case "SyncStatus":
            return hocuspocus.APPLIED if means["is_applied"] else hocuspocus.NOT_APPLIED
        case "Close":
            return hocuspocus.close(means["reason"])
        case "Barrier":
            return ysweet.barrier(bytes.fromhex(means["token"]))
    raise AssertionError(f"no server of ours says {means['type']}")


@pytest.mark.parametrize("vector", frames("y-websocket", "client"))
def test_y_websocket_clients_are_understood(vector: Vector) -> None:
    assert yjs.decode(bytes.fromhex(vector["hex"])) == [spoken(vector["means"])]


@pytest.mark.parametrize("vector", frames("y-websocket", "server"))
def test_we_speak_to_y_websocket_as_its_server_does(vector: Vector) -> None:
    assert written(vector["means"]).hex() == vector["hex"]


@pytest.mark.parametrize("vector", frames("hocuspocus", "client"))
def test_hocuspocus_clients_are_understood(vector: Vector) -> None:
    said = hocuspocus.decode(bytes.fromhex(vector["hex"]))

    assert said.message == spoken(vector["means"], token_is_text=True)
    if "room" in vector["means"]:
        assert said.address == address(vector["means"])
        assert hocuspocus.room_of(said.address) == vector["means"]["room"]


@pytest.mark.parametrize("vector", frames("hocuspocus", "server"))
def test_we_speak_to_hocuspocus_as_its_server_does(vector: Vector) -> None:
    means = vector["means"]

    if means["type"] == "Ping":
        frame = hocuspocus.PING_MESSAGE
    else:
        frame = address(means) + written(means)

    assert frame.hex() == vector["hex"]


@pytest.mark.parametrize("vector", frames("y-sweet", "client"))
def test_y_sweet_clients_are_understood(vector: Vector) -> None:
    assert ysweet.decode(bytes.fromhex(vector["hex"])) == [spoken(vector["means"])]


@pytest.mark.parametrize(
    "vector",
    [param for param in frames("y-sweet", "server") if "Query" not in str(param.id)],
)
def test_we_speak_to_y_sweet_as_its_server_does(vector: Vector) -> None:
    assert written(vector["means"]).hex() == vector["hex"]


@pytest.mark.parametrize(
    ("decode", "dialect"),
    [
        (yjs.decode, "y-websocket"),
        (hocuspocus.decode, "hocuspocus"),
        (ysweet.decode, "y-sweet"),
    ],
)
def test_a_recorded_frame_cut_short_is_refused_or_means_less(
    decode: Any, dialect: str
) -> None:
    whole = {
        bytes.fromhex(param.values[0]["hex"]) for param in frames(dialect, "client")
    }

    for frame in whole:
        for end in range(min(len(frame), 80)):
            cut = frame[:end]
            if cut in whole:
                continue
            try:
                said = decode(cut)
            except InvalidMessage:
                continue
            assert repr(said) != repr(decode(frame)) or said == [
                messages.QueryAwareness()
            ]
