"""T: agents and turns: who wrote what is for nobody to say, and a stream without end is a nuisance to nobody."""

from __future__ import annotations

import json
from typing import Any

from catalogue import Field, Row, counted, story
from peer import WEBSOCKET, Peer, bearer
from rows_presence import known
from wire import (
    awareness,
    frame,
    insertion,
    keystroke,
    read_string,
    string,
    update_of,
    varint,
)

LINE = (WEBSOCKET,)
ACK, REFUSED, TURN, TURN_ENDED, CANCEL = map(varint, (111, 112, 115, 116, 117))
RIGHTS = {"": ["read", "write", "presence", "history"]}


def turn(id: str | bytes, said: str | bytes = "") -> bytes:
    return TURN + string(id) + string(said)


async def agent(field: Field, principal: str = "mallory", **claims: Any) -> Peer:
    """A member that speaks `collab.v1`, an agent where there is access control."""
    extra = [("sec-websocket-protocol", "collab.v1")]
    if field.house.issuer is not None:
        extra.append(bearer(token(field, principal, **claims)))
    return await field.open(None, *extra)


def token(field: Field, principal: str, **claims: Any) -> str:
    assert field.house.issuer is not None
    return field.house.issuer.token(
        **{"sub": principal, "kind": "agent", "prefixes": RIGHTS} | claims
    )


async def rows(field: Field) -> list[dict[str, Any]]:
    """What the log says of who wrote, without what it does not know."""
    answer = await field.ask(
        f"GET /v1/rooms/{field.room}/updates HTTP/1.1\r\nHost: 127.0.0.1:{field.port}\r\n"
        f"Authorization: Bearer {token(field, 'alice')}\r\nConnection: close\r\n\r\n".encode()
    )
    found: list[dict[str, Any]] = json.loads(answer.body)["updates"]
    for row in found:
        row["about"] = {name: said for name, said in row["about"].items() if said}
    return found


def ended(peer: Peer) -> list[tuple[str, str]]:
    """Turn and code of those that this peer was told are over."""
    found = []
    for message in peer.answers(TURN_ENDED):
        id, at = read_string(message, 1)
        found.append((id.decode(), read_string(message, at)[0].decode()))
    return found


def refused(peer: Peer) -> list[str]:
    return [read_string(one, 2)[0].decode() for one in peer.answers(REFUSED)]


@story("T5", "a turn that says who wrote it", house="guarded", dialects=LINE)
async def forged_author(field: Field) -> None:
    peer = await agent(field)
    forged = {
        "principal": "alice",
        "name": "Alice",
        "kind": "human",
        "on_behalf_of": "alice",
        "role": "admin",
        "undoes": "t0",
        "by": "alice",
    }

    peer.say(turn("t1", json.dumps(forged | {"reason": "trust me"})))
    peer.say(update_of(insertion(9, 0, "hello")))

    await peer.until(lambda: bool(peer.answers(ACK)))
    [row] = await rows(field)
    assert (row["principal"], row["turn"]) == ("mallory", "t1")
    assert row["about"] == {"kind": "agent", "reason": "trust me"}


@story("T5", "the turn of another principal", house="guarded", dialects=LINE)
async def foreign_turn(field: Field) -> None:
    owner, forger = await agent(field, "alice"), await agent(field)
    owner.say(turn("t1"))
    await owner.document()

    forger.say(turn("t1"))
    forger.say(update_of(insertion(9, 0, "forged")))
    owner.say(update_of(insertion(8, 0, "honest")))

    assert b"forged" not in await forger.document()
    await owner.until(lambda: bool(owner.answers(ACK)))
    assert (ended(forger), refused(forger)) == (
        [("t1", "permission_denied")],
        ["permission_denied"],
    )
    assert ended(owner) == []
    assert {(row["principal"], row["turn"]) for row in await rows(field)} == {
        ("alice", "t1")
    }


@story("T5", "a role and a cause in its presence", house="guarded", dialects=LINE)
async def forged_stamp(field: Field) -> None:
    peer, witness = await agent(field), await field.join()
    user = {"id": "alice", "kind": "human", "role": "admin", "on_behalf_of": "alice"}

    peer.say(awareness((70, 1, json.dumps({"user": user}))))

    await witness.until(lambda: 70 in known(witness))
    assert json.loads(known(witness)[70])["user"] == {
        "id": "mallory",
        "name": "mallory",
        "kind": "agent",
    }


@story("T5", "stopping a turn without the right to write", house="guarded", dialects=LINE)  # fmt: skip
async def cancel_of_a_reader(field: Field) -> None:
    owner = await agent(field, "alice")
    reader = await agent(field, prefixes={"": ["read"]})
    owner.say(turn("t1"))
    await owner.document()

    reader.say(CANCEL + string("t1") + string("alice"))

    await reader.document()
    await owner.document()
    assert ended(owner) == []


def _malformed(name: str, message: bytes) -> Row:
    async def act(field: Field) -> None:
        peer = await agent(field)

        peer.say(message)

        assert await peer.closed() == 4400

    return Row(
        id="T5",
        name=name,
        act=act,
        dialects=LINE,
        lines=(1,),
        counter=counted(4400),
    )


@story("T7", "one character after the other, without end", dialects=LINE)
async def runaway(field: Field) -> None:
    peer = await agent(field)
    peer.say(turn("t1"))

    await field.slowed_or_refused(
        peer,
        b"".join(frame(update_of(keystroke(9, at, "x"))) for at in range(20_000)),
    )


@story("T7", "turns and cancels without end", lines=(1,), dialects=LINE, counter=counted(4429))  # fmt: skip
async def many_turns(field: Field) -> None:
    peer = await agent(field)

    for number in range(1_000):
        peer.say(turn(f"t{number}"))
        peer.say(CANCEL + string(f"t{number}") + string(""))

    assert await peer.closed() == 4429


ROWS = [
    forged_author,
    foreign_turn,
    forged_stamp,
    cancel_of_a_reader,
    runaway,
    many_turns,
    *(
        _malformed(name, message)
        for name, message in (
            ("a turn without a name or end", TURN + b"\xff\xff\x7f"),
            ("a turn whose name is a path", turn("../../etc")),
            ("a turn whose name is markup", turn("<script>")),
            ("a turn whose name is not UTF-8", turn(b"\xff\xfe")),
            ("a turn with a name of 65 characters", turn("t" * 65)),
            ("a turn that says 3 KiB", turn("t1", json.dumps({"task": "x" * 3000}))),
            ("a turn that says half an object", turn("t1", '{"task":')),
            ("a turn that says a number", turn("t1", '{"task": 1e999}')),
            ("a turn that says lists in lists", turn("t1", "[" * 2000)),
            ("a turn that says a NUL", turn("t1", '{"reason": "\\u0000"}')),
            ("a turn that says half a pair", turn("t1", '{"reason": "\\ud800"}')),
            ("a turn with more behind it", turn("t1") + b"\x00"),
            ("stopping no turn", CANCEL + string("") + string("")),
            (
                "stopping that of a principal without end",
                CANCEL + string("t1") + string("p" * 300),
            ),
        )
    ),
]
