"""Who wrote what: every id is credited to the row that brought it first, however often it comes again."""

from __future__ import annotations

import random
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Doc, Text

from collab.document import attribution
from collab.document.attribution import (
    MINUTE,
    NOBODY,
    Attribution,
    Runs,
    attribute,
)
from collab.errors import InvalidMessage
from collab.protocol.structs import scan
from collab.store.base import Author, Row

NAMES = ("ada", "bob", "cyd")


class Writer:
    """Somebody who types under a client id of their own; hears of the others only when told."""

    def __init__(self, client: int) -> None:
        self.doc: Doc[Any] = Doc(client_id=client)
        self.text = self.doc.get("text", type=Text)
        self.made: list[bytes] = []
        self.doc.observe(lambda event: self.made.append(event.update))

    def write(self, index: int, delete: int, insert: str) -> bytes:
        with self.doc.transaction():
            if delete:
                del self.text[index : index + delete]
            if insert:
                self.text.insert(index, insert)
        return self.made[-1]


def written(seed: int, count: int, *, hour: int = 0) -> list[Row]:
    """What three writers type, with turns, relayed repeats, and updates that come before what they build on."""
    chance = random.Random(seed)
    writers = [Writer(10 + number) for number in range(len(NAMES))]
    rows: list[Row] = []
    for position in range(1, count + 1):
        number = chance.randrange(len(NAMES))
        writer = writers[number]
        length = len(writer.text)
        if chance.random() < 0.2:
            update = writer.doc.get_update()  # everything once more
        elif length > 3 and chance.random() < 0.4:
            update = writer.write(chance.randrange(length - 2), 2, "")
        else:
            update = writer.write(chance.randrange(length + 1), 0, "word")
        if chance.random() < 0.5:
            for other in writers:
                other.doc.apply_update(writer.doc.get_update())
        turn = chance.choice((None, "t1", "t2"))
        author = Author(NAMES[number], f"c{chance.randrange(9)}", turn)
        at = hour * 60 * MINUTE + position * MINUTE // 7
        rows.append(Row(position, at, author, update))
    late = chance.sample(range(count - 1), min(10, count - 1))
    for at in late:  # out of order
        one, other = rows[at], rows[at + 1]
        rows[at] = one._replace(update=other.update, author=other.author)
        rows[at + 1] = other._replace(update=one.update, author=one.author)
    return rows


def naive(rows: list[Row]) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """For each id by itself, who brought it and when; and who deleted it."""
    inserted: dict[Any, Any] = {}
    deleted: dict[Any, Any] = {}
    for row in rows:
        credit = row.author.principal, row.author.turn, row.milliseconds // MINUTE
        found = scan(row.update)
        for run in found.runs:
            for clock in range(run.clock, run.end):
                inserted.setdefault((run.client, clock), credit)
        for client, clock, end in found.deletes:
            for each in range(clock, end):
                deleted.setdefault((client, each), credit)
    return inserted, deleted


def spread(found: Attribution, clients: dict[int, Runs]) -> dict[Any, Any]:
    """The same, from runs."""
    return {
        (client, clock): (
            found.credits[number].author.principal,
            found.credits[number].author.turn,
            minute,
        )
        for client, runs in clients.items()
        for start, end, number, minute in runs
        for clock in range(start, end)
    }


@pytest.mark.parametrize("seed", range(6))
def test_every_id_is_credited_as_by_a_model_that_looks_at_each_alone(seed: int) -> None:
    rows = written(seed, 200)

    found = Attribution.decode(attribute(None, rows))

    inserted, deleted = naive(rows)
    assert spread(found, found.inserted) == inserted
    assert spread(found, found.deleted) == deleted


@given(st.lists(st.integers(0, 199), max_size=5), st.integers(0, 50))
def test_it_is_the_same_in_however_many_portions_the_rows_come(
    cuts: list[int], seed: int
) -> None:
    rows = written(seed, 200)
    whole = attribute(None, rows)

    portions = None
    for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), 200], strict=True):
        portions = attribute(portions, rows[start:stop])

    assert portions == whole


def test_runs_hold_each_id_once_whatever_overlaps() -> None:
    chance = random.Random(6)
    for _ in range(200):
        runs, model = Runs(), {}
        for _ in range(30):
            start = chance.randrange(40)
            end = start + chance.randrange(1, 12)
            credit = chance.randrange(2), chance.randrange(2)
            runs.add(start, end, *credit)
            for each in range(start, end):
                model.setdefault(each, credit)

        found = {each: run[2:] for run in runs for each in range(run[0], run[1])}
        neighbours = zip([*runs], [*runs][1:], strict=False)
        assert found == model
        assert all(
            one[1] < other[0] or one[2:] != other[2:] for one, other in neighbours
        )


def test_who_repeats_what_others_wrote_is_not_credited_with_it() -> None:
    ada, bob = Writer(1), Writer(2)
    first = ada.write(0, 0, "hello")
    bob.doc.apply_update(first)
    bob.write(5, 0, " world")
    rows = [
        Row(1, 0, Author("ada", ""), first),
        Row(2, 0, Author("bob", ""), bob.doc.get_update()),
    ]

    found = Attribution.decode(attribute(None, rows))

    assert [found.credits[run[2]].author.principal for run in found.inserted[1]] == [
        "ada"
    ]
    assert [found.credits[run[2]].author.principal for run in found.inserted[2]] == [
        "bob"
    ]


def test_what_an_update_overlaps_keeps_its_author_and_the_rest_gets_one() -> None:
    ada = Writer(1)
    early = ada.write(0, 0, "ab")
    ada.write(2, 0, "cd")
    rows = [
        Row(1, 0, Author("ada", ""), early),
        Row(2, MINUTE, Author("bob", ""), ada.doc.get_update()),
    ]

    found = Attribution.decode(attribute(None, rows))

    assert list(found.inserted[1]) == [(0, 2, 1, 0), (2, 4, 2, 1)]


def test_without_the_beginning_of_the_log_nobody_is_credited_with_what_was_there() -> (
    None
):
    ada = Writer(1)
    ada.write(0, 0, "old")
    base = ada.doc.get_update()
    ada.write(3, 0, " new")
    rows = [Row(9, MINUTE, Author("ada", ""), ada.doc.get_update())]

    found = Attribution.decode(attribute(None, rows, base=base))

    assert list(found.inserted[1]) == [(0, 3, NOBODY, 0), (3, 7, 1, 1)]


def test_a_credit_says_where_in_the_log_a_turn_began_and_ended() -> None:
    rows = written(1, 50)

    found = Attribution.decode(attribute(None, rows))

    for credit in found.credits[1:]:
        author = credit.author
        own = [row for row in rows if row.author._replace(connection="") == author]
        assert (credit.first, credit.last) == (own[0].position, own[-1].position)
        assert (credit.began, credit.ended) == (
            own[0].milliseconds,
            own[-1].milliseconds,
        )


def test_of_who_has_too_many_turns_the_oldest_are_not_told_apart_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attribution, "MAX_SAID_BYTES", 1000)
    doc, rows = Doc(client_id=1), list[Row]()
    text = doc.get("text", type=Text)
    doc.observe(
        lambda event: rows.append(
            Row(len(rows) + 1, 0, Author(*who, "x" * 98), event.update)
        )
    )
    for number in range(12):
        who = ("ada" if number == 2 else "bot", "c", f"{number:02}")
        text.insert(len(text), "x")

    encoded = attribute(attribute(None, rows[:6]), rows[6:])

    found = Attribution.decode(encoded)
    told = [
        found.credits[author].author[:3:2]
        for start, end, author, _ in found.inserted[1]
        for _ in range(start, end)
    ]
    assert told[:6] == [("bot", None)] * 2 + [("ada", "02")] + [("bot", None)] * 3
    assert told[7:] == [("bot", f"{number:02}") for number in range(7, 12)]


def test_a_row_that_cannot_be_read_is_passed_over() -> None:
    assert attribute(None, [Row(1, 0, Author("eve", ""), b"\xff\xff")]) == attribute(
        None, []
    )


def test_hostile_bytes_are_refused() -> None:
    good = attribute(None, written(3, 60))
    body = zlib.decompress(good[1:])
    chance = random.Random(4)
    bad = [b"", b"\x00", good[:-1], good + b"x", b"\x02" + good[1:], b"\x01rubbish"]
    for _ in range(300):
        changed = bytearray(body)
        for _ in range(chance.randrange(1, 4)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        bad.append(
            b"\x01" + zlib.compress(bytes(changed[: chance.randrange(len(body))]))
        )

    for encoded in bad:
        with pytest.raises(InvalidMessage):
            Attribution.decode(encoded)


def test_it_takes_little_beside_the_document() -> None:
    writers = [Writer(1_111_111_111), Writer(3_735_928_559)]
    chance = random.Random(5)
    rows = []
    for position in range(1, 6_001):
        writer = writers[position // 40 % 2]
        length = len(writer.text)
        if position % 40 == 0:
            for other in writers:
                other.doc.apply_update(writer.doc.get_update())
            at = chance.randrange(length + 1)
        if position % 40 == 0 or chance.random() < 0.8 or not length:
            at = min(at, length) if rows else 0
            update = writer.write(at, 0, chance.choice("etaoin shrdlu"))
            at += 1
        else:
            at = max(1, min(at, length))
            update = writer.write(at - 1, 1, "")
            at -= 1
        author = Author(NAMES[position // 40 % 2], "c", f"t{position // 400}")
        rows.append(Row(position, position * 300, author, update))

    encoded = attribute(None, rows)

    whole: Doc[Any] = Doc()
    for row in rows:
        whole.apply_update(row.update)
    assert len(encoded) <= 0.15 * len(whole.get_update())
