"""What is the same for every route: where to, who asks, what is read and what is answered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from itertools import count
from time import process_time

import pytest
from calling import open_api

from collab import replica
from collab.auth.permissions import EVERYTHING, READ
from collab.errors import InvalidRequest
from collab.server.api import dispatch, models, reading
from collab.server.api.dispatch import SMALL_BODY_BYTES
from collab.store.base import Done, Entry
from collab.store.memory import MemoryStore

pytestmark = pytest.mark.anyio

JSON = {"content-type": "application/json"}


async def test_an_error_is_a_problem_with_a_stable_code() -> None:
    async with open_api() as call:
        answer = await call("GET", "/v1/rooms/absent")

        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json() == {
            "title": "room not found",
            "status": 404,
            "detail": "there is no such room",
            "code": "room_not_found",
        }


@pytest.mark.parametrize(
    "path", ["/v1", "/v1/", "/v1/nothing", "/v1/rooms/", "/v1/rooms/a/b", "/v1//rooms"]
)
async def test_an_address_without_a_route_is_not_found(path: str) -> None:
    async with open_api() as call:
        answer = await call("GET", path)

        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_a_method_that_is_not_there_is_told_those_that_are() -> None:
    async with open_api() as call:
        answer = await call("DELETE", "/v1/rooms")

        assert answer.status_code == 405
        assert answer.headers["allow"] == "GET, POST, HEAD, OPTIONS"


@pytest.mark.parametrize(
    "name", ["x-http-method-override", "x-http-method", "x-method-override"]
)
async def test_a_method_in_a_header_counts_for_nothing(name: str) -> None:
    async with open_api() as call:
        await call.create()

        answer = await call("GET", "/v1/rooms/r", headers={name: "DELETE"})

        assert answer.status_code == 200
        assert (await call("GET", "/v1/rooms/r")).status_code == 200


async def test_head_is_get_without_a_body() -> None:
    async with open_api() as call:
        answer = await call("HEAD", "/v1/rooms")

        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-type"] == "application/json"


async def test_options_names_the_methods_without_a_token() -> None:
    async with open_api() as call:
        answer = await call("OPTIONS", "/v1/rooms", token="")

        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["allow"] == "GET, POST, HEAD, OPTIONS"


async def test_an_allowed_origin_may_read_what_it_asks_for() -> None:
    origin = "https://app.example.com"
    async with open_api(allowed_origins=(origin,)) as call:
        answer = await call("GET", "/v1/rooms", headers={"origin": origin})

        assert answer.headers["access-control-allow-origin"] == origin
        assert answer.headers["vary"] == "origin"


async def test_an_allowed_origin_may_ask_before_it_writes() -> None:
    origin = "https://app.example.com"
    async with open_api(allowed_origins=(origin,)) as call:
        answer = await call(
            "OPTIONS",
            "/v1/rooms",
            token="",
            headers={"origin": origin, "access-control-request-method": "POST"},
        )

        assert answer.status_code == 204
        assert "POST" in answer.headers["access-control-allow-methods"]
        assert "authorization" in answer.headers["access-control-allow-headers"]


async def test_a_foreign_origin_gets_no_permission() -> None:
    async with open_api() as call:
        answer = await call(
            "OPTIONS",
            "/v1/rooms",
            headers={
                "origin": "https://evil.example",
                "access-control-request-method": "POST",
            },
        )

        assert answer.status_code == 403
        assert not [name for name in answer.headers if name.startswith("access-")]


async def test_without_a_token_nothing_is_told() -> None:
    async with open_api() as call:
        answer = await call("GET", "/v1/rooms/r", token="")

        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_absent_and_forbidden_rooms_are_answered_alike() -> None:
    async with open_api() as call:
        call.may("eve", READ, "other/")
        await call.create("there")

        there, absent = [
            await call("GET", f"/v1/rooms/{name}", token="eve")
            for name in ("there", "absent")
        ]

        assert (there.status_code, there.content) == (403, absent.content)
        assert set(there.headers) == set(absent.headers)


async def test_every_answer_has_an_id_and_is_not_sniffed() -> None:
    async with open_api() as call:
        answers = [await call("GET", f"/v1/{path}") for path in ("rooms", "nothing")]

        ids = {answer.headers["x-request-id"] for answer in answers}
        assert len(ids) == 2
        assert {answer.headers["x-content-type-options"] for answer in answers} == {
            "nosniff"
        }


async def test_requests_are_counted_by_route_and_class() -> None:
    async with open_api() as call:
        for path in ("rooms", "rooms/one", "rooms/two", "nothing"):
            await call("GET", f"/v1/{path}")

        assert call.metrics.requests == {
            ("GET /v1/rooms", "2xx"): 1,
            ("GET /v1/rooms/{room}", "4xx"): 2,
            ("other", "4xx"): 1,
        }


@pytest.mark.parametrize(
    ("kind", "encoding"),
    [
        ("", ""),
        ("text/plain", ""),
        ("multipart/form-data; boundary=x", ""),
        ("application/x-www-form-urlencoded", ""),
        ("application/json; charset=utf-16", ""),
        ("application/json", "gzip"),
    ],
)
async def test_a_body_of_another_kind_is_refused(kind: str, encoding: str) -> None:
    headers = {"content-type": kind} if kind else {}
    if encoding:
        headers["content-encoding"] = encoding
    async with open_api() as call:
        answer = await call(
            "POST", "/v1/rooms", headers=headers, content=b'{"name": "r"}'
        )

        assert (answer.status_code, answer.json()["code"]) == (
            415,
            "unsupported_media_type",
        )


async def test_the_type_of_a_body_may_name_utf8() -> None:
    async with open_api() as call:
        answer = await call(
            "POST",
            "/v1/rooms",
            headers={"content-type": 'Application/JSON; charset="UTF-8"'},
            content=b'{"name": "r"}',
        )

        assert answer.status_code == 201


def test_what_does_not_belong_in_a_body_costs_little() -> None:
    raw = b'{"x": [' + b",".join([b"[]"] * 300_000) + b"]}"
    begun = process_time()

    with pytest.raises(InvalidRequest):
        reading.body(models.Edits, raw)

    assert process_time() - begun < 3 * _parsing_seconds(raw)


def _parsing_seconds(raw: bytes) -> float:
    begun = process_time()
    reading.read_json(raw)
    return process_time() - begun


async def test_who_has_kept_the_process_busy_is_let_in_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = count(step=10)
    async with open_api() as call:
        call.may("eve", EVERYTHING)
        monkeypatch.setattr(dispatch, "thread_time", lambda: next(seconds))

        first, second, other = [
            await call("POST", "/v1/rooms", token=token, json={"name": name})
            for token, name in (("eve", "a"), ("eve", "b"), ("root", "c"))
        ]

        assert (first.status_code, other.status_code) == (201, 201)
        assert (second.status_code, second.json()["code"]) == (429, "rate_limited")
        assert int(second.headers["retry-after"]) > 30


async def test_a_body_is_counted_while_it_comes() -> None:
    async def long() -> AsyncIterator[bytes]:
        for _ in range(SMALL_BODY_BYTES // 1024 + 1):
            yield b" " * 1024

    async with open_api() as call:
        answer = await call("POST", "/v1/rooms", headers=JSON, content=long())

        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "/v1/rooms/r", b'{"metadata": {"a": 1}}'),
        ("POST", "/v1/revocations", b'{"principal": "ada"}'),
        ("POST", "/v1/keys", b'{"principal": "mallory", "grants": []}'),
        ("POST", "/v1/rooms", b'{"name": "s"}'),
        ("POST", "/v1/tickets", b"{}"),
    ],
)
async def test_rights_that_end_while_a_body_comes_are_gone(
    method: str, path: str, body: bytes
) -> None:
    async with open_api() as call:
        await call.create()
        call.may("eve", EVERYTHING)

        async def slow() -> AsyncIterator[bytes]:
            yield body[:1]
            call.house.access.registry.revoke("eve")
            yield body[1:]

        answer = await call(method, path, token="eve", headers=JSON, content=slow())

        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "line 1, column 1"),
        (b'{"name": "r",}', "line 1, column 13"),
        (b'{"name":\n NaN}', "line 2, column 2"),
        (b'{"name": "\xff"}', "not JSON"),
        (b'{"name": "\\ud800"}', "not JSON"),
        (b'{"name": "r", "name": "s"}', "twice"),
        (b'{"name": "r", "metadata": {"a": 1, "a": 1}}', "twice"),
        (b'{"name": ' + b"[" * 5000, "not JSON"),
        (b'{"name": ' + b"[" * 65 + b"]" * 65 + b"}", "64 deep"),
        (b"1" * 5000, "not JSON"),
    ],
)
async def test_json_that_readers_disagree_about_is_refused(
    body: bytes, reason: str
) -> None:
    async with open_api() as call:
        answer = await call("POST", "/v1/rooms", headers=JSON, content=body)

        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
        assert reason in answer.json()["detail"]


async def test_what_is_wrong_in_a_body_is_pointed_at() -> None:
    async with open_api() as call:
        answer = await call(
            "POST",
            "/v1/rooms",
            json={"name": "r", "metadata": {"a/b~c": []}, "colour": "red"},
        )

        assert answer.status_code == 400
        pointers = [each["pointer"] for each in answer.json()["errors"]]
        assert "/colour" in pointers
        assert any(pointer.startswith("/metadata/a~1b~0c") for pointer in pointers)


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=1e2",
        "limit=+5",
        "limit=%EF%BC%95",
        "limit=",
        "limit=5&limit=5",
        "deleted=1",
        "colour=red",
        "prefix=%ff",
        "prefix=%zz",
        "&".join(f"x{n}=1" for n in range(1000)),
    ],
)
async def test_a_query_is_read_strictly(query: str) -> None:
    async with open_api() as call:
        answer = await call("GET", f"/v1/rooms?{query}")

        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


async def test_a_write_asked_for_twice_happens_once() -> None:
    async with open_api() as call:
        options = {"headers": {"idempotency-key": "k"}, "json": {"name": "r"}}

        first, second = [await call("POST", "/v1/rooms", **options) for _ in range(2)]

        assert first.status_code == second.status_code == 201
        assert first.content == second.content
        assert "idempotent-replay" not in first.headers
        assert second.headers["idempotent-replay"] == "true"


async def test_a_key_stands_for_one_request() -> None:
    async with open_api() as call:
        headers = {"idempotency-key": "k"}
        await call("POST", "/v1/rooms", headers=headers, json={"name": "r"})

        answer = await call("POST", "/v1/rooms", headers=headers, json={"name": "s"})

        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
        assert (await call("GET", "/v1/rooms/s")).status_code == 404


async def test_a_key_belongs_to_its_principal() -> None:
    async with open_api() as call:
        call.may("other", 31)
        headers = {"idempotency-key": "k"}
        await call("POST", "/v1/rooms", headers=headers, json={"name": "r"})

        answer = await call(
            "POST", "/v1/rooms", headers=headers, json={"name": "s"}, token="other"
        )

        assert answer.status_code == 201


async def test_a_request_that_failed_may_be_tried_again_with_its_key() -> None:
    async with open_api() as call:
        headers = {"idempotency-key": "k"}
        body = {"history_seconds": 5}
        first = await call("PATCH", "/v1/rooms/r", headers=headers, json=body)
        await call.create()

        second = await call("PATCH", "/v1/rooms/r", headers=headers, json=body)

        assert (first.status_code, second.status_code) == (404, 200)


async def test_of_two_requests_at_once_with_one_key_one_is_refused() -> None:
    async with open_api() as call:
        options = {"headers": {"idempotency-key": "k"}, "json": {"name": "r"}}

        answers = await asyncio.gather(
            *(call("POST", "/v1/rooms", **options) for _ in range(2))
        )

        assert sorted(answer.status_code for answer in answers) == [201, 409]


@pytest.mark.parametrize("key", ["", " ", "x" * 256, "a\tb", "\xe9"])
async def test_a_key_is_printable_ascii(key: str) -> None:
    async with open_api() as call:
        answer = await call(
            "POST",
            "/v1/rooms",
            headers={"idempotency-key": key.encode("latin-1")},
            json={"name": "r"},
        )

        assert answer.status_code == 400


async def test_a_secret_is_told_once() -> None:
    async with open_api() as call:
        headers = {"idempotency-key": "k"}
        body = {"principal": "bot", "grants": []}

        first, second = [
            await call("POST", "/v1/keys", headers=headers, json=body) for _ in range(2)
        ]

        assert first.status_code == 201
        assert first.headers["cache-control"] == "no-store"
        assert second.status_code == 409
        assert len(call.house.access.registry.keys()) == 1


async def test_a_bug_is_an_answer_without_its_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_api() as call:

        async def broken(*args: object, **options: object) -> None:
            raise RuntimeError("secret inside")

        monkeypatch.setattr(call.house.replica.store, "info", broken)

        answer = await call("GET", "/v1/rooms/r")

        assert (answer.status_code, answer.json()["code"]) == (500, "internal")
        assert "secret" not in answer.text


async def test_a_room_is_one_segment_of_the_path() -> None:
    async with open_api() as call:
        await call.create("team/plan")

        answer = await call("GET", "/v1/rooms/team%2Fplan")

        assert answer.json()["name"] == "team/plan"
        assert (await call("GET", "/v1/rooms/team/plan")).status_code == 404


async def test_the_document_is_json() -> None:
    async with open_api() as call:
        answer = await call("GET", "/v1/openapi.json", token="")

        assert json.loads(answer.content)["openapi"] == "3.1.0"


class Slow(MemoryStore):
    """A disk that takes what it is given, but only when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.is_stuck = False
        self.held: list[tuple[Sequence[Entry], Done]] = []

    def append(self, entries: Sequence[Entry], done: Done) -> None:
        if self.is_stuck:
            self.held.append((entries, done))
        else:
            super().append(entries, done)

    def go_on(self) -> None:
        self.is_stuck = False
        for entries, done in self.held:
            super().append(entries, done)


async def test_an_edit_that_was_not_saved_in_time_is_not_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Slow()
    async with open_api(store=store) as call:
        await call.create()
        options = {
            "headers": {"idempotency-key": "k"},
            "json": {"splices": [{"root": "text", "index": 0, "insert": "once"}]},
        }
        path = "/v1/rooms/r/document"
        monkeypatch.setattr(replica, "LOGGED_SECONDS", 0.05)
        store.is_stuck = True

        answers = [await call("PATCH", path, **options) for _ in range(2)]
        monkeypatch.undo()
        store.go_on()
        answers += [await call("PATCH", path, **options) for _ in range(2)]

        assert [answer.status_code for answer in answers] == [503, 503, 200, 200]
        assert answers[2].content == answers[3].content
        assert (await call("GET", f"{path}?format=text")).text == "once"


async def test_the_key_of_an_edit_that_is_not_saved_yet_stands_for_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Slow()
    async with open_api(store=store) as call:
        await call.create()
        monkeypatch.setattr(replica, "LOGGED_SECONDS", 0.05)
        store.is_stuck = True

        answers = [
            await call(
                "PATCH",
                "/v1/rooms/r/document",
                headers={"idempotency-key": "k"},
                json={"splices": [{"root": "text", "index": 0, "insert": word}]},
            )
            for word in ("one", "two", "one")
        ]
        store.go_on()

        assert [answer.status_code for answer in answers] == [503, 409, 503]
