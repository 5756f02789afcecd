"""Documents written for others: at once or in a child process, once for each state, and bounded."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pycrdt import Array, Doc, Map, Text

from collab import rendering
from collab.errors import Busy, InvalidRequest, Refused, RoomUnavailable, RootNotFound
from collab.rendering import Renderer

pytestmark = pytest.mark.anyio


def update(**roots: Any) -> bytes:
    doc: Doc[Any] = Doc(client_id=5)
    for name, root in roots.items():
        doc[name] = root
    return doc.get_update()


@pytest.fixture
def in_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "INLINE_BYTES", 0)


async def test_a_state_of_a_document_is_written_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = []
    export = rendering.export
    monkeypatch.setattr(
        rendering, "export", lambda *about: made.append(about) or export(*about)
    )
    content, other = update(text=Text("é😀")), update(text=Text("other"))
    async with Renderer() as renderer:
        for _ in range(3):
            assert await renderer.render("r", content, "text", "") == "é😀".encode()
        assert await renderer.render("r", content, "json", "") == (
            '{"text":"é😀"}'.encode()
        )
        assert await renderer.render("r", other, "text", "") == b"other"

    assert len(made) == 3


async def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "MAX_KEPT_BYTES", 10_000)
    async with Renderer() as renderer:
        for number in range(30):
            content = update(text=Text("x" * 500))
            await renderer.render(f"room{number}", content, "text", "")

        assert 0 < len(renderer._kept) < 10
        assert renderer._bytes <= 10_000


@pytest.mark.usefixtures("in_child")
async def test_a_large_document_is_written_in_a_child_and_the_same() -> None:
    content = update(text=Text("*é😀*"), map=Map({"a": Array([Map({"b": 1.5})])}))
    async with Renderer() as renderer:
        forms = [
            await renderer.render("r", content, form, "")
            for form in ("json", "text", "markdown")
        ]

        assert renderer._child.pid is not None
    assert forms == [
        '{"map":{"a":[{"b":1.5}]},"text":"*é😀*"}'.encode(),
        "*é😀*".encode(),
        "*é😀*".encode(),
    ]


@pytest.mark.usefixtures("in_child")
async def test_errors_come_back_from_the_child_as_they_are() -> None:
    one = update(text=Text("1"), two=Text("2"))
    listed = update(map=Map({"k": Text("é")}))
    at = listed.index(b"\x01k") + 2
    listed = listed[:at] + b"\x00" + listed[at + 1 :]
    async with Renderer() as renderer:
        with pytest.raises(InvalidRequest, match="text, two"):
            await renderer.render("r", one, "text", "")
        with pytest.raises(RootNotFound, match="three"):
            await renderer.render("r", one, "markdown", "three")
        with pytest.raises(Refused) as caught:
            await renderer.render("r", listed, "json", "")

    assert caught.value.rule == "characters in a list"


@pytest.mark.usefixtures("in_child")
async def test_who_asks_for_the_same_at_the_same_time_waits_for_one() -> None:
    content = update(text=Text("words"))
    asked = []
    async with Renderer() as renderer:
        ask = renderer._child.ask

        async def counted(request: bytes) -> None:
            asked.append(request)
            await ask(request)

        renderer._child.ask = counted  # type: ignore[method-assign]
        both = [renderer.render("r", content, "text", "") for _ in range(5)]
        found = await asyncio.gather(*both)

    assert set(found) == {b"words"}
    assert len(asked) == 1


@pytest.mark.usefixtures("in_child")
async def test_too_many_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "MAX_WAITING", 2)
    contents = [update(text=Text(str(number))) for number in range(5)]
    async with Renderer() as renderer:
        found = await asyncio.gather(
            *(renderer.render("r", each, "text", "") for each in contents),
            return_exceptions=True,
        )

    assert [each for each in found if isinstance(each, bytes)] == [b"0", b"1"]
    assert all(isinstance(each, Busy) for each in found[2:])


@pytest.mark.usefixtures("in_child")
async def test_one_room_does_not_keep_the_others_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rendering, "MAX_WAITING_OF_ROOM", 2)
    contents = [update(text=Text(str(number))) for number in range(4)]
    async with Renderer() as renderer:
        found = await asyncio.gather(
            *(renderer.render("r", each, "text", "") for each in contents),
            renderer.render("s", contents[0], "text", ""),
            return_exceptions=True,
        )

    assert [found[0], found[1], found[4]] == [b"0", b"1", b"0"]
    assert all(isinstance(each, Busy) for each in found[2:4])


@pytest.mark.usefixtures("in_child")
async def test_a_child_that_dies_costs_only_who_asked() -> None:
    content = update(text=Text("words"))
    async with Renderer(hang_seconds=0.0) as renderer:
        with pytest.raises(RoomUnavailable):
            await renderer.render("r", content, "text", "")
        renderer._child._hang_seconds = 10.0
        assert await renderer.render("r", content, "text", "") == b"words"


@pytest.mark.usefixtures("in_child")
async def test_who_gives_up_leaves_no_answer_for_the_next() -> None:
    one, two = update(text=Text("one")), update(text=Text("two"))
    async with Renderer() as renderer:
        asking = asyncio.ensure_future(renderer.render("r", one, "text", ""))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])

        assert await renderer.render("r", two, "text", "") == b"two"
