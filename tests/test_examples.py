"""The examples are run: the parts of each by themselves, and each against a real server."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import repeat
from pathlib import Path

import httpx2
import pytest
from modelling import endpoint, said
from processes import ROOT, Server, eventually
from pycrdt import XmlElement, XmlFragment, XmlText

import collab
from examples import reviewer, writer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all: each test has a room of its own."""
    shared = Server(tmp_path_factory.mktemp("examples") / "data")
    shared.start()
    yield shared
    shared.kill()


GREETING = said("Hello", ", ", "wörld 🌱", "\n")


async def in_pieces(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def heard(pieces: Iterable[bytes]) -> list[str]:
    return [event async for event in writer.events(in_pieces(pieces))]


async def told(url: str, key: str = "") -> str:
    stream = writer.tokens(url, model="small", key=key, ask="Write.")
    return "".join([words async for words in stream])


@pytest.mark.anyio
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_a_stream_is_read_however_it_is_cut(size: int) -> None:
    pieces = [GREETING[at : at + size] for at in range(0, len(GREETING), size)]

    events = await heard(pieces)

    assert events[-1] == "[DONE]"
    assert "".join(map(writer.words_in, events[:-1])) == "Hello, wörld 🌱\n"


@pytest.mark.anyio
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
async def test_lines_end_as_server_sent_events_allow(end: bytes) -> None:
    stream = [b": a comment", b"event: x", b"data:one", b"data: two", b"", b"data:3"]

    events = await heard([end.join([*stream, b"", b"", b"data: cut off"])])

    assert events == ["one\ntwo", "3"]


@pytest.mark.anyio
async def test_an_event_may_hold_nothing_and_say_so() -> None:
    assert await heard([b"data\n\ndata:\n\n\n\nid: 3\n\n"]) == ["", ""]


@pytest.mark.anyio
@pytest.mark.parametrize(
    "piece", [b"data: " + b"x" * 999, b"data: " + b"x" * 999 + b"\n"]
)
async def test_no_line_and_no_event_is_without_end(piece: bytes) -> None:
    def endless() -> Iterator[bytes]:
        for many, each in enumerate(repeat(piece)):
            assert many < 1000, "it goes on reading"
            yield each

    with pytest.raises(writer.EndpointError, match="too long"):
        await heard(endless())


@pytest.mark.anyio
async def test_what_a_model_says_arrives_in_order_and_it_is_asked_what_it_should_be() -> (
    None
):
    async with endpoint([GREETING]) as model:
        words = await told(model.url, key="secret")

    assert words == "Hello, wörld 🌱\n"
    assert model.asked[0]["stream"] is True
    assert model.asked[0]["model"] == "small"
    assert model.asked[0]["messages"][1] == {"role": "user", "content": "Write."}
    assert model.headers[0]["authorization"] == "bearer secret"


@pytest.mark.anyio
async def test_without_a_key_none_is_sent() -> None:
    async with endpoint([GREETING]) as model:
        await told(model.url)

    assert "authorization" not in model.headers[0]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("pieces", "status", "says"),
    [
        ([b'{"error": "no such secret"}'], 401, "answers 401"),
        ([b"moved"], 302, "answers 302"),
        ([GREETING[:-16]], 200, "broke off"),
        ([], 200, "broke off"),
        ([b'data: {"error": {"message": "secret"}}\n\n'], 200, "given up"),
        ([b"data: [1, 2\n\n"], 200, "as agreed"),
        ([b"data: []\n\n"], 200, "as agreed"),
        ([b'data: "choices"\n\n'], 200, "as agreed"),
        ([b'data: {"choices": [{"delta": {"content": 7}}]}\n\n'], 200, "as agreed"),
        ([b'data: {"choices": [7]}\n\n'], 200, "as agreed"),
        ([b"data: " + b"[" * 60_000 + b"\n\n"], 200, "as agreed"),
    ],
)
async def test_an_endpoint_that_goes_wrong_is_one_error_without_the_key(
    pieces: list[bytes], status: int, says: str
) -> None:
    async with endpoint(pieces, status) as model:
        with pytest.raises(writer.EndpointError, match=says) as error:
            await told(model.url, key="secret")

    assert "secret" not in str(error.value)


@pytest.mark.anyio
async def test_an_answer_without_end_is_broken_off() -> None:
    event = said("x" * 5000).removesuffix(b"data: [DONE]\n\n")

    async with endpoint(repeat(event, 100)) as model:
        with pytest.raises(writer.EndpointError, match="come to an end"):
            await told(model.url)


@pytest.mark.anyio
async def test_nobody_at_the_endpoint_is_the_same_kind_of_error() -> None:
    async with endpoint() as model:
        pass

    with pytest.raises(writer.EndpointError, match="cannot be reached"):
        await told(model.url)


@pytest.mark.parametrize(
    ("url", "key", "is_fine"),
    [
        ("https://models.example/v1", "secret", True),
        ("http://127.0.0.1:11434/v1", "secret", True),
        ("http://models.example/v1", "", True),
        ("http://models.example/v1", "secret", False),
        ("ftp://models.example/v1", "", False),
        ("https:///v1", "", False),
        ("models.example", "", False),
    ],
)
def test_a_key_goes_over_https_or_to_this_machine(
    url: str, key: str, is_fine: bool
) -> None:
    if is_fine:
        return writer.expect_private(url, key)

    with pytest.raises(writer.EndpointError):
        writer.expect_private(url, key)


def test_a_key_comes_from_a_file_or_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "from the environment")
    file = tmp_path / "key"
    file.write_text("from the file\n")

    keys = [writer.key_from(file), writer.key_from(None)]

    assert keys == ["from the file", "from the environment"]


def mended(text: str) -> str:
    """With all slips mended that were there at first."""
    for slip in sorted(reviewer.slips(text), key=lambda slip: -slip.start):
        text = text[: slip.start] + slip.new + text[slip.end :]
    return text


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Of teh shed", "Of the shed"),
        ("Teh shed, wich is old", "The shed, which is old"),
        ("over the the fence", "over the fence"),
        ("The the fence", "The fence"),
        ("ein Ärger  ärger 🌱 weniger", "ein Ärger 🌱 weniger"),
        ("a line \nand two  \nand three   ", "a line\nand two  \nand three"),
        ("text\n# Title\n## Below", "text\n\n# Title\n\n## Below"),
    ],
)
def test_a_slip_is_mended(text: str, wanted: str) -> None:
    assert mended(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n   \n",
        "It is what it is. She had had enough.",
        "tehran, the theme, 12 12",
        "The end. The beginning",
        "`teh` and https://example.org/teh/teh teh_teh",
        "```\nteh the the   \n# x\n```",
        "# Title\n\ntext",
        "#hashtag",
    ],
)
def test_what_is_no_slip_stays(text: str) -> None:
    assert mended(text) == text


def test_a_long_sentence_gets_a_remark_below_it_and_no_other() -> None:
    text = "A short one. " + "word and " * 25 + "end. Another.\nNext."

    once = mended(text)

    line, remark, following = once.split("\n")
    assert f"{line}\n{following}" == text
    assert remark.startswith("<!-- A sentence of 51 words")


def test_a_pass_is_told_in_one_sentence() -> None:
    found = list(reviewer.slips("teh the the fence "))

    assert reviewer.reason(found[:1]) == "“the” for “teh”"
    assert reviewer.reason(found) == "“the” for “teh”, and 2 more"


@pytest.mark.anyio
async def test_a_section_is_written_where_it_is_wanted_and_credited_to_a_turn(
    server: Server,
) -> None:
    async with (
        endpoint([said("Three", " beds", ",", " one", " path 🌱.")]) as model,
        collab.connect(server.url, name="Ada", kind="human") as ada,
    ):
        doc = await ada.open("garden")
        async with doc.turn() as turn:
            await turn.insert(
                0, "# Plan\n\n## Summary\n\nIn short:\n\n## Plants\n\nPears\n"
            )
        await doc.provider.flush()
        wanted = {"url": model.url, "model": "small", "ask": "Shorten it."}
        id = await writer.write(server.url, "garden", section="Summary", **wanted)
        await writer.write(server.url, "garden", section="Costs", **wanted)
        async with asyncio.timeout(30):
            await doc.wait_for(lambda doc: doc.text.count("🌱") == 2)
        blame = await doc.blame()

    words = "Three beds, one path 🌱."
    assert doc.text == (
        f"# Plan\n\n## Summary\n\nIn short:\n\n{words}\n\n## Plants\n\nPears\n\n\n## Costs\n\n{words}"
    )
    written = [span.author for span in blame.spans if span.author.turn == id]
    assert {(by.name, by.kind, by.model, by.reason) for by in written} == {
        ("Writer", "agent", "small", "Wrote “Summary”")
    }
    assert "Shorten it." in model.asked[0]["messages"][1]["content"]
    assert "## Plants" in model.asked[0]["messages"][1]["content"]


@pytest.mark.anyio
async def test_a_model_that_breaks_off_is_one_error_and_some_of_what_it_said_stays(
    server: Server,
) -> None:
    async with endpoint([said("Half a sentence")[:-16]]) as model:
        wanted = {"url": model.url, "model": "small", "section": "Summary"}
        with pytest.raises(writer.EndpointError, match="broke off"):
            await writer.write(server.url, "half", **wanted)

        async with collab.connect(server.url) as agent:
            doc = await agent.open("half")

    assert "## Summary\n\nHalf a sentence".startswith(doc.text)


@pytest.mark.anyio
async def test_the_reviewer_leaves_alone_what_a_person_is_typing_and_mends_it_after(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reviewer, "QUIET_SECONDS", 1e6)
    async with (
        collab.connect(server.url, name="Ada", kind="human") as ada,
        collab.connect(server.url, name="Reviewer", role="reviewer") as agent,
    ):
        doc = await ada.open("typing")
        async with doc.turn() as turn:
            await turn.insert(0, "teh shed\nteh fence\nteh gate")
        await doc.provider.flush()
        ada.cursor(doc, doc.anchor(12))
        its = await agent.open("typing")
        async with asyncio.timeout(30):
            async for peers in its.provider.presences():
                if any(peer.cursor for peer in peers.values()):
                    break
        work = reviewer.Reviewer(agent, its, pace=0)
        is_waiting = await work.review()
        meanwhile = its.text
        monkeypatch.setattr(reviewer, "QUIET_SECONDS", 0)
        is_waiting_still = await work.review()

    assert (is_waiting, is_waiting_still) == (True, False)
    assert meanwhile == "the shed\nteh fence\nthe gate"
    assert its.text == "the shed\nthe fence\nthe gate"


@pytest.mark.anyio
async def test_the_reviewer_reviews_the_document_of_a_rich_editor_too(
    server: Server,
) -> None:
    async with (
        collab.connect(server.url, name="Ada", kind="human") as ada,
        collab.connect(server.url, name="Reviewer", role="reviewer") as agent,
    ):
        doc = await ada.open("rich", editor="tiptap")
        its = await agent.open("rich")
        working = asyncio.ensure_future(reviewer.Reviewer(agent, its, pace=0).work())
        top = doc.raw.get("default", type=XmlFragment)
        top.children.append(XmlElement("paragraph", {}, [XmlText("teh shed")]))
        async with doc.turn() as turn:
            await turn.format(doc.find("shed")[0], bold=True)
            await turn.insert("end", "\nthe the gate")

        async with asyncio.timeout(30):
            await doc.wait_for(lambda each: each.read().text == "the shed\nthe gate")
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)

    assert str(top) == (
        "<paragraph>the <bold>shed</bold></paragraph><paragraph>the gate</paragraph>"
    )


@pytest.mark.anyio
async def test_the_reviewer_does_not_do_again_what_was_taken_back(
    server: Server,
) -> None:
    async with (
        collab.connect(server.url, name="Ada", kind="human") as ada,
        collab.connect(server.url, name="Reviewer", role="reviewer") as agent,
    ):
        doc, its = await ada.open("again"), await agent.open("again")
        async with doc.turn() as turn:
            await turn.insert(0, "Teh the the shed \nend\n# Title")
        await doc.provider.flush()
        async with asyncio.timeout(30):
            await its.wait_for(lambda doc: "Title" in doc.text)
            work = reviewer.Reviewer(agent, its, pace=0)
            await work.review()
            mended = its.text
            (did,) = [
                each
                for each in (await doc.activity()).entries
                if each.author.kind == "agent"
            ]
            await doc.undo(did.author.turn)
            await its.wait_for(lambda doc: doc.text.startswith("Teh"))
        await work.review()

    assert mended == "The the shed\nend\n\n# Title"
    assert its.text == "Teh the the shed \nend\n# Title"
    assert did.author.reason == "“The” for “Teh”, and 3 more"


@pytest.mark.anyio
async def test_a_reviewer_that_is_stopped_leaves_the_rest(server: Server) -> None:
    async with (
        collab.connect(server.url, name="Ada", kind="human") as ada,
        collab.connect(server.url, name="Reviewer", role="reviewer") as agent,
    ):
        doc, its = await ada.open("stop"), await agent.open("stop")
        async with doc.turn() as turn:
            await turn.insert(0, "teh shed\nteh fence")
        await doc.provider.flush()
        async with asyncio.timeout(30):
            await its.wait_for(lambda doc: "fence" in doc.text)
            work = reviewer.Reviewer(agent, its, pace=1e6)
            passing = asyncio.create_task(work.review())
            async for peers in doc.provider.presences():
                if turns := [
                    peer.agent.turn
                    for peer in peers.values()
                    if peer.agent and peer.agent.turn
                ]:
                    break
            doc.provider.cancel_turn(turns[0])
            await passing
        work.pace = 0
        await work.review()

    assert its.text == "teh shed\nteh fence"


def test_both_run_from_the_command_line(server: Server, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("secret")
    examples = [sys.executable, "-m"]
    reviewing = subprocess.Popen(
        [*examples, "examples.reviewer", server.url, "shell"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wrote = subprocess.run(
        [
            *(*examples, "examples.writer", server.url, "shell", "--section", "A"),
            *("--url", "http://127.0.0.1:9/v1", "--model", "m", "--key-file", str(key)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    splice = {"splices": [{"root": "text", "index": 0, "insert": "teh end"}]}
    document = f"{server.url}/v1/rooms/shell/document"
    httpx2.patch(document, json=splice).raise_for_status()
    is_mended = eventually(
        lambda: httpx2.get(f"{document}?format=text").text == "the end"
    )
    reviewing.send_signal(signal.SIGINT)
    told, _ = reviewing.communicate(timeout=30)

    assert is_mended
    assert (reviewing.returncode, told) == (0, "")
    assert wrote.returncode == 1
    assert wrote.stderr.splitlines()[-1] == (
        "the endpoint cannot be reached: ConnectError"
    )
    assert "secret" not in wrote.stderr
