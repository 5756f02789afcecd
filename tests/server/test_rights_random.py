"""Rights, tokens and edits in any order: what a client counts as saved always is, and comes to be."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random

import pytest
from peers import Hocuspocus, House, Peer, open_house

from collab.auth.permissions import PRESENCE, READ, WRITE
from collab.errors import Unauthenticated
from collab.protocol import yjs, ysweet
from collab.protocol.varint import Reader, encode_varint

pytestmark = pytest.mark.anyio

ALL = READ | WRITE | PRESENCE
TOKENS = {"writes": ALL, "writes-too": ALL, "reads": READ}  # all of ada
STEPS = 40


class Client:
    """Counts what is unsaved as the stock provider does: anew with each step 1, and one less for each status 1."""

    def __init__(self, peer: Hocuspocus) -> None:
        self.peer = peer
        self.unsaved = 0
        self.words: set[str] = set()
        self._heard = 0

    def start(self, token: str) -> None:
        self.peer.authenticate(token, "4.8.0")
        self.unsaved = 1
        self.peer.ask()

    def type(self, word: str) -> None:
        self.words.add(word)
        self.unsaved += 1
        self.peer.write(f"{word} ")

    def listen(self) -> None:
        while self._heard < len(self.peer.messages):
            message = self.peer.messages[self._heard]
            self._heard += 1
            if message == b"\x08\x01":
                self.unsaved = max(0, self.unsaved - 1)
            elif message.startswith(b"\x00\x00"):
                vector = Reader(message, 2).read_bytes()
                self.peer.say(yjs.sync_step_2(self.peer.doc.get_update(vector)))


class YSweetClient:
    """Counts its versions, of which the barrier brings back the saved one."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.words: set[str] = set()
        self._version, self._saved = 0, -1
        self._heard = 0

    @property
    def unsaved(self) -> bool:
        return self._saved != self._version

    def start(self) -> None:
        self.peer.ask()
        self._check()

    def type(self, word: str) -> None:
        self.words.add(word)
        self.peer.write(f"{word} ")
        self._version += 1
        self._check()

    def _check(self) -> None:
        self.peer.say(ysweet.barrier(encode_varint(self._version)))

    def listen(self) -> None:
        while self._heard < len(self.peer.messages):
            message = self.peer.messages[self._heard]
            self._heard += 1
            if message[0] == ysweet.BARRIER:
                saved = Reader(Reader(message, 1).read_bytes()).read_varint()
                self._saved = max(self._saved, saved)
            elif message.startswith(b"\x00\x00"):
                vector = Reader(message, 2).read_bytes()
                self.peer.say(yjs.sync_step_2(self.peer.doc.get_update(vector)))


async def settle(house: House, clients: Sequence[Client | YSweetClient]) -> None:
    """Until nobody has anything to say any more."""
    for _ in range(6):
        for client in clients:
            client.listen()
        for _ in range(5):
            await asyncio.sleep(0)
        await house.replica.settle()


async def act(random: Random, house: House, ada: Client, eve: Client, n: int) -> None:
    ada.peer.socket._waste = eve.peer.socket._waste = 0.0
    match random.randrange(7):
        case 0 | 1:
            ada.type(f"a{n}")
        case 2:
            eve.type(f"e{n}")
        case 3:
            house.grant(ada.peer, random.choice((READ, ALL)))
        case 4:
            for member in ada.peer.socket.members():
                member.line.expel(member, Unauthenticated("over"))
        case 5:
            token = random.choice((*TOKENS, "wrong", "eve"))
            ada.peer.authenticate(token, "4.8.0")
        case 6:
            await settle(house, (ada, eve))
    for client in random.sample((ada, eve), random.randrange(3)):
        client.listen()
    await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(60))
async def test_what_counts_as_saved_is_and_comes_to_be(seed: int) -> None:
    random = Random(seed)
    async with open_house() as house:
        for token, operations in TOKENS.items():
            house.table.add(token, operations, id="ada")
        house.table.add("eve", READ)
        ada, eve = Client(house.hocuspocus()), Client(house.hocuspocus())
        ada.start(random.choice(list(TOKENS)))
        eve.start("eve")

        for n in range(STEPS):
            await act(random, house, ada, eve, n)
            if not ada.unsaved:
                assert ada.words <= set(house.text().split())
        await settle(house, (ada, eve))
        if not ada.peer.socket.members():
            ada.peer.authenticate("writes", "4.8.0")
            await settle(house, (ada, eve))
        house.grant(ada.peer, ALL)
        await settle(house, (ada, eve))

        assert sorted(house.text().split()) == sorted(ada.words)
        assert ada.unsaved == 0
        assert eve.unsaved > 0 or not eve.words
        assert (ada.peer.close_code, eve.peer.close_code) == (None, None)


@pytest.mark.parametrize("seed", range(40))
async def test_what_a_y_sweet_client_counts_as_saved_is_and_comes_to_be(
    seed: int,
) -> None:
    random = Random(seed)
    async with open_house() as house:
        house.table.add("ada", random.choice((READ, ALL)))
        ada = YSweetClient(await house.y_sweet("ada"))
        if random.random() < 0.5:
            ada.words.add("offline")
            ada.peer.text.insert(0, "offline ")
        ada.start()

        for n in range(STEPS):
            ada.peer.socket._waste = 0.0
            match random.randrange(4):
                case 0 | 1:
                    ada.type(f"a{n}")
                case 2:
                    house.grant(ada.peer, random.choice((READ, ALL)))
                case 3:
                    await settle(house, [ada])
            if random.random() < 0.5:
                ada.listen()
            await asyncio.sleep(0)
            if not ada.unsaved:
                assert ada.words <= set(house.text().split())
        house.grant(ada.peer, ALL)
        await settle(house, [ada])

        assert sorted(house.text().split()) == sorted(ada.words)
        assert not ada.unsaved
        assert ada.peer.close_code is None
