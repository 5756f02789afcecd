"""Stock clients over TLS, through a renewal of the server's certificate."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from certificates import Files
from driving import Driver
from kinds import KINDS, write
from processes import Server, eventually


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def house(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("rooms") / "data", *files.flags())
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def clients(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """Ones that trust the authority of these tests beside those of the system."""
    trusted = tmp_path_factory.mktemp("trusted") / "ca.pem"
    files.ca.cert_pem.write_to_path(str(trusted))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NODE_EXTRA_CA_CERTS", str(trusted))
        driver = Driver()
        driver.start()
    yield driver
    driver.stop()


@pytest.mark.parametrize("kind", KINDS)
def test_two_clients_write_on_while_the_certificate_is_renewed(
    clients: Driver, house: Server, files: Files, kind: str
) -> None:
    url = f"https://127.0.0.1:{house.port}"
    names = [f"{name} {kind}" for name in ("ada", "bob")]
    for name in names:
        clients.open(name, kind, url, kind)
    clients.wait(names, "synced")
    clients.edit(names[0], write("before "))
    clients.wait(names, "text", "before ")
    renewals = house.logs().count("TLS files read again")

    files.renew()
    assert eventually(lambda: house.logs().count("TLS files read again") > renewals)
    clients.edit(names[1], write("after", -1))

    clients.wait(names, "text", "before after")
    clients.wait(names[1], "saved")
    assert '"event": "socket closed"' not in house.logs()
