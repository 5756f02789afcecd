"""What only the blocking client has: a thread of its own, iterators that block, and Ctrl-C."""

from __future__ import annotations

import asyncio
import inspect
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Any

import pytest
from members import text
from processes import ROOT, Server, eventually
from pycrdt import Doc as Raw

import collab
from collab.sdk import Invalid, Unavailable
from collab.sdk.sync import Face, Loop


class Core:
    """Something that waits, as the core has it."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.raw = Raw()

    async def __aenter__(self) -> Core:
        self.log.append("entered")
        return self

    async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> bool:
        self.log.append(f"left with {kind.__name__ if kind else None}")
        return kind is KeyError

    async def joined(self, pieces: AsyncIterable[str]) -> str:
        return "".join([piece async for piece in pieces])

    async def plain(self, words: Any) -> Any:
        return words

    async def counted(self) -> AsyncIterator[int]:
        try:
            for number in range(3):
                yield number
        finally:
            self.log.append("closed")

    async def fails(self) -> None:
        raise ValueError("as it is")

    def thread(self) -> str:
        return threading.current_thread().name

    @property
    def name(self) -> str:
        return threading.current_thread().name


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Loop() as running:
        yield running


@pytest.fixture
def face(loop: Loop) -> Face:
    return Face(loop, Core())


def test_everything_runs_on_the_loops_thread(face: Face) -> None:
    assert face.thread() == "collab"
    assert face.name == "collab"
    assert face.run(lambda core: core.name) == "collab"


def test_a_raw_document_is_for_the_loops_thread_alone(face: Face) -> None:
    with pytest.raises(RuntimeError, match="run"):
        _ = face.raw

    assert face.run(lambda core: len(core.raw.get_update())) == 2


def test_an_iterator_is_read_by_the_thread_that_calls(face: Face) -> None:
    def pieces() -> Iterator[str]:
        yield "a"
        yield threading.current_thread().name

    assert face.joined(pieces()) == "a" + threading.current_thread().name


@pytest.mark.parametrize("pieces", [["a", "b"], ("a", "b"), "ab", {"a": 1, "b": 2}])
def test_whatever_can_be_iterated_over_is_read_where_pieces_are_asked_for(
    face: Face, pieces: Iterable[str]
) -> None:
    assert face.joined(pieces) == face.joined(pieces=pieces) == "ab"


def test_what_comes_in_pieces_already_is_handed_on(face: Face) -> None:
    async def pieces() -> AsyncIterator[str]:
        yield "a"

    assert face.joined(pieces()) == "a"


def test_a_list_is_a_list_where_no_pieces_are_asked_for(face: Face) -> None:
    assert face.plain(["a"]) == ["a"]
    assert face.plain(words="ab") == "ab"


def test_a_block_is_left_as_often_as_one_likes(face: Face) -> None:
    with face:
        pass

    assert face.__exit__(None, None, None) is False


def test_both_ways_to_connect_take_the_same_options() -> None:
    options = inspect.signature(collab.Agent).parameters

    assert inspect.signature(collab.connect).parameters == options
    assert inspect.signature(collab.connect_sync).parameters == options


def test_an_iterator_that_fails_fails_the_call(face: Face) -> None:
    def pieces() -> Iterator[str]:
        yield "a"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        face.joined(pieces())


def test_an_iterator_of_the_core_is_one_for_a_for(face: Face) -> None:
    assert list(face.counted()) == [0, 1, 2]


def test_an_iterator_that_is_left_early_is_closed(face: Face) -> None:
    numbers = iter(face.counted())
    assert next(numbers) == 0

    numbers.close()  # type: ignore[attr-defined]  # a generator, behind its interface

    assert face.log == ["closed"]


def test_an_error_of_the_core_is_raised_as_it_is(face: Face) -> None:
    with pytest.raises(ValueError, match="as it is"):
        face.fails()


def test_a_block_is_entered_and_left(face: Face) -> None:
    with face as entered:
        assert entered is face

    assert face.log == ["entered", "left with None"]


def test_an_error_in_a_block_is_seen_and_goes_on(face: Face) -> None:
    with pytest.raises(ZeroDivisionError), face:
        raise ZeroDivisionError

    assert face.log == ["entered", "left with ZeroDivisionError"]


def test_an_error_that_the_core_deals_with_ends_there(face: Face) -> None:
    with face:
        raise KeyError

    assert face.log == ["entered", "left with KeyError"]


def test_ctrl_c_in_a_block_cancels_what_is_in_it(face: Face) -> None:
    with pytest.raises(KeyboardInterrupt), face:
        raise KeyboardInterrupt

    assert face.log == ["entered", "left with CancelledError"]


def test_a_blocking_call_inside_of_one_is_refused(face: Face) -> None:
    with pytest.raises(RuntimeError, match="wait for itself"):
        face.run(lambda core: face.thread())


def test_nothing_can_be_called_after_the_block() -> None:
    with Loop() as loop:
        face = Face(loop, Core())

    with pytest.raises(Unavailable):
        face.thread()


def test_the_end_of_the_block_ends_what_still_runs_and_its_thread() -> None:
    with Loop() as loop:
        running = loop.start(lambda: asyncio.Event().wait())

    with pytest.raises(Unavailable):
        running.result(10)
    assert not any(thread.name == "collab" for thread in threading.enumerate())


def test_an_agent_leaves_no_thread_behind(house: Server, room: str) -> None:
    with collab.connect_sync(house.url, name="One") as agent:
        doc = agent.open(room)
        doc.run(lambda core: text(core.raw).insert(0, "a"))
        doc.provider.flush(timeout=30)

    assert not any(thread.name == "collab" for thread in threading.enumerate())


def test_an_agent_that_cannot_be_entered_leaves_no_thread_behind() -> None:
    with pytest.raises(Invalid, match="server"):
        collab.connect_sync("nowhere")

    assert not any(thread.name == "collab" for thread in threading.enumerate())


PROGRAM = """
import sys, time, collab
with collab.connect_sync(sys.argv[1], name="Interrupted") as agent:
    doc = agent.open(sys.argv[2])
    def pieces():
        yield "written before the interruption "
        while "before" not in doc.text:
            time.sleep(0.01)
        print("ready", flush=True)
        time.sleep(60)
    with doc.turn(reason="a long one") as turn:
        turn.stream("end", pieces())
"""


def test_ctrl_c_ends_a_program_in_time_and_saves_what_it_wrote(
    house: Server, room: str
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, house.url, room],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"

    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)

    assert errors.strip().endswith("KeyboardInterrupt")
    assert "never retrieved" not in errors
    with collab.connect_sync(house.url) as agent:
        doc = agent.open(room)
        assert eventually(lambda: "before the" in doc.run(lambda core: core.text))
