"""A: who is here, said by somebody who should not say it or not like that."""

from __future__ import annotations

import json

from catalogue import Field, Row, closes, counted, stays, story
from peer import Peer
from wire import QUERY_AWARENESS, awareness, frame, read_awareness, string, varint


def known(peer: Peer) -> dict[int, bytes]:
    """The latest state of each client that this peer has heard of."""
    states = {}
    for message in peer.answers(b"\x01"):
        for client, _, state in read_awareness(message):
            states[client] = state
    return states


def _state(
    name: str, state: str | bytes, codes: int | tuple[int, ...] = 4400, id: str = "A8"
) -> Row:
    return closes(id, name, codes, awareness((70, 1, state)))


async def _forge(field: Field, state: str) -> None:
    owner, witness, forger = await field.join(), await field.join(), await field.join()
    owner.say(awareness((70, 1, '{"real":1}')))
    await witness.until(lambda: 70 in known(witness))

    for at in range(10):
        # The first one makes the server ask whether the owner is still there; the answer takes a moment.
        forger.say(awareness((70, 2 + at, state)))
        await owner.document()
        try:
            await forger.document()
        except AssertionError:
            break

    assert await forger.closed() == 4403
    await witness.document()
    assert known(witness)[70] == b'{"real":1}'
    await owner.document()


@story("A1", "speaking for another member", lines=(1,), counter=counted(4403))
async def foreign_state(field: Field) -> None:
    await _forge(field, '{"fake":1}')


@story("A2", "sending another member away", lines=(1,), counter=counted(4403))
async def foreign_farewell(field: Field) -> None:
    await _forge(field, "null")


@story("A5", "more states claimed than sent", lines=(1,), counter=counted(4400))
async def half_applied(field: Field) -> None:
    peer, witness = await field.join(), await field.join()

    peer.say(awareness((70, 1, "{}"), count=2))

    assert await peer.closed() == 4400
    await witness.document()
    assert 70 not in known(witness)


@story("A9", "keys that pollute objects")
async def polluting_keys(field: Field) -> None:
    peer, witness = await field.join(), await field.join()

    peer.say(
        awareness(
            (
                70,
                1,
                '{"__proto__":{"a":1},"n":{"constructor":{"b":2},"\\u005f_proto__":3},"kept":true}',
            )
        )
    )

    await witness.until(lambda: 70 in known(witness))
    assert json.loads(known(witness)[70]) == {"n": {}, "kept": True}


@story("A10", "a name with markup, turned around and far too long")
async def hostile_name(field: Field) -> None:
    name = "<script>alert(1)</script>\u202e" + "x" * 2_000
    peer, witness = await field.join(), await field.join()

    peer.say(
        awareness((70, 1, json.dumps({"user": {"name": name}}, ensure_ascii=False)))
    )

    await witness.until(lambda: 70 in known(witness))
    assert json.loads(known(witness)[70])["user"]["name"] == name[:256]


@story("A11", "600 states as fast as they go")
async def fast_states(field: Field) -> None:
    peer, witness = await field.join(), await field.join()

    for clock in range(1, 601):
        peer.say(awareness((70, clock, f'{{"at":{clock}}}')))
    peer.say(awareness((70, 601, '{"at":"end"}')))

    await witness.until(lambda: known(witness).get(70) == b'{"at":"end"}', 20)
    assert len(witness.answers(b"\x01")) < 300
    await peer.document()


@story("A11", "the same state 100,000 times")
async def same_state(field: Field) -> None:
    peer = await field.join()
    same = frame(field.dialect.wrap(field.room, awareness((70, 1, "{}"))))

    await field.slowed_or_refused(peer, same * 1_000)


@story("A12", "100,000 questions who is here", lines=(1,), counter=counted(4429))
async def questions(field: Field) -> None:
    peer = await field.join()

    await peer.flood(
        frame(field.dialect.wrap(field.room, QUERY_AWARENESS)) * 1_000, 100
    )

    assert await peer.closed() == 4429


@story("A13", "a client id of the server's own")
async def own_client(field: Field) -> None:
    peer = await field.join()

    peer.say(QUERY_AWARENESS)

    await peer.document()
    assert known(peer) == {}


@story("F30", "four cursors whose member is cut off", lines=(0,))
async def cursors_gone(field: Field) -> None:
    peer, witness = await field.join(), await field.join()
    peer.say(awareness(*((client, 1, "{}") for client in range(70, 74))))
    await witness.until(lambda: set(known(witness)) == {70, 71, 72, 73})

    peer.reset()

    await witness.until(lambda: set(known(witness).values()) == {b"null"}, 2)


ROWS = [
    foreign_state,
    foreign_farewell,
    closes("A3", "a clock of 2^53", 4400, awareness((70, 2**53, "{}"))),
    closes("A3", "a clock of 2^80", 4400, awareness((70, 2**80, "{}"))),
    closes(
        "A3",
        "a clock far ahead",
        4400,
        awareness((70, 1, "{}")),
        awareness((70, 2 + 2**20, "{}")),
    ),
    closes(
        "A4",
        "100,000 clients",
        (4400, 4413),
        b"\x01" + string(varint(100_000) + b"\x46\x01\x02{}" * 100_000),
    ),
    closes(
        "A4",
        "five clients",
        4400,
        awareness(*((client, 1, "{}") for client in range(70, 75))),
    ),
    closes(
        "A4",
        "five clients one by one",
        4400,
        *(awareness((client, 1, "{}")) for client in range(70, 75)),
    ),
    stays(
        "A4",
        "four clients",
        awareness(*((client, 1, "{}") for client in range(70, 74))),
        lines=(0,),
    ),
    half_applied,
    closes("A5", "2^40 states claimed", 4400, b"\x01" + string(varint(2**40))),
    _state("a state of 500 KB", '{"a":"' + "x" * 500_000 + '"}', (4400, 4413), "A6"),
    _state("a state of 1 MB", '{"a":"' + "x" * 1_048_576 + '"}', (1009,), "A6"),
    _state("a state 100,000 deep", "[" * 100_000, (4400, 4413), "A6"),
    _state("a state 2,000 deep", '{"a":' + "[" * 2_000 + "]" * 2_000 + "}", 4400, "A6"),
    stays(
        "A6",
        "a number of 4,000 digits",
        awareness((70, 1, '{"a":' + "9" * 4_000 + "}")),
        or_closes=(4400,),
    ),
    *(
        _state(f"JSON with {name}", b'{"a":' + value + b"}", 4400, "A7")
        for name, value in (
            ("NaN", b"NaN"),
            ("Infinity", b"Infinity"),
            ("minus Infinity", b"-Infinity"),
            ("an unpaired surrogate", b'"\\ud800"'),
            ("half a surrogate pair in UTF-8", b'"\xed\xa0\x80"'),
            ("a trailing comma", b"1,"),
            ("a comment", b"1/**/"),
            ("a raw line break", b'"\n"'),
        )
    ),
    _state("nothing for a state", "", 4400, "A7"),
    *(
        _state(f"the state {state}", state)
        for state in ("1", "[]", '"here"', "true", '[{"user":1}]')
    ),
    polluting_keys,
    hostile_name,
    fast_states,
    same_state,
    questions,
    own_client,
    cursors_gone,
]
