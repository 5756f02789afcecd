"""Stock clients behind the proxies of deploy/proxy."""

from __future__ import annotations

import pytest
from driving import Driver
from kinds import KINDS, write
from proxying import PROXIES, Proxy
from serving import Server


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
