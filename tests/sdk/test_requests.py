"""Requests of the SDK: what is tried again and what is not, and what a refusal becomes."""

from __future__ import annotations

import random

import pytest
from answering import answer, answering, problem

from collab.sdk import requests
from collab.sdk.errors import (
    Cancelled,
    Conflict,
    Forbidden,
    Invalid,
    LeaseLost,
    NotFound,
    RateLimited,
    Refused,
    SdkError,
    StaleVersion,
    Unavailable,
)
from collab.sdk.history import History
from collab.sdk.requests import Requests


class Never(random.Random):
    """The shortest of all pauses."""

    def uniform(self, a: float, b: float) -> float:
        return 0.0


def impatient(address: str, token: str = "") -> Requests:
    async def show() -> str:
        return token

    return Requests(address, show, chance=Never())


@pytest.mark.anyio
async def test_the_token_is_the_one_of_now() -> None:
    tokens = iter(["first", "second"])

    async def show() -> str:
        return next(tokens)

    async with (
        answering(answer(200, {})) as server,
        Requests(server.address, show) as asking,
    ):
        await asking.get("/v1/rooms")
        await asking.get("/v1/rooms")

    assert [each.headers["authorization"] for each in server.asked] == [
        "bearer first",
        "bearer second",
    ]


@pytest.mark.anyio
async def test_what_is_not_asked_for_is_not_in_the_query() -> None:
    async with (
        answering(answer(200, {})) as server,
        impatient(server.address) as asking,
    ):
        await asking.get("/v1/rooms/a%2Fb/blame", root=None, start=0, end=5)

    assert server.asked[0].line == "GET /v1/rooms/a%2Fb/blame?start=0&end=5 HTTP/1.1"


@pytest.mark.anyio
@pytest.mark.parametrize(
    "first",
    [
        None,
        problem(503, "busy"),
        problem(503, "draining"),
        problem(429, "rate_limited", retry_after="0"),
        answer(502, b"<html>a proxy</html>"),
    ],
)
async def test_an_order_is_sent_again_under_the_same_key(first: bytes | None) -> None:
    async with (
        answering(first, answer(200, {"position": 7})) as server,
        impatient(server.address) as asking,
    ):
        done = await asking.post("/v1/rooms/r/turns/t/undo", {})

    assert done.json() == {"position": 7}
    keys = [each.headers["idempotency-key"] for each in server.asked]
    assert len(keys) == 2
    assert len(set(keys)) == 1


@pytest.mark.anyio
async def test_two_orders_have_two_keys() -> None:
    async with (
        answering(answer(200, {})) as server,
        impatient(server.address) as asking,
    ):
        await asking.post("/v1/rooms/r/turns/t/undo")
        await asking.post("/v1/rooms/r/turns/t/undo")

    keys = [each.headers["idempotency-key"] for each in server.asked]
    assert len(set(keys)) == 2


@pytest.mark.anyio
async def test_an_order_whose_first_attempt_is_under_way_is_waited_for() -> None:
    under_way = problem(
        409, "conflict", "a request with this Idempotency-Key is under way"
    )
    async with (
        answering(None, under_way, answer(200, {"changed": True})) as server,
        impatient(server.address) as asking,
    ):
        done = await asking.post("/v1/rooms/r/turns/t/undo", {})

    assert done.json() == {"changed": True}


@pytest.mark.anyio
async def test_after_some_attempts_the_server_is_unavailable() -> None:
    async with answering(None) as server, impatient(server.address) as asking:
        with pytest.raises(Unavailable):
            await asking.get("/v1/rooms")

    assert len(server.asked) == requests.ATTEMPTS


@pytest.mark.anyio
async def test_a_server_that_is_not_there_is_unavailable() -> None:
    async with answering(answer(200, {})) as server:
        address = server.address

    async with impatient(address) as asking:
        with pytest.raises(Unavailable):
            await asking.get("/v1/rooms")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("said", "error"),
    [
        (problem(401, "unauthenticated"), Forbidden),
        (problem(403, "permission_denied"), Forbidden),
        (problem(404, "room_not_found"), NotFound),
        (problem(410, "history_gone"), NotFound),
        (problem(409, "conflict"), Conflict),
        (problem(409, "turn_cancelled"), Cancelled),
        (problem(409, "lease_lost"), LeaseLost),
        (problem(412, "precondition_failed"), StaleVersion),
        (problem(400, "invalid_request"), Invalid),
        (answer(404, b"<html>not ours</html>"), Refused),
        (answer(302, b"", location="http://127.0.0.1:1/"), Refused),
    ],
)
async def test_what_is_refused_is_told_by_name_and_not_asked_again(
    said: bytes, error: type[SdkError]
) -> None:
    async with answering(said) as server, impatient(server.address, "secret") as asking:
        with pytest.raises(error) as caught:
            await asking.get("/v1/rooms")

    assert type(caught.value) is error
    assert "secret" not in str(caught.value)
    assert len(server.asked) == 1


@pytest.mark.anyio
async def test_who_has_to_wait_long_is_told_how_long() -> None:
    limited = problem(429, "rate_limited", retry_after="120")
    async with answering(limited) as server, impatient(server.address) as asking:
        with pytest.raises(RateLimited) as caught:
            await asking.get("/v1/rooms")

    assert caught.value.retry_seconds == 120
    assert len(server.asked) == 1


@pytest.mark.anyio
async def test_an_answer_without_an_end_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(requests, "MAX_ANSWER_BYTES", 1000)
    async with (
        answering(answer(200, b"x" * 5000)) as server,
        impatient(server.address) as asking,
    ):
        with pytest.raises(Refused):
            await asking.get("/v1/rooms")


@pytest.mark.anyio
async def test_what_is_no_json_is_refused() -> None:
    async with (
        answering(answer(200, b"<html>")) as server,
        impatient(server.address) as asking,
    ):
        found = await asking.get("/v1/rooms")

    with pytest.raises(Refused):
        found.json()


@pytest.mark.anyio
async def test_who_asks_after_a_refusal_hears_of_it() -> None:
    asking = impatient("http://127.0.0.1:9")
    await asking.aclose(Forbidden("the token has ended"))

    with pytest.raises(Forbidden, match="the token has ended"):
        await asking.get("/v1/rooms")


@pytest.mark.anyio
async def test_nothing_is_asked_once_it_is_closed() -> None:
    async with answering(answer(200, {})) as server:
        asking = impatient(server.address)
        await asking.aclose()

        with pytest.raises(Unavailable):
            await asking.get("/v1/rooms")

    assert not server.asked


@pytest.mark.anyio
async def test_what_is_no_text_is_not_asked_for() -> None:
    half = "\ud83d"  # of a surrogate pair
    async with answering() as server, impatient(server.address) as asking:
        history = History(asking, "garden")
        for question in (
            history.blame(path=f"/{half}"),
            history.turn(half),
            history.undo("t", reason=half),
            history.cancel("t", half),
        ):
            with pytest.raises(Invalid):
                await question

    assert server.asked == []
