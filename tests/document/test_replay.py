"""Replaying a log, checking what came of it, and the frames between parent and child."""

from __future__ import annotations

import random
from io import BytesIO
from typing import Any

import pytest
from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, XmlText

from collab.document import replay
from collab.document.deletions import deletions
from collab.document.export import roots
from collab.document.replay import Answer, NotVerified, Request, verify
from collab.errors import Refused


def typed(seed: int, count: int) -> tuple[Doc[Any], list[tuple[int, bytes]]]:
    """A document edited at random in every kind of shared type, and its log."""
    doc: Doc[Any] = Doc()
    log: list[tuple[int, bytes]] = []
    doc.observe(lambda event: log.append((len(log) + 1, event.update)))
    chance = random.Random(seed)
    text, items = doc.get("text", type=Text), doc.get("items", type=Array)
    map, xml = doc.get("map", type=Map), doc.get("xml", type=XmlFragment)
    while len(log) < count:
        match chance.randrange(8):
            case 0 if len(text):
                del text[chance.randrange(len(text))]
            case 1 if len(text):
                text.format(0, len(text), {"bold": True})
            case 2:
                items.append([chance.random(), {"a": [1, None, b"x"]}])
            case 3:
                map[chance.choice("abc")] = Map({"x": chance.random()})
            case 4:
                element = xml.children.append(XmlElement("p", {"id": "1"}))
                element.children.append(XmlText("text"))
            case 5 if len(items):
                del items[0]
            case _:
                text.insert(chance.randrange(len(text) + 1), chance.choice("xyz"))
    return doc, log


def kinds_of(doc: Doc[Any]) -> dict[str, Any]:
    update = doc.get_update()
    fresh: Doc[Any] = Doc()
    fresh.apply_update(update)
    return replay.rendered(fresh, roots(update))


def test_a_log_is_replayed_into_a_snapshot_of_the_same_content() -> None:
    doc, log = typed(1, 300)

    replayed = replay.replay(None, log)

    assert replayed is not None
    assert replayed.position == log[-1][0]
    fresh: Doc[Any] = Doc()
    fresh.apply_update(replayed.snapshot)
    assert kinds_of(fresh) == kinds_of(doc)
    assert deletions(fresh.get_update(fresh.get_state())) == deletions(
        doc.get_update(doc.get_state())
    )


def test_a_log_is_replayed_on_top_of_a_checkpoint() -> None:
    doc, log = typed(2, 200)
    first = replay.replay(None, log[:120])
    assert first is not None

    second = replay.replay(first.snapshot, log[120:], start=first.position)

    assert second is not None
    fresh: Doc[Any] = Doc()
    fresh.apply_update(second.snapshot)
    assert kinds_of(fresh) == kinds_of(doc)


def test_what_waits_is_left_to_the_log() -> None:
    doc: Doc[Any] = Doc()
    log: list[tuple[int, bytes]] = []
    doc.observe(lambda event: log.append((len(log) + 1, event.update)))
    for _ in range(100):
        doc.get("text", type=Text).insert(0, "x")
    gap = log[:40] + log[41:]

    replayed = replay.replay(None, gap)

    assert replayed is not None
    assert replayed.position == 40


def test_when_everything_waits_there_is_no_snapshot() -> None:
    _, log = typed(4, 50)

    assert replay.replay(None, log[1:]) is None


def test_a_gap_that_was_filled_later_is_no_gap() -> None:
    doc, log = typed(5, 60)
    updates = [update for _, update in log]
    updates.append(updates.pop(20))

    replayed = replay.replay(None, list(enumerate(updates, 1)))

    assert replayed is not None
    assert replayed.position == 60
    fresh: Doc[Any] = Doc()
    fresh.apply_update(replayed.snapshot)
    assert kinds_of(fresh) == kinds_of(doc)


def test_a_row_that_breaks_the_rules_is_not_applied() -> None:
    _, log = typed(6, 10)

    with pytest.raises(Refused):
        replay.replay(None, [*log, (11, b"\x01\xff\xff")])


def test_a_snapshot_that_lacks_content_is_not_verified() -> None:
    doc, log = typed(7, 100)
    shorter: Doc[Any] = Doc()
    for _, update in log[:-1]:
        shorter.apply_update(update)

    with pytest.raises(NotVerified):
        verify(doc, shorter.get_update())


def test_a_snapshot_that_lacks_a_deletion_is_not_verified() -> None:
    doc: Doc[Any] = Doc()
    text = doc.get("text", type=Text)
    text += "abc"
    before = doc.get_update()
    del text[1]

    with pytest.raises(NotVerified, match="deletions"):
        verify(doc, before)


def test_a_snapshot_with_other_content_is_not_verified() -> None:
    def written(content: str) -> Doc[Any]:
        doc: Doc[Any] = Doc(client_id=7)
        doc.get("text", type=Text).insert(0, content)
        return doc

    with pytest.raises(NotVerified, match="content"):
        verify(written("abc"), written("xyz").get_update())


@pytest.mark.parametrize("snapshot", [None, b"", b"a snapshot"])
def test_requests_survive_the_pipe(snapshot: bytes | None) -> None:
    tail = [(5, b""), (7, b"abc")]

    frame = replay.encode_request(Request.COMPACT, snapshot, 4, tail)

    assert replay.read_length(frame[:8]) == len(frame) - 8
    assert replay.decode_request(frame[8:]) == (Request.COMPACT, snapshot, 4, tail)


def answers_to(*requests: bytes) -> list[tuple[Answer, int, bytes]]:
    output = BytesIO()
    replay.serve(BytesIO(b"".join(requests)), output, cpu_seconds=600)
    frames, output = [], BytesIO(output.getvalue())
    while head := output.read(8):
        frames.append(replay.decode_answer(output.read(replay.read_length(head))))
    return frames


def test_a_child_answers_each_request() -> None:
    _, log = typed(8, 20)

    answers = answers_to(
        replay.encode_request(Request.COMPACT, None, 0, log),
        replay.encode_request(Request.COMPACT, None, 0, log[1:]),
        replay.encode_request(Request.COMPACT, None, 0, [(1, b"\xff")]),
    )

    assert [answer for answer, _, _ in answers] == [
        Answer.COMPACTED,
        Answer.UNREADY,
        Answer.FAILED,
    ]
    assert answers[0][1] == 20


def test_a_watching_child_names_each_row_before_it_is_applied() -> None:
    _, log = typed(9, 3)

    good = answers_to(replay.encode_request(Request.WATCH, None, 0, log))
    bad = answers_to(
        replay.encode_request(Request.WATCH, None, 0, [*log, (4, b"\xff")])
    )

    assert [(answer, at) for answer, at, _ in good] == [
        *[(Answer.AT, at) for at in range(4)],
        (Answer.SURVIVED, 0),
    ]
    assert [(answer, at) for answer, at, _ in bad[-2:]] == [
        (Answer.AT, 4),
        (Answer.FAILED, 0),
    ]


def test_a_snapshot_that_takes_too_long_to_load_is_not_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, log = typed(3, 50)
    monkeypatch.setattr(replay, "LOAD_SECONDS", -1.0)
    monkeypatch.setattr(replay, "LOAD_BYTE_SECONDS", 0.0)

    with pytest.raises(NotVerified, match="too long"):
        replay.replay(None, log)
