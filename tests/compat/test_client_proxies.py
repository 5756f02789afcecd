"""Stock clients behind the proxies of deploy/proxy, in front of one server and of three that share a Redis."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.request import urlopen

import pytest
from driving import Driver
from kinds import KINDS, write
from processes import eventually
from proxying import PROXIES, Haproxy, Proxy
from services import Redis
from serving import Server, serve

REPLICAS = 3


@pytest.fixture
def replicas(tmp_path: Path) -> Iterator[list[Server]]:
    """Three of one cluster, in the order of their ports in the proxy."""
    with ExitStack() as stack:
        redis = stack.enter_context(Redis(aof="everysec"))
        flags = ("--redis", redis.url, "--trusted-proxies", "127.0.0.1")
        yield [
            stack.enter_context(serve(tmp_path / f"replica{number}", *flags))
            for number in range(REPLICAS)
        ]


def members(replica: Server, room: str) -> int:
    """How many a room has at all replicas, as this one tells."""
    with urlopen(f"{replica.url}/v1/rooms/{room}/members") as answer:
        return len(json.load(answer)["members"])


def housed(replica: Server) -> int:
    """How many members this replica has itself."""
    with urlopen(f"{replica.url}/metrics") as answer:
        (found,) = re.findall(r"^collab_members (\S+)$", answer.read().decode(), re.M)
    return int(float(found))


@pytest.mark.parametrize("kind", PROXIES)
def test_all_stock_clients_meet_through_a_proxy(
    clients: Driver, house: Server, kind: type[Proxy]
) -> None:
    room = f"behind/{kind.file}"
    with kind([house.port]) as proxy:
        for name in KINDS:
            clients.open(name, name, proxy.url, room)
        clients.wait(KINDS, "synced")

        for name in KINDS:
            clients.edit(name, write(f"{name} "))
        clients.wait(KINDS, "saved")
        clients.wait(KINDS, "equal")

        text = clients.state(KINDS[0])["text"]
        clients.do("close")

    assert sorted(text.split()) == sorted(KINDS)
    assert house.exported(room)["text"] == text


@pytest.mark.parametrize("kind", PROXIES)
def test_clients_of_all_replicas_are_in_one_room(
    clients: Driver, replicas: list[Server], kind: type[Proxy]
) -> None:
    room = "everywhere"
    past = [f"past the proxy {number}" for number in range(REPLICAS)]
    with kind([each.port for each in replicas]) as proxy:
        for name in KINDS:
            clients.open(name, name, proxy.url, room)
        for name, replica in zip(past, replicas, strict=True):
            clients.open(name, "y-websocket-3", replica.url, room)
        everybody = [*KINDS, *past]
        clients.wait(everybody, "synced")
        told = [members(each, room) for each in replicas]
        here = [housed(each) for each in replicas]

        for name in everybody:
            clients.edit(name, write(f"{name.replace(' ', '-')} "))
        clients.wait(everybody, "saved")
        clients.wait(everybody, "equal")

        text = clients.state(KINDS[0])["text"]
        clients.do("close")

    assert told == [len(everybody)] * REPLICAS
    assert min(here) >= 1
    assert sum(here) == len(everybody)
    assert sorted(text.split()) == sorted(each.replace(" ", "-") for each in everybody)


@pytest.mark.parametrize("kind", PROXIES)
def test_clients_write_on_while_one_replica_after_the_other_is_restarted(
    clients: Driver, replicas: list[Server], kind: type[Proxy]
) -> None:
    room = "rolling"
    with kind([each.port for each in replicas]) as proxy:
        for name in KINDS:
            clients.open(name, name, proxy.url, room)
        clients.wait(KINDS, "synced")

        for number, replica in enumerate(replicas):
            for name in KINDS:
                clients.edit(name, write(f"{name}/{number} "))
            assert replica.stop() == 0
            replica.start()
        replicas[0].kill()
        for name in KINDS:
            clients.edit(name, write(f"{name}/{REPLICAS} "))
        clients.wait(KINDS, "saved", seconds=40)
        clients.wait(KINDS, "equal", seconds=40)

        text = clients.state(KINDS[0])["text"]
        clients.do("close")
        with urlopen(
            f"{replicas[1].url}/v1/rooms/{room}/document?format=text"
        ) as answer:
            kept = answer.read().decode()

    expected = [f"{name}/{number}" for name in KINDS for number in range(REPLICAS + 1)]
    assert sorted(text.split()) == sorted(expected)
    assert kept == text


def test_haproxy_sends_nobody_to_a_replica_that_has_given_notice(
    clients: Driver, tmp_path: Path
) -> None:
    notice = ("--store", "memory", "--drain-notice-seconds", "30")
    with ExitStack() as stack:
        first, second = [
            stack.enter_context(serve(tmp_path / name, *notice)) for name in "ab"
        ]
        proxy = stack.enter_context(Haproxy([first.port, second.port]))
        rooms = [f"room{number}" for number in range(20)]
        clients.open("staying", "y-websocket-3", first.url, "staying")
        clients.wait("staying", "synced")

        first.signal(signal.SIGTERM)
        assert eventually(lambda: "replica1 is DOWN" in proxy.written())
        for room in rooms:
            clients.open(room, "y-websocket-3", proxy.url, room)
        clients.wait(rooms, "synced")
        clients.edit("staying", write("still served"))
        clients.wait("staying", "saved")

        found = [members(first, room) for room in [*rooms, "staying"]]
        clients.do("close")

    assert found == [0] * len(rooms) + [1]
