"""Who wrote what, and what changed, in what an editor keeps: a real server, two people, before and after a restart."""

from __future__ import annotations

import json
import subprocess
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from forging import AUDIENCE, ISSUER, Issuer
from processes import Server

HERE = Path(__file__).parent
PACKAGES = HERE.parents[1] / "client-js" / "node_modules"
SHOWN = "Plan 😀\nThen we sleep.\nwe always eat.\nbread\nwine\nor water\n"

Ask = Callable[[str], httpx2.Response]


@pytest.fixture(scope="module", params=["as written", "restarted"])
def ask(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ask]:
    """Asks about a room in which ada and eve have written."""
    assert (PACKAGES / "yjs").is_dir(), "Yjs is missing: run npm ci in client-js"
    home, issuer = tmp_path_factory.mktemp("editors"), Issuer()
    keys = issuer.write(home / "keys.json")
    server = Server(
        *(home / "data", "--auth", "jwt", "--jwt-keys", str(keys)),
        *("--jwt-audience", AUDIENCE, "--jwt-issuer", ISSUER),
    )
    server.start()
    may = {"page": ["read", "write", "history"]}
    tokens = {who: issuer.token(sub=who, rooms=may) for who in ("ada", "eve")}
    edited = subprocess.run(
        ["node", HERE / "editing.mjs", PACKAGES], check=True, capture_output=True
    )
    with httpx2.Client(timeout=60) as client:

        def call(method: str, path: str, who: str, **more: Any) -> httpx2.Response:
            headers = {"authorization": f"Bearer {tokens[who]}", **more.pop("as", {})}
            url = f"{server.url}/v1/rooms/page{path}"
            return client.request(method, url, headers=headers, **more)

        for line in edited.stdout.splitlines():
            row = json.loads(line)
            kind = {"content-type": "application/octet-stream"}
            wrote = call(
                "POST",
                "/update",
                row["by"],
                content=b64decode(row["update"]),
                **{"as": kind},
            )
            assert wrote.status_code == 200, wrote.text
        if request.param == "restarted":
            server.restart()
        yield lambda path: call("GET", path, "ada")
    server.kill()


def blamed(ask: Ask, query: str, shown: str | None = None) -> list[tuple[Any, ...]]:
    """Who wrote which parts of a text."""
    found = ask(f"/blame?{query}").json()
    return [
        (
            found["authors"][span["author"]]["principal"],
            span.get("path", span.get("key"))
            if shown is None
            else shown[span["start"] : span["end"]],
        )
        for span in found["spans"]
    ]


def test_a_whole_page_is_blamed_as_it_is_exported(ask: Ask) -> None:
    exported = ask("/document?format=text&root=default").text

    spans = blamed(ask, "root=default", exported)

    assert exported == SHOWN
    assert "".join(part for _, part in spans) == exported
    assert spans == [
        ("ada", "Plan 😀"),
        ("eve", "\n"),  # the paragraph that was moved
        ("eve", "Then we sleep."),
        ("ada", "\n"),
        ("ada", "we "),
        ("eve", "always "),
        ("ada", "eat."),
        ("ada", "\n"),
        ("ada", "bread"),
        ("eve", "\n"),
        ("eve", "wine"),
        ("ada", "\n"),
        ("ada", "or water"),
        ("eve", "\n"),
    ]


def test_each_span_of_a_page_says_where_it_is(ask: Ask) -> None:
    found = ask("/blame?root=default&start=5&end=24").json()

    assert (found["kind"], found["root"], found["path"]) == ("xml", "default", "")
    assert [(span["start"], span["end"], span["path"]) for span in found["spans"]] == [
        (5, 6, "/0/0"),
        (6, 7, "/1"),
        (7, 21, "/1/0"),
        (21, 22, "/2"),
        (22, 24, "/2/0"),
    ]


def test_a_text_inside_is_blamed_by_its_path(ask: Ask) -> None:
    line = "we always eat."

    assert blamed(ask, "root=default&path=/2/0&start=1", line) == [
        ("ada", "e "),
        ("eve", "always "),
        ("ada", "eat."),
    ]
    assert blamed(ask, "root=board&path=/card/title", "Not To do") == [
        ("eve", "Not "),
        ("ada", "To do"),
    ]


def test_of_a_map_each_key_and_of_a_list_each_run_has_its_author(ask: Ask) -> None:
    assert blamed(ask, "root=board&path=/card") == [
        ("eve", "done"),
        ("ada", "tags"),
        ("ada", "title"),
    ]
    assert blamed(ask, "root=board&path=/card/tags", "012") == [
        ("ada", "01"),
        ("eve", "2"),
    ]
    assert blamed(ask, "root=board&path=/card/tags&start=1", "012") == [
        ("ada", "1"),
        ("eve", "2"),
    ]
    assert blamed(ask, "root=board&path=/card/done", "!") == [("eve", "!")]


def test_the_page_of_then_is_blamed_as_it_was(ask: Ask) -> None:
    then = "Plan 😀\nFirst we always eat.\nThen we sleep.\nbread"

    spans = blamed(ask, "root=default&at=2", then)

    assert "".join(part for _, part in spans) == then
    assert [part for who, part in spans if who == "eve"] == ["always "]


def test_a_changeset_tells_nodes_attributes_and_texts_apart(ask: Ask) -> None:
    found = ask("/changeset?from=1&to=9&root=default").json()

    changes = [
        (
            change["kind"],
            change["path"],
            change.get("key", change["start"]),
            change["old"],
            change["new"],
            found["authors"][change["author"]]["principal"],
        )
        for change in found["changes"]
    ]
    assert changes == [
        ("items", "", 1, [], [paragraph("Then we sleep.")], "eve"),
        ("items", "", 3, [paragraph("Then we sleep.")], [], "eve"),
        ("items", "", 4, [], [paragraph()], "eve"),
        ("key", "/0", "level", ["1"], ["2"], "eve"),
        ("text", "/2/0", 0, "First ", "", "ada"),
        ("text", "/2/0", 3, "", "always ", "eve"),
        ("items", "/3", 1, [], [node("listItem", paragraph("wine"))], "eve"),
        (
            "items",
            "/3/1/0",
            1,
            [],
            [node("hardBreak"), "or water"],
            "ada",
        ),
    ]


def test_a_changeset_of_a_path_tells_what_is_inside_of_it(ask: Ask) -> None:
    found = ask("/changeset?from=10&root=board&path=/card").json()

    assert [
        (each["kind"], each["path"], each["start"], each.get("key"), each["new"])
        for each in found["changes"]
    ] == [
        ("key", "/card", 0, "done", [False]),
        ("items", "/card/tags", 2, None, [{"size": 3}]),
        ("text", "/card/title", 0, None, "Not "),
    ]


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("root=nowhere", 404, "root_not_found"),
        ("root=default&path=/9", 404, "not_found"),
        ("root=default&path=/0/0/0", 404, "not_found"),
        ("root=default&path=/0/level", 404, "not_found"),
        ("root=default&path=/-1", 404, "not_found"),
        ("root=board&path=/card/done/deeper", 404, "not_found"),
        ("root=board&path=/card/tags/99999999999999999999", 404, "not_found"),
        ("root=board&path=" + "/0" * 2000, 404, "not_found"),
        ("root=board&path=" + "/0" * 3000, 400, "invalid_request"),
        ("root=board&path=card", 400, "invalid_request"),
        ("root=board&path=/~2", 400, "invalid_request"),
        ("root=board&path=/card&start=1", 400, "invalid_request"),
        ("root=board&path=/card/done&end=1", 400, "invalid_request"),
    ],
)
def test_what_is_not_there_or_has_no_such_place_is_said(
    ask: Ask, query: str, status: int, code: str
) -> None:
    answer = ask(f"/blame?{query}")

    assert (answer.status_code, answer.json()["code"]) == (status, code)


def paragraph(*children: str) -> dict[str, Any]:
    return node("paragraph", *children)


def node(tag: str, *children: Any) -> dict[str, Any]:
    return {"tag": tag, "attributes": {}, "children": [*children]}
