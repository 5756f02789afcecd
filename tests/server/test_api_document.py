"""Reading and editing a document over HTTP."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from calling import Caller, open_api
from costly import slow
from logged import capture_logs
from pycrdt import Doc, Map, Text

from collab.auth.permissions import READ, WRITE
from collab.errors import StoreUnavailable
from collab.protocol.varint import Reader
from collab.server.api import document
from collab.server.api.drafts import Drafts
from collab.store.memory import MemoryStore

pytestmark = pytest.mark.anyio

HERE = "/v1/rooms/r/document"
UPDATE = "/v1/rooms/r/update"
BYTES = {"content-type": "application/octet-stream"}
PATCH = {"content-type": "application/json-patch+json"}


def update(**roots: Any) -> bytes:
    doc: Doc[Any] = Doc()
    for name, root in roots.items():
        doc[name] = root
    return doc.get_update()


async def splice(
    call: Caller, insert: str, index: int = 0, **options: Any
) -> dict[str, Any]:
    splices = [{"root": "text", "index": index, "insert": insert}]
    answer = await call("PATCH", HERE, json={"splices": splices}, **options)
    assert answer.status_code == 200, answer.text
    saved = answer.json()
    assert isinstance(saved, dict)
    return saved


# Reading


async def test_a_document_is_read_in_four_forms() -> None:
    async with open_api() as call:
        await call("POST", UPDATE, content=update(text=Text("# hi é😀")), headers=BYTES)

        as_json = await call("GET", HERE)
        text = await call("GET", f"{HERE}?format=text")
        markdown = await call("GET", HERE, headers={"accept": "text/markdown"})
        whole = await call("GET", HERE, headers={"accept": "application/octet-stream"})

        assert as_json.json() == {"text": "# hi é😀"}
        assert text.text == markdown.text == "# hi é😀"
        assert text.headers["content-type"] == "text/plain; charset=utf-8"
        assert markdown.headers["content-type"] == "text/markdown; charset=utf-8"
        doc: Doc[Any] = Doc()
        doc.apply_update(whole.content)
        assert str(doc.get("text", type=Text)) == "# hi é😀"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("image/png", "application/json"),
        ("text/markdown;q=0.2, text/plain;q=0.8", "text/plain; charset=utf-8"),
        ("text/*, application/octet-stream", "application/octet-stream"),
        ("text/plain;q=0, ,;;q=, text/markdown;q=9", "text/markdown; charset=utf-8"),
    ],
)
async def test_the_form_follows_the_accept_header(accept: str, expected: str) -> None:
    async with open_api() as call:
        await call("POST", UPDATE, content=update(text=Text("hi")), headers=BYTES)

        answer = await call("GET", HERE, headers={"accept": accept})

        assert answer.headers["content-type"] == expected


async def test_one_root_of_several_is_read_as_text() -> None:
    async with open_api() as call:
        content = update(one=Text("1"), two=Text("2"), map=Map({"a": 1}))
        await call("POST", UPDATE, content=content, headers=BYTES)

        named = await call("GET", f"{HERE}?format=text&root=two")
        unnamed = await call("GET", f"{HERE}?format=text")
        absent = await call("GET", f"{HERE}?format=text&root=three")
        no_text = await call("GET", f"{HERE}?format=markdown&root=map")

        assert named.text == "2"
        assert (unnamed.status_code, unnamed.json()["code"]) == (400, "invalid_request")
        assert (absent.status_code, absent.json()["code"]) == (404, "root_not_found")
        assert no_text.status_code == 400


async def test_a_room_that_is_none_is_not_found_and_not_made() -> None:
    async with open_api() as call:
        answer = await call("GET", HERE)

        assert (answer.status_code, answer.json()["code"]) == (404, "room_not_found")
        assert call.house.replica.live("r") is None


async def test_a_created_room_is_empty() -> None:
    async with open_api() as call:
        await call.create()

        answer = await call("GET", HERE)

        assert (answer.status_code, answer.json()) == (200, {})


async def test_the_etag_names_epoch_and_position() -> None:
    async with open_api() as call:
        saved = await splice(call, "hi")

        answer = await call("GET", HERE)

        tag = f'"{saved["epoch"]}-1"'
        assert saved["position"] == 1
        assert answer.headers["etag"] == tag
        known = await call("GET", HERE, headers={"if-none-match": f'"x", W/{tag}'})
        assert (known.status_code, known.content) == (304, b"")
        assert known.headers["etag"] == tag
        await splice(call, "!")
        assert (
            await call("GET", HERE, headers={"if-none-match": tag})
        ).status_code == 200


async def test_head_is_get_without_a_body() -> None:
    async with open_api() as call:
        await splice(call, "hi")

        answer = await call("HEAD", HERE)

        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["etag"].endswith('-1"')


async def test_caches_are_told_what_an_answer_depends_on() -> None:
    async with open_api() as call:
        await splice(call, "hi")

        answer = await call("GET", HERE, headers={"origin": "http://localhost"})

        assert {each.strip() for each in answer.headers["vary"].split(",")} == {
            "accept",
            "origin",
        }


async def test_only_what_a_state_vector_lacks_is_sent() -> None:
    async with open_api() as call:
        mine: Doc[Any] = Doc()
        await splice(call, "first ")
        mine.apply_update((await call("GET", f"{HERE}?format=update")).content)
        await splice(call, "second", 6)
        vector = base64.urlsafe_b64encode(mine.get_state()).decode().rstrip("=")

        answer = await call("GET", f"{HERE}?state_vector={vector}")
        whole = await call("GET", f"{HERE}?format=update")

        mine.apply_update(answer.content)
        assert str(mine.get("text", type=Text)) == "first second"
        assert len(answer.content) < len(whole.content)


@pytest.mark.parametrize("vector", ["A", "_____w", "AQ", "a+b", ""])
async def test_a_bad_state_vector_is_refused(vector: str) -> None:
    async with open_api() as call:
        await splice(call, "hi")

        answer = await call("GET", f"{HERE}?state_vector={vector}")

        assert answer.status_code == 400


async def test_a_reader_can_wait_for_a_position() -> None:
    async with open_api() as call:
        await splice(call, "one")
        reading = asyncio.ensure_future(call("GET", f"{HERE}?min_position=2"))
        await asyncio.sleep(0)

        await splice(call, "two ")

        assert (await reading).json() == {"text": "two one"}


async def test_a_position_that_does_not_come_is_not_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("collab.replica.LOGGED_SECONDS", 0.05)
    async with open_api() as call:
        await splice(call, "one")

        answer = await call("GET", f"{HERE}?min_position=2")

        assert (answer.status_code, answer.json()["code"]) == (425, "not_yet")
        assert "retry-after" in answer.headers


async def test_rights_that_end_while_a_reader_waits_are_gone() -> None:
    async with open_api() as call:
        await splice(call, "one")
        call.may("eve", READ)
        reading = asyncio.ensure_future(
            call("GET", f"{HERE}?min_position=2", token="eve")
        )
        for _ in range(50):
            await asyncio.sleep(0)
        assert call.house.replica.rooms[0].watchers

        call.house.access.registry.revoke("eve")
        await splice(call, "two")

        assert (await reading).status_code == 401


# Edits


async def test_an_edit_makes_the_room_and_is_logged_with_its_author() -> None:
    async with open_api() as call:
        call.may("bot", READ | WRITE)

        saved = await splice(call, "hi", token="bot")

        (row,) = await call.house.replica.store.history("r")
        assert (row.author.principal, row.position) == ("bot", saved["position"])


async def test_members_see_an_edit() -> None:
    async with open_api() as call:
        call.house.table.add("eve", READ)
        eve = await call.house.y_websocket("eve")

        await splice(call, "hello")

        await eve.until(lambda: eve.heard(b"\x00\x02"))
        eve.doc.apply_update(Reader(eve.heard(b"\x00\x02")[0], 2).read_bytes())
        assert str(eve.text) == "hello"


async def test_a_document_is_edited_by_path() -> None:
    async with open_api() as call:
        operations = [
            {"op": "add", "path": "/todos", "value": ["a", {"b": [1]}]},
            {"op": "replace", "path": "/todos/1/b/0", "value": 2, "more": "ignored"},
            {"op": "copy", "from": "/todos/1", "path": "/todos/-"},
            {"op": "test", "path": "/todos/0", "value": "a"},
        ]

        answer = await call("PATCH", HERE, json=operations, headers=PATCH)

        assert answer.status_code == 200
        assert (await call("GET", HERE)).json() == {
            "todos": ["a", {"b": [2]}, {"b": [2]}]
        }


async def test_a_text_is_edited_by_words_and_as_a_whole() -> None:
    async with open_api() as call:
        await splice(call, "one two three")
        wanted = [{"root": "text", "old": "two", "new": "2"}]

        replaced = await call("PATCH", HERE, json={"replacements": wanted})
        whole = await call(
            "PATCH", HERE, json={"text": {"root": "text", "content": "one 2 3"}}
        )

        assert (replaced.status_code, whole.status_code) == (200, 200)
        assert (await call("GET", HERE)).json() == {"text": "one 2 3"}


@pytest.mark.parametrize(
    ("body", "code", "positions"),
    [
        (
            {"replacements": [{"root": "text", "old": "x", "new": ""}]},
            "text_not_found",
            None,
        ),
        (
            {"replacements": [{"root": "text", "old": "a", "new": ""}]},
            "ambiguous_text",
            [0, 4],
        ),
        ({"splices": [{"root": "text", "index": 99}]}, "conflict", None),
    ],
)
async def test_what_does_not_fit_the_document_is_a_conflict(
    body: dict[str, Any], code: str, positions: list[int] | None
) -> None:
    async with open_api() as call:
        await splice(call, "a b a")

        answer = await call("PATCH", HERE, json=body)

        assert (answer.status_code, answer.json()["code"]) == (409, code)
        assert answer.json().get("positions") == positions
        assert (await call("GET", HERE)).json() == {"text": "a b a"}


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"splices": []} | {"text": {"root": "text", "content": ""}},
        {"splices": [{"root": "text", "index": -1}]},
        {"splices": [{"root": "text", "index": True}]},
        {"splices": [{"root": "text", "index": 0, "insert": 5}]},
        {"splices": [{"root": "text", "index": 0}] * 1001},
        {"replacements": [{"root": "text", "old": "", "new": ""}]},
    ],
)
async def test_a_body_that_is_no_edit_is_refused(body: Any) -> None:
    async with open_api() as call:
        answer = await call("PATCH", HERE, json=body)

        assert answer.status_code == 400


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "add", "path": "/a/b"},
        {"op": "frobnicate", "path": "/a"},
        {"op": "move", "path": "/a"},
        {"op": "remove", "path": "a"},
        {"op": "remove", "path": "/a~3"},
        {"op": "add", "path": "/a", "value": 5},
        {"op": "add", "path": "/a/b", "value": 1 << 60},
        {"path": "/a"},
        "remove",
    ],
    ids=str,
)
async def test_what_is_no_patch_is_refused(operation: Any) -> None:
    async with open_api() as call:
        answer = await call("PATCH", HERE, json=[operation], headers=PATCH)

        assert answer.status_code == 400
        assert call.house.replica.live("r") is None


async def test_an_edit_is_made_only_while_the_document_is_what_was_read() -> None:
    async with open_api() as call:
        await splice(call, "one")
        tag = (await call("GET", HERE)).headers["etag"]
        await splice(call, "two ")

        late = await call(
            "PATCH", HERE, json={"splices": []}, headers={"if-match": tag}
        )
        future = await call(
            "POST", UPDATE, content=b"\0\0", headers=BYTES | {"if-match": '"x-99"'}
        )
        now = (await call("GET", HERE)).headers["etag"]
        timely = await call(
            "PATCH", HERE, json={"splices": []}, headers={"if-match": f'"a", {now}'}
        )

        assert (late.status_code, late.json()["code"]) == (412, "precondition_failed")
        assert future.status_code == 412
        assert timely.status_code == 200


async def test_an_edit_that_changes_nothing_adds_nothing_to_the_log() -> None:
    async with open_api() as call:
        saved = await splice(call, "one")

        again = await call(
            "PATCH", HERE, json={"text": {"root": "text", "content": "one"}}
        )

        assert again.json() == saved


async def test_an_edit_sent_again_with_its_key_is_made_once() -> None:
    async with open_api() as call:
        key = {"idempotency-key": "k1"}

        first = await splice(call, "one", headers=key)
        second = await splice(call, "one", headers=key)

        assert first == second
        assert (await call("GET", HERE)).json() == {"text": "one"}


async def test_whoever_may_only_read_cannot_edit_and_learns_nothing() -> None:
    async with open_api() as call:
        call.may("reader", READ)
        call.may("writer", WRITE)

        for path, method in ((HERE, "PATCH"), (UPDATE, "POST")):
            answer = await call(method, path, content=b"?", token="reader")
            assert answer.status_code == 403
        blind = await call("PATCH", HERE, json={"splices": []}, token="writer")

        assert blind.status_code == 403
        assert (await call("GET", HERE, token="writer")).status_code == 403
        assert call.house.replica.live("r") is None


async def test_keys_and_roots_of_a_document_do_not_reach_the_log() -> None:
    with capture_logs() as lines:
        async with open_api() as call:
            await splice(call, "hi")
            body = [{"op": "remove", "path": "/confidential/key"}]

            edited = await call("PATCH", HERE, json=body, headers=PATCH)
            read = await call("GET", f"{HERE}?format=text&root=confidential")

            assert "confidential" in edited.json()["detail"]
            assert "confidential" in read.json()["detail"]
    written = str(lines)
    assert "request refused" in written
    assert "confidential" not in written


# Updates


async def test_only_what_an_update_brings_is_logged() -> None:
    async with open_api() as call:
        content = update(text=Text("hi"))

        first = await call("POST", UPDATE, content=content, headers=BYTES)
        second = await call("POST", UPDATE, content=content, headers=BYTES)

        assert first.json() == second.json()
        assert first.json()["position"] == 1


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", "truncated"),
        (b"\x01\x01", "section"),
        (b"\xff\xff\xff\xff\x0f", "count"),
        (b"\x01\x00\x05\x00\x00", "empty section"),
        (b"\x00\x00\x00", "trailing bytes"),
        (b"\x01\x01\xff\xff\xff\xff\xff\xff\xff\x7f\x00\x00\x01\x00", "client id"),
    ],
)
async def test_a_bad_update_is_refused_by_the_same_rule_as_on_a_socket(
    content: bytes, rule: str
) -> None:
    async with open_api() as call:
        answer = await call("POST", UPDATE, content=content, headers=BYTES)

        assert (answer.status_code, answer.json()["code"]) == (400, "refused")
        assert answer.json()["rule"] == rule
        assert call.metrics.refusals[rule] == 1


async def test_an_update_that_is_too_large_is_refused() -> None:
    async with open_api(max_update_bytes=2000) as call:
        content = update(text=Text("x" * 3000))

        answer = await call("POST", UPDATE, content=content, headers=BYTES)

        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


async def test_a_broken_document_is_rebuilt(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_api() as call:
        await splice(call, "saved")
        room = call.house.replica.live("r")
        assert room is not None
        before = room.document

        def panic(*about: object, **more: object) -> None:
            raise document.DocumentBroken("native code failed")

        monkeypatch.setattr(before, "apply", panic)
        answer = await call(
            "POST", UPDATE, content=update(text=Text("x")), headers=BYTES
        )

        assert (answer.status_code, answer.json()["code"]) == (500, "document_broken")
        assert (await call("GET", HERE)).json() == {"text": "saved"}
        assert room.document is not before


# When nothing can be saved


class Failing(MemoryStore):
    """A store whose disk can be full."""

    is_full = False

    def append(self, entries: Any, done: Any) -> None:
        if self.is_full:
            loop = asyncio.get_running_loop()
            loop.call_soon(done, entries, StoreUnavailable("the disk is full"))
        else:
            super().append(entries, done)


async def test_an_edit_that_cannot_be_saved_is_not_confirmed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("collab.replica.LOGGED_SECONDS", 0.2)
    store = Failing()
    async with open_api(store=store) as call:
        await splice(call, "saved")
        store.is_full = True
        splices = [{"root": "text", "index": 0, "insert": "lost "}]

        first = await call("PATCH", HERE, json={"splices": splices})
        second = await call("PATCH", HERE, json={"splices": splices})
        read = await call("GET", HERE)

        assert (first.status_code, first.json()["code"]) == (503, "store_unavailable")
        assert second.status_code == 503
        assert "retry-after" in second.headers
        assert read.status_code == 200
        assert "etag" not in read.headers
        store.is_full = False


# Client ids


async def test_a_principal_writes_in_a_room_under_one_id_of_its_own() -> None:
    async with open_api() as call:
        call.may("ada", READ | WRITE)
        call.may("bob", READ | WRITE)

        for token in ("ada", "bob", "ada", "ada"):
            await splice(call, token, token=token)

        room = call.house.replica.live("r")
        assert room is not None
        owners = {}
        for client, owner in room.document.owners.items():
            owners.setdefault(owner, []).append(client)
        assert {owner: len(clients) for owner, clients in owners.items()} == {
            "ada": 1,
            "bob": 1,
        }
        assert room.document.conflicts == 0


async def test_an_id_is_not_taken_up_again_when_the_room_is_opened_anew() -> None:
    async with open_api(idle_room_seconds=0) as call:
        await splice(call, "one")
        replica = call.house.replica
        replica._evict()
        assert replica.live("r") is None

        await splice(call, "two")

        room = replica.live("r")
        assert room is not None
        assert len(room.document.gate.known) == 2


async def test_an_edit_goes_in_whole_however_long_native_code_takes() -> None:
    async with open_api() as call:
        await splice(call, "!")
        room = call.house.replica.live("r")
        assert room is not None
        room.document._clock = slow()
        splices = [{"root": "text", "index": 0, "insert": "ab"} for _ in range(600)]

        answer = await call("PATCH", HERE, json={"splices": splices})

        assert answer.status_code == 200, answer.text
        read = await call("GET", HERE)
        assert read.json()["text"] == "ab" * 600 + "!"


async def test_what_a_copied_client_writes_is_refused_over_http() -> None:
    texts = [Doc(client_id=7) for _ in range(2)]
    for doc, words in zip(texts, ("mine", "its own"), strict=True):
        doc.get("text", type=Text).insert(0, words)
    first, second = (doc.get_update() for doc in texts)
    async with open_api() as call:
        kept = await call("POST", UPDATE, content=first, headers=BYTES)

        refused = await call("POST", UPDATE, content=second, headers=BYTES)
        again = await call("POST", UPDATE, content=first, headers=BYTES)

        assert (kept.status_code, again.status_code) == (200, 200)
        assert refused.status_code == 409
        assert refused.json()["code"] == "client_id_conflict"


async def test_the_tables_of_drafts_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("collab.server.api.drafts.MAX_KEPT_BYTES", 2500)
    monkeypatch.setattr("collab.server.api.drafts.MAX_WRITERS", 2)
    async with open_api() as call:
        for token in ("ada", "bob", "eve"):
            call.may(token, READ | WRITE)
            await splice(call, "x", token=token)
        for room in ("s", "t", "u"):
            body = {"splices": [{"root": "text", "index": 0, "insert": "x"}]}
            await call("PATCH", f"/v1/rooms/{room}/document", json=body)

        drafts = find(call)
        live = call.house.replica.live("r")
        assert live is not None
        assert len(drafts._kept) == 2
        assert drafts._bytes <= 2500
        assert len(drafts._clients[live]) == 2


def find(call: Caller) -> Drafts:
    """Of the running API."""
    for route in call.app.routes:
        if getattr(route, "path", "") == "/v1":
            drafts = route.app.drafts
            assert isinstance(drafts, Drafts)
            return drafts
    raise AssertionError("there is no API")
