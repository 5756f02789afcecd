"""What a Hocuspocus client may do in each of its documents, and how it learns it."""

from __future__ import annotations

import asyncio
import time

import pytest
from peers import Hocuspocus, House, open_house

from collab.auth.permissions import PRESENCE, READ, WRITE
from collab.errors import (
    Busy,
    CollabError,
    PermissionDenied,
    RateLimited,
    Unauthenticated,
)
from collab.protocol import hocuspocus, yjs

pytestmark = pytest.mark.anyio

ALL = READ | WRITE | PRESENCE
APPLIED, REFUSED = 1, 0


async def join(
    house: House, token: str, version: str | None = None, **how: object
) -> Hocuspocus:
    peer = house.hocuspocus(**how)  # type: ignore[arg-type]
    peer.authenticate(token, version)
    await peer.until(lambda: peer.scopes)
    return peer


async def test_the_scope_says_what_a_client_may_do() -> None:
    async with open_house() as house:
        house.table.add("ada", ALL)
        house.table.add("eve", READ)

        ada, eve = await join(house, "ada"), await join(house, "eve")

        assert (ada.scopes, eve.scopes) == (["read-write"], ["readonly"])


async def test_a_wrong_token_costs_one_document() -> None:
    async with open_house() as house:
        house.table.add("ada", ALL)
        ada = await join(house, "ada")

        other = house.hocuspocus(beside=ada, room="other")
        other.authenticate("wrong")
        await other.until(lambda: other.denials)

        assert ada.close_code is None
        assert not other.scopes


async def test_a_token_is_good_for_the_room_of_its_address_only() -> None:
    async with open_house() as house:
        house.table.add("ada", ALL)
        ada = await join(house, "ada")

        other = house.hocuspocus(beside=ada, room="other")
        other.authenticate("ada")
        await other.until(lambda: other.denials)
        other.write("not for me")

        assert house.replica.live("other") is None


async def test_an_empty_token_falls_back_to_the_handshake_and_another_goes_before_it() -> (
    None
):
    async with open_house() as house:
        house.table.add("ada", ALL)
        house.table.add("eve", READ)

        shown = await join(house, "", shown="ada")
        said = await join(house, "eve", shown="ada")

        assert (shown.scopes, said.scopes) == (["read-write"], ["readonly"])


async def test_who_was_denied_is_not_listened_to_until_it_shows_another_token() -> None:
    async with open_house() as house:
        house.table.add("ada", ALL)
        ada = house.hocuspocus()
        ada.authenticate("wrong")
        await ada.until(lambda: ada.denials)

        for _ in range(200):
            ada.say(yjs.sync_step_1(b"\x00"))
        ada.authenticate("ada")
        await ada.until(lambda: ada.scopes)

        assert ada.close_code is None
        assert len(ada.heard(b"\x00\x01")) == 1  # not one for each question


async def test_what_a_reader_writes_is_answered_and_reaches_nobody() -> None:
    async with open_house() as house:
        house.table.add("ada", ALL)
        house.table.add("eve", READ)
        ada, eve = await join(house, "ada"), await join(house, "eve")

        eve.write("leak")
        eve.say(yjs.update_message(b"\xff" * 50))
        eve.say(yjs.sync_step_2(b"\xff" * 50))
        ada.write("sign")
        await eve.until(lambda: eve.heard(b"\x00\x02"))

        assert eve.statuses == [REFUSED, REFUSED, REFUSED]
        assert eve.close_code is None
        assert house.text() == "sign"
        assert not house.sockets.metrics.refusals


async def test_a_reader_with_nothing_of_its_own_counts_as_saved() -> None:
    async with open_house() as house:
        house.table.add("eve", READ)
        eve = await join(house, "eve")

        eve.ask()

        assert eve.statuses == [APPLIED]
        assert not eve.heard(b"\x00\x00")


async def test_a_reader_with_edits_of_its_own_does_not_count_as_saved() -> None:
    async with open_house() as house:
        house.table.add("eve", READ)
        eve = await join(house, "eve")
        eve.text.insert(0, "offline")

        eve.ask()

        assert eve.statuses == [REFUSED]


async def test_rights_that_change_are_told_in_place_and_refused_edits_asked_for() -> (
    None
):
    async with open_house() as house:
        house.table.add("eve", ALL)
        eve = await join(house, "eve")
        eve.ask()
        eve.answer()
        await eve.until(lambda: eve.statuses == [APPLIED])

        house.grant(eve, READ)
        eve.write("two")
        eve.write("one ")
        refused = list(eve.statuses)
        house.grant(eve, ALL)
        eve.answer()
        await eve.until(lambda: len(eve.statuses) == 5)

        assert eve.scopes == ["read-write", "readonly", "read-write"]
        assert refused == [APPLIED, REFUSED, REFUSED]
        assert eve.statuses[3:] == [APPLIED, APPLIED]
        assert house.text() == "one two"


async def test_a_token_is_renewed_on_an_open_document() -> None:
    async with open_house() as house:
        house.table.add("old", ALL, id="ada")
        house.table.add("new", READ, id="ada", name="Ada")
        ada = await join(house, "old")

        ada.authenticate("new")
        await ada.until(lambda: ada.scopes[1:])

        assert ada.scopes[-1] == "readonly"
        assert ada.socket.members()[0].user == {
            "id": "ada",
            "name": "Ada",
            "kind": "human",
        }


async def test_nobody_becomes_somebody_else_on_an_open_document() -> None:
    async with open_house() as house:
        house.table.add("ada", ALL)
        house.table.add("eve", ALL)
        ada = await join(house, "ada")

        ada.authenticate("eve")
        await ada.until(lambda: ada.denials)

        assert ada.socket.members() == []
        assert ada.close_code is None


async def test_a_wrong_token_on_an_open_document_ends_it() -> None:
    async with open_house() as house:
        house.table.add("ada", ALL)
        ada = await join(house, "ada")

        ada.authenticate("wrong")
        await ada.until(lambda: ada.denials)

        assert ada.socket.members() == []


@pytest.mark.parametrize("fault", [Busy("later"), RateLimited("too many")])
async def test_a_token_that_nobody_can_judge_now_is_asked_for_again(
    fault: CollabError,
) -> None:
    async with open_house() as house:
        house.table.add("old", ALL, id="ada", expires=time.time() + 20)
        house.table.add("new", ALL, id="ada", expires=time.time() + 200)
        ada = await join(house, "old")
        ada.socket.beat()

        house.table.fault = fault
        ada.authenticate("new")
        await asyncio.sleep(0)
        ada.socket.beat()
        house.table.fault = None
        ada.authenticate("new")
        await ada.until(lambda: ada.scopes[1:])
        ada.socket.beat()

        assert ada.messages.count(hocuspocus.TOKEN_REQUEST) == 2
        assert not ada.denials


async def test_who_was_denied_for_the_moment_may_ask_again_with_the_same_token() -> (
    None
):
    async with open_house() as house:
        house.table.add("ada", ALL)
        house.table.add("other", ALL, room="other")
        other = await join(house, "other", room="other")
        ada = house.hocuspocus(beside=other)
        house.table.fault = Busy("later")
        ada.authenticate("ada")
        await ada.until(lambda: ada.denials)

        house.table.fault = None
        ada.authenticate("ada")
        await ada.until(lambda: ada.scopes)

        assert ada.close_code is None


async def test_tokens_are_not_verified_without_end() -> None:
    async with open_house() as house:
        house.table.add("ada", ALL)
        ada = await join(house, "ada")

        for _ in range(30):
            ada.authenticate("ada")

        assert ada.close_code == 4429


async def test_a_client_is_asked_once_for_a_new_token_before_its_own_ends() -> None:
    async with open_house() as house:
        house.table.add("soon", ALL, expires=time.time() + 20)
        house.table.add("late", ALL, expires=time.time() + 200)
        soon, late = await join(house, "soon"), await join(house, "late")

        for peer in (soon, late):
            peer.socket.beat()
            peer.socket.beat()

        assert soon.messages.count(hocuspocus.TOKEN_REQUEST) == 1
        assert hocuspocus.TOKEN_REQUEST not in late.messages


@pytest.mark.parametrize("error", [Unauthenticated("over"), PermissionDenied("gone")])
async def test_whose_stay_ends_leaves_that_document_alone(
    error: Unauthenticated | PermissionDenied,
) -> None:
    async with open_house() as house:
        house.table.add("ada", ALL)
        house.table.add("other", ALL, room="other")
        ada = await join(house, "ada", "4.8.0")
        other = await join(house, "other", "4.8.0", beside=ada, room="other")
        member = next(m for m in ada.socket.members() if m.prefix == ada.prefix)

        member.line.expel(member, error)
        ada.write("too late")
        other.write("still here")
        await other.until(lambda: other.statuses)

        assert ada.denials == [str(error)]
        assert ada.heard(b"\x07")
        assert house.text("other") == "still here"
        assert "too late" not in house.text("other")
        assert ada.close_code is None


async def test_version_2_is_not_sent_what_it_fails_over() -> None:
    async with open_house() as house:
        house.table.add("ada", ALL)
        ada = await join(house, "ada")
        member = ada.socket.members()[0]

        member.line.expel(member, Unauthenticated("over"))

        assert ada.denials
        assert not ada.heard(b"\x07")


async def test_a_document_goes_on_with_another_token_on_the_same_socket() -> None:
    async with open_house() as house:
        house.table.add("old", ALL, id="ada")
        house.table.add("new", ALL, id="ada")
        house.table.add("bob", ALL)
        ada, bob = await join(house, "old"), await join(house, "bob")
        member = ada.socket.members()[0]
        member.line.expel(member, Unauthenticated("over"))
        ada.write("while out")
        bob.write("meanwhile ")

        ada.authenticate("new")
        await ada.until(lambda: ada.scopes[1:])
        missed = ada.heard(b"\x00\x01")
        ada.answer()
        await ada.until(lambda: ada.statuses)

        assert len(missed) == 1
        assert ada.statuses == [APPLIED]
        assert sorted(house.text()) == sorted("while outmeanwhile ")


async def test_a_reader_does_not_speak_to_the_others() -> None:
    async with open_house() as house:
        house.table.add("ada", ALL)
        house.table.add("eve", READ)
        ada, eve = await join(house, "ada"), await join(house, "eve")

        eve.say(hocuspocus.stateless("psst"))
        ada.say(hocuspocus.stateless("hear"))

        assert ada.heard(b"\x05") == []
        assert eve.heard(b"\x05") == [hocuspocus.stateless("hear")]


async def test_who_never_enters_a_room_is_closed_in_the_end() -> None:
    async with open_house() as house:
        house.table.add("ada", ALL)
        ada, eve = await join(house, "ada"), house.hocuspocus()
        eve.authenticate("wrong")
        await eve.until(lambda: eve.denials)

        for _ in range(6):
            for peer in (ada, eve):
                peer.socket.data_received(b"\x8a\x80" + bytes(4))  # a pong
                peer.socket.beat()

        assert (ada.close_code, eve.close_code) == (None, 4408)
