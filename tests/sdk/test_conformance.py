"""What an agent can do, each test once with the asyncio client and once with the blocking one."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import tiptap
from faces import run
from faults.proxy import Proxy
from forging import AUDIENCE, ISSUER, Issuer
from members import SECONDS, text
from processes import Server
from pycrdt import Map, Text, XmlElement, XmlFragment, XmlText

import collab
from collab.sdk import Agent, Doc, Phase, connect_sync
from collab.sdk.changes import Changes
from collab.sdk.errors import (
    Ambiguous,
    Cancelled,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    StaleVersion,
)
from collab.sdk.history import History, TextChange
from collab.sdk.provider import Provider
from collab.sdk.sync import Face, Loop, waits
from collab.sdk.turn import SectionEdit, Turn

pytestmark = pytest.mark.anyio

Connect = Callable[..., Any]
LETTER = "# Letter\n\n## Greeting\n\nDear all.\n\n## End\n\nYours, A.\n"


@asynccontextmanager
async def ada(house: Server, room: str, content: str = "") -> AsyncIterator[Doc]:
    """A person, by the asyncio client whichever is tried, who has written something."""
    async with collab.connect(house.url, name="Ada", kind="human") as person:
        doc = await person.open(room)
        if content:
            text(doc.raw).insert(0, content)
            await doc.provider.flush(timeout=SECONDS)
        yield doc


def typed(doc: Doc, at: int, new: str) -> None:
    """By hand: places are characters."""
    text(doc.raw).insert(len(doc.text[:at].encode()), new)


async def says(doc: Any, expected: str) -> None:
    await doc.wait_for(lambda each: each.text == expected, SECONDS)


async def words(*pieces: str) -> AsyncIterator[str]:
    for piece in pieces:
        yield piece


# Reading


async def test_reading_and_finding(house: Server, room: str, connect: Connect) -> None:
    async with ada(house, room, "Grüße 😀, Grüße"), connect(house.url) as agent:
        doc = await agent.open(room)

        reading = doc.read()
        first, second = doc.find("Grüße")

        assert reading.text == doc.text == "Grüße 😀, Grüße"
        assert doc.resolve(first.start).index == 0
        assert doc.resolve(second.start).index == 9
        assert doc.find("nowhere") == []


async def test_a_section_is_read_alone(
    house: Server, room: str, connect: Connect
) -> None:
    async with ada(house, room, LETTER), connect(house.url) as agent:
        doc = await agent.open(room)

        assert doc.read(section="Greeting").text.strip() == "## Greeting\n\nDear all."
        with pytest.raises(NotFound):
            doc.read(section="Middle")


async def test_an_anchor_keeps_its_place(
    house: Server, room: str, connect: Connect
) -> None:
    async with ada(house, room, "one two") as person, connect(house.url) as agent:
        doc = await agent.open(room)
        anchor = doc.anchor(4)

        typed(person, 0, "zero ")
        await says(doc, "zero one two")

        assert doc.resolve(anchor).index == 9


# Edits


async def test_edits_of_a_turn_reach_the_others(
    house: Server, room: str, connect: Connect
) -> None:
    async with ada(house, room, LETTER) as person, connect(house.url) as agent:
        doc = await agent.open(room)

        async with doc.turn(reason="polish", task="t-1") as turn:
            await turn.insert("end", "PS\n")
            await turn.replace("Dear all", "Dear Ada")
            await turn.delete(doc.find("Yours, ")[0])
            await turn.section("Greeting").append("How are you?")
            await turn.section("End").rename("Close")
            await turn.section("Close").insert_before("See you.")

        await says(
            person,
            "# Letter\n\n## Greeting\n\nDear Ada.\n\nHow are you?\n\nSee you.\n\n## Close\n\nA.\nPS\n",
        )
        assert turn.record.inserted > 0
        assert turn.record.version == doc.version()


async def test_what_is_there_twice_is_ambiguous(
    house: Server, room: str, connect: Connect
) -> None:
    async with ada(house, room, "a cat, a cat"), connect(house.url) as agent:
        doc = await agent.open(room)

        async with doc.turn() as turn:
            with pytest.raises(Ambiguous) as caught:
                await turn.replace("cat", "dog")
            with pytest.raises(NotFound):
                await turn.replace("cow", "dog")
            await turn.replace("cat", "dog", near=caught.value.candidates[1].start)

        assert len(caught.value.candidates) == 2
        assert doc.text == "a cat, a dog"


async def test_a_stream_arrives_as_it_was(
    house: Server, room: str, connect: Connect
) -> None:
    pieces = [f"wörd{number} " for number in range(50)]
    async with (
        ada(house, room, "before | after") as person,
        connect(house.url) as agent,
    ):
        doc = await agent.open(room)

        async with doc.turn() as turn:
            place = doc.find("| ")[0]
            await turn.stream(place, words(*pieces))

        await says(person, f"before | {''.join(pieces)}after")


async def test_a_stream_in_place_of_something(
    house: Server, room: str, connect: Connect
) -> None:
    async with (
        ada(house, room, "say NOTHING here") as person,
        connect(house.url) as agent,
    ):
        doc = await agent.open(room)

        async with doc.turn() as turn:
            found = doc.find("NOTHING")[0]
            await turn.stream("end", words("some", "thing ", "new"), replace=found)

        await says(person, "say something new here")


async def test_characters_are_given_formats(
    house: Server, room: str, connect: Connect
) -> None:
    async with ada(house, room, "so bold") as person, connect(house.url) as agent:
        doc = await agent.open(room)

        async with doc.turn() as turn:
            await turn.format(doc.find("bold")[0], bold=True)

        await person.wait_for(
            lambda each: text(each.raw).diff()[-1] == ("bold", {"bold": True}), SECONDS
        )


async def test_a_patch_is_applied_whole_or_not_at_all(
    house: Server, room: str, connect: Connect
) -> None:
    good = "@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n"
    bad = "@@ -1,2 +1,2 @@\n none\n-of\n+this\n"
    async with (
        ada(house, room, "one\ntwo\nthree\n") as person,
        connect(house.url) as agent,
    ):
        doc = await agent.open(room)

        async with doc.turn() as turn:
            await turn.patch(good)
            with pytest.raises(Conflict):
                await turn.patch(bad)

        await says(person, "one\n2\nthree\n")


async def test_values_are_set_and_patched(
    house: Server, room: str, connect: Connect
) -> None:
    async with ada(house, room) as person, connect(house.url) as agent:
        doc = await agent.open(room)

        async with doc.turn() as turn:
            await turn.set("/board", {"title": "Plan", "todo": ["milk"]})
            await turn.json_patch(
                [
                    {"op": "test", "path": "/board/title", "value": "Plan"},
                    {"op": "add", "path": "/board/todo/-", "value": "bread"},
                ]
            )
            with pytest.raises(Conflict):
                await turn.json_patch([{"op": "remove", "path": "/board/none"}])

        expected = {"title": "Plan", "todo": ["milk", "bread"]}
        await person.wait_for(lambda each: is_there(each, expected), SECONDS)
        assert doc.get("/board/todo/1") == "bread"
        with pytest.raises(NotFound):
            doc.get("/board/none")


def is_there(doc: Doc, expected: dict[str, Any]) -> bool:
    try:
        return bool(doc.get("/board") == expected)
    except NotFound:
        return False


async def test_the_document_of_an_editor_is_edited_by_the_same_words(
    house: Server, room: str, connect: Connect
) -> None:
    async with ada(house, room) as person, connect(house.url) as agent:
        top = tiptap.fragment(person.raw)
        for each in (tiptap.heading(2, "Part"), tiptap.paragraph("one two")):
            top.children.append(each)
        await person.provider.flush(timeout=SECONDS)
        doc = await agent.open(room, editor="tiptap")
        (found,) = doc.find("two", path="/1")

        async with doc.turn() as turn:
            await turn.format(found, bold=True)
            await turn.insert(doc.anchor(3, path="/1"), " and a half")
            await turn.replace("two", "three", path="/1")
            await turn.section("Part").append("- *list*")
            await turn.stream("end", words(" of\n\n1. m", "any\n"))
            await turn.delete(doc.find(" of", path="/2")[0])

        assert doc.read().section("Part").text == doc.read(root="default").text
        assert doc.read(path="/1").text == "one and a half three"
        await person.wait_for(
            lambda each: (
                each.read(format="markdown").text
                == "## Part\n\none and a half **three**\n\n- *list*\n\n1. many"
            ),
            SECONDS,
        )


async def test_a_text_inside_of_a_map_is_edited_by_its_path(
    house: Server, room: str, connect: Connect
) -> None:
    async with ada(house, room) as person, connect(house.url) as agent:
        person.raw["board"] = Map({"title": Text("Plan")})
        await person.provider.flush(timeout=SECONDS)
        doc = await agent.open(room)

        async with doc.turn() as turn:
            await turn.rewrite("The plan", root="board", path="/title")
            await turn.patch("@@\n-The plan\n+Our plan\n", root="board", path="/title")

        await person.wait_for(
            lambda each: each.get("/board/title") == "Our plan", SECONDS
        )


# Conflicts


async def test_what_changed_since_it_was_read_is_rejected_or_merged(
    house: Server, room: str, connect: Connect
) -> None:
    async with (
        ada(house, room, "The quick fox jumps.\n") as person,
        connect(house.url) as agent,
    ):
        doc = await agent.open(room)
        doc.read()
        typed(person, 9, "est")
        await says(doc, "The quickest fox jumps.\n")

        async with doc.turn(on_conflict="reject") as turn:
            with pytest.raises(StaleVersion):
                await turn.rewrite("The slow fox jumps.\n")
        async with doc.turn(on_conflict="merge") as turn:
            result = await turn.replace("fox jumps", "fox leaps")

        assert result.applied
        await says(person, "The quickest fox leaps.\n")


# Turns that end early


async def test_an_error_ends_the_turn_and_takes_it_back_if_asked(
    house: Server, room: str, connect: Connect
) -> None:
    async with ada(house, room, "kept ") as person, connect(house.url) as agent:
        doc = await agent.open(room)

        for rollback, content in ((True, "not kept"), (False, "as far as it came")):
            with pytest.raises(ZeroDivisionError):
                await fail(doc, content, rollback)

        await says(person, "kept as far as it came")


async def fail(doc: Any, content: str, rollback: bool) -> None:
    async with doc.turn(rollback=rollback) as turn:
        await turn.insert("end", content)
        raise ZeroDivisionError


async def test_a_turn_is_stopped_from_outside(
    house: Server, room: str, connect: Connect
) -> None:
    async def endless() -> AsyncIterator[str]:
        while True:
            yield "more and "
            await asyncio.sleep(0.01)

    async def stop(person: Doc) -> None:
        await person.wait_for(lambda each: "more" in each.text, SECONDS)
        (peer,) = person.provider.peers.values()
        assert peer.agent is not None
        await person.cancel(peer.agent.turn)

    async with ada(house, room) as person, connect(house.url) as agent:
        doc = await agent.open(room)
        stopping = asyncio.ensure_future(stop(person))
        with pytest.raises(Cancelled):
            async with doc.turn() as turn:
                await turn.stream("end", endless())
        await stopping
        stopped = doc.text

        async with doc.turn() as turn:
            await turn.insert("start", "and on: ")

        await says(person, doc.text)
        assert doc.text == f"and on: {stopped}"


# Presence


async def test_others_see_what_an_agent_does(
    house: Server, room: str, connect: Connect
) -> None:
    async with ada(house, room) as person, connect(house.url, name="Bot") as agent:
        doc = await agent.open(room)

        agent.status("waiting_approval", detail="of Ada")
        await shows(person, "waiting_approval")
        (peer,) = person.provider.peers.values()

        assert (peer.user.name, peer.user.kind) == ("Bot", "agent")
        assert peer.agent is not None
        assert peer.agent.detail == "of Ada"
        assert [each.user.name for each in doc.provider.peers.values()] == ["Ada"]


async def shows(person: Doc, status: str) -> None:
    async with asyncio.timeout(SECONDS):
        async for peers in person.provider.presences():
            if any(
                each.agent and each.agent.status == status for each in peers.values()
            ):
                return


# Connections


async def test_a_broken_connection_is_made_again(
    house: Server, room: str, connect: Connect
) -> None:
    async with (
        Proxy("127.0.0.1", house.port) as proxy,
        ada(house, room) as person,
        connect(f"http://127.0.0.1:{proxy.port}") as agent,
    ):
        doc = await agent.open(room)
        async with doc.turn() as turn:
            await turn.insert("end", "before, ")
            proxy.reset()
            await turn.insert("end", "after")
            await doc.provider.flush(timeout=SECONDS)

        await says(person, "before, after")
        assert doc.provider.state.phase is Phase.SAVED


async def test_all_that_was_written_is_logged_when_flush_returns(
    house: Server, room: str, connect: Connect
) -> None:
    async with connect(house.url) as agent:
        doc = await agent.open(room)
        run(doc, lambda core: text(core.raw).insert(0, "logged"))

        position = await doc.provider.flush("logged", SECONDS)

        assert (await doc.at(position)).content == "logged"


# The past


async def test_the_past_is_told_and_taken_back(
    house: Server, room: str, connect: Connect
) -> None:
    since = datetime.now(UTC) - timedelta(seconds=5)
    async with (
        ada(house, room, "Human. ") as person,
        connect(house.url, name="Bot") as agent,
    ):
        doc = await agent.open(room)
        async with doc.turn(reason="to help", model="rules") as turn:
            await turn.insert("end", "Machine.")
        typed(person, 10, "[!]")
        await person.provider.flush(timeout=SECONDS)
        await says(doc, "Human. Mac[!]hine.")

        blame = await doc.blame(doc.find("hine")[0])
        activity = await doc.activity()
        changeset = await doc.changeset(turn.record.position)
        past = await doc.at(turn.record.position)
        undone = await doc.undo(turn, reason="no")
        await says(doc, "Human. [!]")
        record = await doc.logged_turn(turn.id)
        redone = await doc.redo(turn.id)
        await says(doc, "Human. Mac[!]hine.")

        assert {(one.author.turn, one.author.model) for one in blame.spans} == {
            (turn.id, "rules")
        }
        assert [one.author.reason for one in activity.entries if one.author.turn] == [
            "to help"
        ]
        assert [(one.old, one.new) for one in changeset.changes] == [("", "[!]")]
        assert past.content == "Human. Machine."
        assert undone.is_changed
        assert record.undone_by == undone.turn
        assert redone.is_changed
        principal = blame.spans[0].author.principal
        everything = await doc.undo_by(principal, since)
        assert everything.is_changed
        await says(doc, "")


async def test_the_past_of_what_is_inside_of_a_root_is_told(
    house: Server, room: str, connect: Connect
) -> None:
    async with (
        ada(house, room, "Human. ") as person,
        connect(house.url, name="Bot") as agent,
    ):
        page = person.raw.get("page", type=XmlFragment)
        for at, line in enumerate(("One line.", "Another one.")):
            page.children.append(XmlElement("paragraph"))
            page.children[at].children.append(XmlText(line))
        person.raw.get("board", type=Map)["note"] = Text("To do")
        await person.provider.flush(timeout=SECONDS)
        doc = await agent.open(room)
        await says(doc, "Human. ")
        written = (await doc.activity()).position
        async with doc.turn() as turn:
            await turn.insert(7, " more", root="page", path="/1")
            await turn.insert("start", "Still ", root="board", path="/note")

        whole = await doc.blame(root="page")
        found = await doc.blame(doc.find("er more", root="page")[0])
        note = await doc.blame(("start", 8), root="board", path="/note")
        keys = await doc.blame(root="board")
        changed = await doc.changeset(written)
        of_note = await doc.changeset(written, root="board", path="/note")

        assert (whole.kind, keys.kind) == ("xml", "map")
        assert [(each.start, each.end, each.path) for each in whole.spans] == [
            (0, 9, "/0/0"),
            (9, 10, "/1"),
            (10, 17, "/1/0"),
            (17, 22, "/1/0"),
            (22, 27, "/1/0"),
        ]
        assert [
            (each.start, each.end, bool(each.author.turn)) for each in found.spans
        ] == [
            (15, 17, False),
            (17, 22, True),
        ]
        assert [
            (each.start, each.end, bool(each.author.turn)) for each in note.spans
        ] == [
            (0, 6, True),
            (6, 8, False),
        ]
        assert [each.key for each in keys.spans] == ["note"]
        assert [
            (type(each), each.root, each.path, each.old, each.new)
            for each in changed.changes
        ] == [
            (TextChange, "board", "/note", "", "Still "),
            (TextChange, "page", "/1/0", "", " more"),
        ]
        assert of_note.changes == changed.changes[:1]
        with pytest.raises(NotFound):
            await doc.blame(root="board", path="/nothing")
        with pytest.raises(Invalid):
            await doc.blame((0, 1), root="board")


# What others do


async def first(changes: Any) -> Any:
    """The next change; whoever is tried, and for a bounded time."""
    async with asyncio.timeout(SECONDS):
        return await anext(aiter(changes))


async def test_changes_of_others_are_told_and_own_ones_are_not(
    house: Server, room: str, connect: Connect
) -> None:
    async with ada(house, room, LETTER) as person, connect(house.url) as agent:
        doc = await agent.open(room)
        changes = doc.changes(debounce=0.1)
        async with doc.turn() as turn:
            await turn.replace("Yours", "Love")
        typed(person, person.text.index("all"), "to ")

        change = await first(changes)
        await changes.aclose()

        assert change.section == ("Letter", "Greeting")
        assert (change.old, change.new) == ("", "to ")
        assert [author.name for author in change.authors] == ["Ada"]


async def test_changes_go_on_from_a_cursor(
    house: Server, room: str, connect: Connect
) -> None:
    async with ada(house, room, "first\n") as person:
        async with connect(house.url) as agent:
            doc = await agent.open(room)
            changes = doc.changes(debounce=0.1)
            typed(person, 6, "second\n")
            told = await first(changes)
            await changes.aclose()
        typed(person, 13, "third\n")
        del text(person.raw)[0:6]
        await person.provider.flush(timeout=SECONDS)

        async with connect(house.url) as agent:
            doc = await agent.open(room)
            change = await first(doc.changes(after=told.cursor))

    assert told.new == "second\n"
    assert [(edit.old, edit.new) for edit in change.edits] == [
        ("first\n", ""),
        ("", "third\n"),
    ]


async def test_waiting_for_something_ends_when_it_is_so_or_when_the_time_is_over(
    house: Server, room: str, connect: Connect
) -> None:
    async with ada(house, room) as person, connect(house.url) as agent:
        doc = await agent.open(room)
        typed(person, 0, "done")

        await doc.wait_for(lambda each: each.text == "done", SECONDS)
        with pytest.raises(TimeoutError):
            await doc.wait_for(lambda each: each.text == "never", 0.01)


# Rights


class Door:
    """A server with access control, and tokens for one room of it."""

    def __init__(self, server: Server, issuer: Issuer) -> None:
        self.url, self._issuer = server.url, issuer

    def token(self, who: str, room: str, *may: str, kind: str = "agent") -> str:
        rooms = {room: ["read", "presence", *may]}
        return self._issuer.token(
            sub=who, name=who.title(), kind=kind, rooms=rooms, prefixes=None
        )


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    home, issuer = tmp_path_factory.mktemp("guarded"), Issuer()
    server = Server(
        home / "data",
        *("--auth", "jwt", "--jwt-keys", str(issuer.write(home / "keys.json"))),
        *("--jwt-audience", AUDIENCE, "--jwt-issuer", ISSUER),
    )
    server.start()
    yield Door(server, issuer)
    server.kill()


async def test_nobody_enters_with_a_token_for_another_room(
    guarded: Door, room: str, connect: Connect
) -> None:
    for token in ("", "nonsense", guarded.token("bot", "another room", "write")):
        async with connect(guarded.url, token=token) as agent:
            with pytest.raises(Forbidden) as caught:
                await agent.open(room)
            assert not token or token not in str(caught.value)


async def test_who_wrote_is_what_the_token_says(
    guarded: Door, room: str, connect: Connect
) -> None:
    token = guarded.token("bot", room, "write", "history")
    async with connect(
        guarded.url, token=token, name="The Queen", kind="human"
    ) as agent:
        doc = await agent.open(room)
        async with doc.turn() as turn:
            await turn.insert("end", "not by the Queen")

        (span,) = (await doc.blame()).spans

        author = span.author
        assert (author.principal, author.name, author.kind) == ("bot", "Bot", "agent")
        assert author.turn == turn.id


async def test_the_past_needs_the_right_to_it(
    guarded: Door, room: str, connect: Connect
) -> None:
    async with connect(guarded.url, token=guarded.token("bot", room, "write")) as agent:
        doc = await agent.open(room)
        async with doc.turn() as turn:
            await turn.insert("end", "text")

        for ask in (doc.blame, doc.activity, lambda: doc.at(1)):
            with pytest.raises(Forbidden):
                await ask()
        assert (await doc.undo(turn)).is_changed


async def test_a_turn_of_somebody_else_is_not_taken_back_without_the_right(
    guarded: Door, room: str, connect: Connect
) -> None:
    since = datetime.now(UTC) - timedelta(seconds=5)
    bot = guarded.token("bot", room, "write")
    async with (
        connect(guarded.url, token=bot) as agent,
        connect(guarded.url, token=guarded.token("eve", room, "write")) as other,
        connect(
            guarded.url, token=guarded.token("ada", room, "admin", "write")
        ) as admin,
    ):
        doc = await agent.open(room)
        async with doc.turn() as turn:
            await turn.insert("end", "text")

        theirs = await other.open(room)
        with pytest.raises(Forbidden):
            await theirs.undo(turn.id, "bot")
        with pytest.raises(Forbidden):
            await theirs.undo_by("bot", since)

        assert (await (await admin.open(room)).undo(turn.id, "bot")).is_changed


# The blocking client has all of it


# Of turns and documents, for each other.
INNER = {"begin", "check", "done", "end", "pace", "point", "show", "working"}
CORES = (Agent, Doc, Turn, SectionEdit, Provider, History, Changes)


def public(kind: type) -> list[str]:
    return [name for name in dir(kind) if not name.startswith("_")]


@pytest.mark.parametrize("kind", CORES)
def test_whatever_waits_has_a_face_that_does_not(kind: type) -> None:
    assert waits(kind)
    with Loop() as loop:
        core = object.__new__(kind)
        face = Face(loop, core)
        for name in public(kind):
            found = inspect.getattr_static(kind, name)
            if inspect.isfunction(found) and name != "run":  # the life of a provider
                method = getattr(face, name)
                assert not inspect.iscoroutinefunction(method)
                assert method.__doc__ == found.__doc__
                assert method.__doc__, f"{kind.__name__}.{name} says what it does"


def test_both_are_entered_with_the_same_arguments() -> None:
    assert (
        inspect.signature(collab.connect).parameters
        == inspect.signature(connect_sync).parameters
    )


def test_every_public_method_of_an_agents_document_is_tried_here() -> None:
    source = Path(__file__).read_text()
    methods = {
        name
        for kind in (Doc, Turn, SectionEdit, Changes)
        for name in public(kind)
        if inspect.isfunction(inspect.getattr_static(kind, name))
    }

    assert {name for name in methods if f".{name}(" not in source} <= INNER
