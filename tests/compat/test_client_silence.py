"""Providers see no WebSocket pings: one that hears nothing for 30 s reconnects, and keeps on doing so."""

import pytest
from driving import Driver
from kinds import HOCUSPOCUS, KINDS
from serving import Server

SECONDS = 65


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_every_client_stays_connected_through_a_minute_of_silence(
    clients: Driver, house: Server, room: str
) -> None:
    names = []
    for kind in KINDS:
        clients.open(f"{kind} alone", kind, house.url, f"{room}-{kind}")
        clients.open(f"{kind} hidden", kind, house.url, f"{room}-{kind}-hidden")
        clients.do(
            "presence", name=f"{kind} hidden", state=None
        )  # says nothing by itself
        clients.open(f"{kind} together", kind, house.url, room)
        names += [f"{kind} alone", f"{kind} hidden", f"{kind} together"]
    for kind in HOCUSPOCUS:
        clients.open(
            f"{kind} without",
            kind,
            house.url,
            f"{room}-{kind}-without",
            withAwareness=False,
        )
        names.append(f"{kind} without")
    clients.wait(names, "synced")

    clients.do("pass", seconds=SECONDS, patience=SECONDS + 30)

    seen = {name: clients.state(name) for name in names}
    assert {name: (one["opened"], one["closes"]) for name, one in seen.items()} == {
        name: (1, []) for name in names
    }
    assert all(one["isSynced"] for one in seen.values())
    together = sorted(f"{kind} together" for kind in KINDS)
    assert {
        name: one["present"] for name, one in seen.items() if "together" in name
    } == dict.fromkeys(together, together)
