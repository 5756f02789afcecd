"""The team's backend as a verifier: what it is asked, what its answers do, and what happens without one."""

from __future__ import annotations

import asyncio
import gc
import hmac
import json
import re
import time
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from endpoints import (
    Answering,
    Asked,
    Endpoint,
    answer,
    drip,
    endless,
    endpoint,
    garbage,
    hang_up,
    silence,
)
from logged import capture_logs

from collab.auth import webhook as module
from collab.auth.authority import Authority
from collab.auth.base import Credential, Rechecker
from collab.auth.permissions import PRESENCE, READ, WRITE, Principal
from collab.auth.webhook import Webhook
from collab.errors import (
    Busy,
    CollabError,
    ConfigurationError,
    PermissionDenied,
    Unauthenticated,
)

SECRET = b"0123456789abcdef0123456789abcdef"
TOKEN = Credential("session-of-alice", address="192.0.2.7")
YES: dict[str, Any] = {
    "principal": "alice",
    "operations": ["read", "write", "presence"],
}
ALL = READ | WRITE | PRESENCE


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Asking:
    """A webhook, its backend, and the clock that both are held by."""

    def __init__(self, webhook: Webhook, backend: Endpoint, clock: Clock) -> None:
        self.webhook, self.backend, self.clock = webhook, backend, clock

    async def verify(self, room: str = "notes") -> Principal:
        principal = await self.webhook.verify(TOKEN, room)
        assert principal is not None
        return principal

    async def settle(self) -> None:
        """Until what was asked in the background is answered."""
        flights = [
            each
            for each in asyncio.all_tasks()
            if "_contained" in getattr(each.get_coro(), "__qualname__", "")
        ]
        if flights:
            await asyncio.wait(flights)

    async def recheck(self, principal: Principal) -> Principal | None:
        """As the server does it: again and again, with what came back."""
        self.webhook.recheck(principal, "notes")
        await self.settle()
        return self.webhook.recheck(principal, "notes")


@asynccontextmanager
async def asking(answering: Answering, **options: Any) -> AsyncIterator[Asking]:
    clock = Clock()
    async with (
        endpoint(answering) as backend,
        Webhook(backend.url, SECRET, clock=clock, **options) as webhook,
    ):
        yield Asking(webhook, backend, clock)


@pytest.mark.anyio
async def test_the_backend_is_asked_with_token_room_and_address_and_a_signature():
    async with asking(answer(YES)) as it:
        await it.verify()

        (asked,) = it.backend.asked
        assert asked.method == "POST"
        assert asked.headers["content-type"] == "application/json"
        assert json.loads(asked.body) == {
            "token": "session-of-alice",
            "room": "notes",
            "address": "192.0.2.7",
        }
        timestamp = asked.headers["collab-timestamp"]
        assert abs(int(timestamp) - time.time()) < 60
        signed = hmac.digest(SECRET, f"{timestamp}.".encode() + asked.body, "sha256")
        assert asked.headers["collab-signature"] == f"sha256={signed.hex()}"


@pytest.mark.anyio
async def test_the_answer_says_who_it_is_and_what_it_may_do_in_this_room():
    expires = time.time() + 100
    said = YES | {
        "tenant": "acme",
        "kind": "agent",
        "name": "Alice",
        "expires": expires,
    }
    async with asking(answer(said)) as it:
        principal = await it.verify()

        assert (principal.id, principal.tenant, principal.kind, principal.name) == (
            "alice",
            "acme",
            "agent",
            "Alice",
        )
        assert principal.expires == expires
        assert principal.stamp == {"id": "alice", "name": "Alice", "kind": "agent"}
        assert principal.operations("notes") == ALL
        assert principal.operations("other") == 0
        assert principal.is_lent
        assert "session" not in repr(principal)


@pytest.mark.anyio
async def test_the_answer_may_say_who_acts_for_whom():
    said = YES | {"act": {"sub": "reviewer"}, "role": "executor"}
    async with asking(answer(said)) as it:
        principal = await it.verify()

        assert (principal.id, principal.kind) == ("reviewer", "agent")
        assert (principal.on_behalf_of, principal.role) == ("alice", "executor")


@pytest.mark.anyio
async def test_an_answer_holds_for_its_room_and_for_a_while():
    async with asking(answer(YES)) as it:
        await it.verify()
        it.clock.now += 5
        await it.verify()
        assert len(it.backend.asked) == 1

        await it.verify("other")
        assert len(it.backend.asked) == 2

        it.clock.now += 0.1
        await it.verify()
        assert len(it.backend.asked) == 3


@pytest.mark.anyio
async def test_who_asks_the_same_at_the_same_time_shares_one_question():
    async with asking(answer(YES)) as it:
        await asyncio.gather(*(it.verify() for _ in range(20)))

        assert len(it.backend.asked) == 1


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("status", "error"), [(401, Unauthenticated), (403, PermissionDenied)]
)
async def test_a_refusal_is_a_refusal_and_is_remembered_for_a_while(
    status: int, error: type[CollabError]
):
    async with asking(answer(b"", status)) as it:
        for _ in range(3):
            with pytest.raises(error):
                await it.verify()

        assert len(it.backend.asked) == 1


@pytest.mark.anyio
@pytest.mark.parametrize("status", [401, 403])
async def test_a_refusal_that_is_remembered_keeps_nothing_of_who_was_refused(
    status: int,
):
    class Request:
        """As a handler holds it while it asks."""

    async def ask(it: Asking) -> weakref.ref[Request]:
        request = Request()
        with pytest.raises(CollabError):
            await it.verify()
        return weakref.ref(request)

    async with asking(answer(b"", status)) as it:
        requests = [await ask(it) for _ in range(3)]
        gc.collect()

        assert [each() for each in requests] == [None, None, None]


BAD: list[tuple[str, Answering]] = [
    ("silent", silence),
    ("slow", drip),
    ("endless", endless),
    ("garbage", garbage),
    ("hung up", hang_up),
    ("500", answer(YES, 500)),
    ("201", answer(YES, 201)),
    ("204", answer(b"", 204)),
    ("404", answer(b"", 404)),
    ("a redirect", answer(b"", 307, location="http://169.254.169.254/")),
    ("too long", answer(YES | {"pad": "x" * 20_000})),
    ("no JSON", answer(b"yes")),
    ("a list", answer(b"[]")),
    ("a name twice", answer(b'{"principal":"a","principal":"b","operations":[]}')),
    ("nobody", answer({"operations": ["read"]})),
    ("a number for a name", answer(YES | {"principal": 7})),
    ("no operations", answer({"principal": "alice"})),
    ("a star", answer(YES | {"operations": ["*"]})),
    ("operations as text", answer(YES | {"operations": "write"})),
    ("a tenant with a separator", answer(YES | {"tenant": "a\x1fb"})),
    ("another kind", answer(YES | {"kind": "root"})),
    ("an end that is no time", answer(YES | {"expires": "never"})),
]


@pytest.mark.anyio
@pytest.mark.parametrize(("name", "answering"), BAD)
async def test_nobody_gets_in_without_a_proper_answer(name: str, answering: Answering):
    async with asking(answering, seconds=0.3) as it:
        with capture_logs() as lines, pytest.raises(Busy, match="backend"):
            await it.verify()

        assert [line["event"] for line in lines] == [
            "the webhook's backend gave no answer"
        ]
        assert "session" not in str(lines)


@pytest.mark.anyio
async def test_an_answer_that_has_ended_is_a_refusal():
    async with asking(answer(YES | {"expires": time.time() - 1})) as it:
        with pytest.raises(Unauthenticated):
            await it.verify()


@pytest.mark.anyio
async def test_a_backend_that_cannot_be_reached_is_left_alone_for_a_moment():
    async with asking(hang_up) as it:
        with capture_logs() as lines:
            for room in "abcdef":
                with pytest.raises(Busy):
                    await it.verify(room)
            assert len(it.backend.asked) == 1
            it.backend.answering = answer(YES)
            it.clock.now += 1

            await it.verify()

        assert len(it.backend.asked) == 2
        assert [line["log_level"] for line in lines] == ["warning", "info"]


@pytest.mark.anyio
async def test_a_token_that_makes_the_backend_fail_does_not_lock_out_the_others():
    async def answering(asked: Asked, writer: asyncio.StreamWriter) -> None:
        is_bad = json.loads(asked.body)["token"] == "bad"
        await (answer(b"", 500) if is_bad else answer(YES))(asked, writer)

    async with asking(answering) as it:
        with capture_logs(), pytest.raises(Busy):
            await it.webhook.verify(Credential("bad"), "notes")

        assert await it.verify()


@pytest.mark.anyio
@pytest.mark.parametrize("token", ["", "ck_abc.secret", "tk_secret"])
async def test_keys_and_tickets_of_ours_are_not_shown_to_the_backend(token: str):
    async with asking(answer(YES)) as it:
        assert await it.webhook.verify(Credential(token), "notes") is None
        assert it.backend.asked == []


@pytest.mark.anyio
@pytest.mark.parametrize("token", ["x" * 20_000, "é" * 9_000, "\ud800"])
async def test_a_token_that_is_none_is_not_shown_to_the_backend(token: str):
    async with asking(answer(YES)) as it:
        with pytest.raises(Unauthenticated):
            await it.webhook.verify(Credential(token), "notes")

        assert it.backend.asked == []


@pytest.mark.anyio
async def test_only_so_many_answers_are_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_ANSWERS", 2)
    async with asking(answer(YES)) as it:
        for room in ("a", "b", "a", "c", "a"):
            await it.verify(room)
        assert len(it.backend.asked) == 3

        await it.verify("b")
        assert len(it.backend.asked) == 4


# While somebody is in the room


@pytest.mark.anyio
async def test_the_backend_is_asked_again_before_its_answer_runs_out():
    async with asking(answer(YES)) as it:
        principal = await it.verify()

        for _ in range(20):
            it.clock.now += 1
            assert await it.recheck(principal) is principal

        assert 4 <= len(it.backend.asked) <= 8


@pytest.mark.anyio
async def test_other_operations_hold_from_the_next_answer_on():
    async with asking(answer(YES)) as it:
        principal = await it.verify()
        it.backend.answering = answer(YES | {"operations": ["read"]})
        it.clock.now += 3

        found = await it.recheck(principal)

        assert found is not None
        assert found.operations("notes") == READ


@pytest.mark.anyio
@pytest.mark.parametrize(("who", "asked"), [("", 2), ("alice", 2), ("bob", 1)])
async def test_an_answer_that_is_not_believed_any_more_is_asked_for_at_once(
    who: str, asked: int
):
    async with asking(answer(YES | {"principal": "alice"})) as it:
        principal = await it.verify()

        it.webhook.distrust("", who)
        it.webhook.distrust("another tenant")

        assert await it.recheck(principal) is principal
        assert len(it.backend.asked) == asked


@pytest.mark.anyio
async def test_an_answer_that_was_on_its_way_is_not_believed_for_long():
    arrived, gate = asyncio.Event(), asyncio.Event()

    async def late(asked: Asked, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await gate.wait()
        await answer(YES)(asked, writer)

    async with asking(late) as it:
        asking_first = asyncio.create_task(it.verify())
        await arrived.wait()
        it.webhook.distrust("")
        gate.set()
        principal = await asking_first
        it.backend.answering = answer(b"", 401)

        assert await it.recheck(principal) is None


@pytest.mark.anyio
async def test_a_refusal_is_forgotten_when_rights_have_changed():
    async with asking(answer(b"", 403)) as it:
        with pytest.raises(PermissionDenied):
            await it.verify()
        it.backend.answering = answer(YES)

        it.webhook.distrust("")

        assert await it.verify()


@pytest.mark.anyio
async def test_who_is_refused_on_the_next_question_is_out():
    async with asking(answer(YES)) as it:
        principal = await it.verify()
        it.backend.answering = answer(b"", 401)
        it.clock.now += 3

        assert await it.recheck(principal) is None


@pytest.mark.anyio
async def test_who_may_not_be_in_this_room_any_more_is_still_who_it_was():
    async with asking(answer(YES)) as it:
        principal = await it.verify()
        it.backend.answering = answer(b"", 403)
        it.clock.now += 3

        found = await it.recheck(principal)

        assert found is not None
        assert (found.id, found.operations("notes")) == ("alice", 0)


@pytest.mark.anyio
@pytest.mark.parametrize("change", [{"principal": "bob"}, {"tenant": "other"}])
async def test_nobody_becomes_somebody_else_on_the_way(change: dict[str, str]):
    async with asking(answer(YES)) as it:
        principal = await it.verify()
        it.backend.answering = answer(YES | change)
        it.clock.now += 3

        assert await it.recheck(principal) is None


@pytest.mark.anyio
async def test_without_an_answer_one_may_read_on_but_no_longer_write():
    async with asking(answer(YES)) as it:
        principal = await it.verify()
        it.backend.answering = answer(b"", 500)

        with capture_logs():
            it.clock.now += 5
            held = await it.recheck(principal)
            it.clock.now += 0.1
            lost = await it.recheck(principal)

        assert held is principal
        assert lost is not None
        assert lost.operations("notes") == READ | PRESENCE
        assert not lost.expires < principal.expires


@pytest.mark.anyio
async def test_while_the_backend_thinks_what_it_said_last_holds():
    gate = asyncio.Event()

    async def late(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        await answer(YES | {"operations": ["read"]})(asked, writer)

    async with asking(answer(YES)) as it:
        principal = await it.verify()
        it.backend.answering = late
        it.clock.now += 6

        assert it.webhook.recheck(principal, "notes") is principal
        gate.set()
        await it.settle()

        found = it.webhook.recheck(principal, "notes")
        assert found is not None
        assert found.operations("notes") == READ


@pytest.mark.anyio
async def test_the_backends_return_brings_writing_back():
    async with asking(answer(YES)) as it:
        principal = await it.verify()
        it.backend.answering = hang_up
        with capture_logs():
            it.clock.now += 6
            lost = await it.recheck(principal)
            assert lost is not None
            it.backend.answering = answer(YES)
            it.clock.now += 1.1

            found = await it.recheck(lost)

        assert found == principal


@pytest.mark.anyio
async def test_what_a_ticket_was_limited_to_stays_limited():
    async with asking(answer(YES)) as it:
        principal = await it.verify()
        limited = Principal(
            **{
                name: getattr(principal, name)
                for name in ("id", "kind", "name", "grants", "token", "is_lent")
            },
            room="notes",
            at_most=READ,
        )

        found = await it.recheck(limited)

        assert found is not None
        assert (found.room, found.at_most) == ("notes", READ)


@pytest.mark.anyio
async def test_who_was_forgotten_may_only_read(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_ANSWERS", 1)
    async with asking(answer(YES)) as it:
        principal = await it.verify()
        await it.verify("other")

        found = it.webhook.recheck(principal, "notes")

        assert found is not None
        assert found.operations("notes") == READ | PRESENCE


@pytest.mark.anyio
async def test_the_authority_asks_it_for_those_it_let_in_and_for_no_one_else():
    async with asking(answer(YES)) as it:
        authority = Authority([it.webhook])
        lent = await authority.authenticate(TOKEN, "notes")
        own = Principal("bob")

        assert isinstance(it.webhook, Rechecker)
        assert authority.recheck(lent, "notes") is lent
        assert authority.recheck(own, "notes") is own


@pytest.mark.parametrize("url", ["file:///etc/passwd", "http://169.254.169.254/", ""])
def test_an_address_that_nobody_may_be_asked_at_stops_the_start(url: str):
    with pytest.raises(ConfigurationError, match="webhook_url"):
        Webhook(url, SECRET)


@pytest.mark.anyio
async def test_the_answer_that_is_written_down_is_one():
    text = (Path(__file__).parents[2] / "deploy" / "README.md").read_text()
    (written,) = re.findall(r'^    (\{"principal".*\})$', text, flags=re.MULTILINE)

    async with asking(answer(json.loads(written))) as it:
        principal = await it.verify()

    assert principal.operations("notes") == ALL
