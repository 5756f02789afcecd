"""TLS by file: what is refused, what is renewed, and that nobody who is connected notices."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import pytest
from certificates import Files, issue
from cryptography.hazmat.primitives import serialization
from processes import ROOT, Server, close_code, eventually
from trustme import CA, LeafCert
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from collab.errors import ConfigurationError
from collab.metrics import Metrics
from collab.server.tls import Tls
from collab.settings import load

pytestmark = pytest.mark.anyio

WRITER = "spiffe://example.org/agents/writer"
STEP_1 = b"\x00\x00\x01\x00"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path / "tls")


def made(files: Files, metrics: Metrics | None = None, client: str = "off") -> Tls:
    return Tls(
        files.certificate,
        files.key,
        client_ca=None if client == "off" else files.client_ca,
        client=client,  # type: ignore[arg-type]  # a literal everywhere here
        metrics=metrics or Metrics(),
    )


def join(
    server: Server, files: Files, client: LeafCert | None = None, room: str = "r"
) -> connect:
    return connect(
        f"wss://127.0.0.1:{server.port}/ws/{room}", ssl=files.context(client)
    )


async def served(socket: ClientConnection) -> int:
    """The serial number of the certificate that this connection has been shown."""
    shown = socket.transport.get_extra_info("peercert")
    return int(shown["serialNumber"], 16)


async def is_answered(socket: ClientConnection) -> bool:
    await socket.send(STEP_1)
    while (await socket.recv())[:2] != b"\x00\x01":  # type: ignore[comparison-overlap]
        pass
    return True


async def renewed(server: Server, files: Files, serial: int) -> None:
    """Wait until new connections get this certificate."""
    async with asyncio.timeout(30):
        while True:
            async with join(server, files, room="probe") as socket:
                if await served(socket) == serial:
                    return


def test_files_that_did_not_change_make_no_new_context(files: Files) -> None:
    tls = made(files)
    before = tls.context

    assert not tls.refresh()
    assert tls.context is before


def test_a_new_certificate_makes_a_new_context(files: Files) -> None:
    metrics = Metrics()
    tls = made(files, metrics)
    before = tls.context

    files.renew()

    assert tls.refresh()
    assert tls.context is not before
    assert metrics.tls_reloads == 1


def test_a_reload_that_was_asked_for_looks_at_unchanged_files_too(files: Files) -> None:
    tls = made(files)

    tls.reload()

    assert tls.refresh()
    assert not tls.refresh()


@pytest.mark.parametrize("broken", ["certificate", "key", "client_ca"])
@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_a_broken_file_leaves_what_worked_before(
    files: Files, broken: str, content: bytes | None
) -> None:
    metrics = Metrics()
    tls = made(files, metrics, "required")
    before = tls.context
    path: Path = getattr(files, broken)

    path.unlink()
    if content is not None:
        path.write_bytes(content)

    assert not tls.refresh()
    assert not tls.refresh()  # and it is said once
    assert tls.context is before
    assert (metrics.tls_reloads, metrics.tls_reload_failures) == (0, 1)


def test_the_half_of_a_renewal_waits_for_the_other(files: Files) -> None:
    tls = made(files)
    key = files.key.read_bytes()
    files.renew()
    new_key = files.key.read_bytes()
    files.key.write_bytes(key)

    half = tls.refresh()
    files.key.write_bytes(new_key + b"\n")

    assert not half
    assert tls.refresh()


def test_a_certificate_that_has_expired_is_refused(files: Files) -> None:
    old = issue(files.ca, days=-1, names=("localhost",))
    old.private_key_pem.write_to_path(str(files.key))
    old.cert_chain_pems[0].write_to_path(str(files.certificate))

    with pytest.raises(ConfigurationError, match="expired"):
        made(files)


def test_a_key_with_a_password_is_refused_and_nobody_is_asked(files: Files) -> None:
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )

    with pytest.raises(ConfigurationError, match="the key has a password"):
        made(files)


def test_the_time_that_is_left_is_a_metric(files: Files) -> None:
    metrics = Metrics()
    mine = issue(files.ca, days=1, names=("localhost",))
    mine.private_key_pem.write_to_path(str(files.key))
    mine.cert_chain_pems[0].write_to_path(str(files.certificate))

    made(files, metrics)

    assert 86_000 < metrics.gauges["tls_certificate_seconds"]() <= 86_400


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"tls_certificate": "c.pem"}, "go together"),
        ({"tls_key": "k.pem"}, "go together"),
        ({"tls_client": "required"}, "go together"),
        ({"tls_client_ca": "ca.pem"}, "go together"),
        (
            {"tls_client_ca": "ca.pem", "tls_client": "optional"},
            "needs tls_certificate",
        ),
        ({"auth": ["certificates"]}, "needs tls_client_ca"),
        ({"trusted_proxies": ["proxy.local"]}, "neither an address nor a network"),
        ({"trusted_proxies": ["10.0.0.1/8"]}, "neither an address nor a network"),
    ],
)
def test_settings_that_nobody_can_mean_are_refused(
    flags: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        load(flags)


async def test_everything_is_said_over_tls(
    serve: Callable[..., Server], files: Files
) -> None:
    server = serve(*files.flags())

    async with httpx2.AsyncClient(verify=files.context()) as client:
        alive = await client.get(f"https://127.0.0.1:{server.port}/healthz")
        found = await client.post(f"https://127.0.0.1:{server.port}/doc/r/auth")
    async with join(server, files) as socket:
        answered = await is_answered(socket)

    assert alive.status_code == 200
    assert found.json()["url"].startswith("wss://")
    assert found.json()["baseUrl"].startswith("https://")
    assert answered


async def test_a_page_of_http_is_not_our_own_over_tls(
    serve: Callable[..., Server], files: Files
) -> None:
    server = serve(*files.flags(), "--allowed-hosts", "collab.example")
    host = f"collab.example:{server.port}"

    async with httpx2.AsyncClient(verify=files.context()) as client:
        found = [
            await client.get(
                f"https://127.0.0.1:{server.port}/healthz",
                headers={"host": host, "origin": f"{scheme}://{host}"},
            )
            for scheme in ("https", "http")
        ]

    assert [each.status_code for each in found] == [200, 403]


async def test_who_does_not_speak_tls_is_not_answered(
    serve: Callable[..., Server], files: Files
) -> None:
    server = serve(*files.flags())

    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    found = await reader.read()
    writer.close()

    assert b"HTTP/" not in found
    assert eventually(lambda: "TLS handshake failed" in server.logs())


async def test_who_does_not_begin_is_closed(
    serve: Callable[..., Server], files: Files
) -> None:
    server = serve(*files.flags())

    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    async with asyncio.timeout(30):
        found = await reader.read()
    writer.close()

    assert found == b""


@pytest.mark.filterwarnings("ignore:.*TLSv1_1 is deprecated:DeprecationWarning")
async def test_old_versions_are_refused(
    serve: Callable[..., Server], files: Files
) -> None:
    server = serve(*files.flags())
    old, new = files.context(), files.context()
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    new.maximum_version = ssl.TLSVersion.TLSv1_2

    address = ("127.0.0.1", server.port)

    await asyncio.to_thread(resume, new, address, None)
    with pytest.raises(OSError, match=r"reset|alert|protocol"):
        await asyncio.to_thread(resume, old, address, None)


async def test_who_is_refused_while_it_talks_reads_why(
    serve: Callable[..., Server], files: Files
) -> None:
    server = serve(*files.flags())

    async with join(server, files) as socket:
        await socket.send("text is not spoken here")
        for _ in range(200):
            await socket.send(bytes(1000))
        found = await asyncio.wait_for(close_code(socket), 30)

    assert found == 1003


async def test_a_hundred_sockets_live_through_new_certificates(
    serve: Callable[..., Server], files: Files
) -> None:
    server = serve(*files.flags())
    async with AsyncExitStack() as stack:
        sockets = []
        for number in range(100):
            room = f"r{number % 5}"
            socket = await stack.enter_async_context(join(server, files, room=room))
            # Who says nothing for too long is sent away, and a hundred handshakes take their time.
            assert await is_answered(socket)
            sockets.append(socket)
        first = await served(sockets[0])

        for _ in range(3):
            serial = files.renew()
            await renewed(server, files, serial)
            answered = [await is_answered(socket) for socket in sockets]

        assert len(answered) == 100
        assert serial != first
        assert await served(sockets[0]) == first


async def test_sighup_reads_the_files_again(
    serve: Callable[..., Server], files: Files
) -> None:
    server = serve(*files.flags())

    async with join(server, files) as socket:
        os.kill(server.pid, signal.SIGHUP)
        found = await asyncio.to_thread(
            eventually, lambda: "TLS files read again" in server.logs()
        )

        assert found
        assert await is_answered(socket)


async def test_sighup_without_tls_does_no_harm(server: Server) -> None:
    os.kill(server.pid, signal.SIGHUP)

    async with connect(f"{server.address}/ws/r") as socket:
        assert await is_answered(socket)


def test_a_server_ends_with_its_terminal(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "collab", "serve", "--port", "0"),
            *("--data", str(tmp_path / "data")),
        ],
        cwd=ROOT,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    begun = server.stdout.readline()

    server.send_signal(signal.SIGHUP)

    _, said = server.communicate(timeout=20)
    os.close(ours)
    os.close(theirs)
    assert begun.startswith("listening on")
    assert server.returncode == 0, said


async def test_a_broken_renewal_is_logged_and_counted_and_the_old_one_served(
    serve: Callable[..., Server], files: Files
) -> None:
    server = serve(*files.flags())

    files.certificate.write_bytes(b"half a certif")
    found = await asyncio.to_thread(
        eventually, lambda: "the new TLS files are not used" in server.logs()
    )
    async with httpx2.AsyncClient(verify=files.context()) as client:
        figures = await client.get(f"https://127.0.0.1:{server.port}/metrics")

    assert found
    assert "collab_tls_reload_failures_total 1.0" in figures.text


STRANGERS: dict[str, Callable[[Files], LeafCert | None]] = {
    "nothing": lambda files: None,
    "one of another authority": lambda files: issue(CA(), WRITER),
    "one of the server's authority": lambda files: issue(files.ca, WRITER),
    "one that has expired": lambda files: issue(files.clients, WRITER, days=-1),
}


@pytest.mark.parametrize("shown", STRANGERS)
async def test_without_a_good_certificate_nobody_comes_in_where_one_is_required(
    serve: Callable[..., Server], files: Files, shown: str
) -> None:
    server = serve(*files.flags("required"))

    with pytest.raises((OSError, WebSocketException)):
        async with join(server, files, STRANGERS[shown](files)) as socket:
            await socket.recv()

    assert eventually(lambda: "TLS handshake failed" in server.logs())
    async with join(server, files, issue(files.clients, WRITER)) as socket:
        assert await is_answered(socket)


async def test_an_authority_that_is_taken_out_lets_nobody_in_any_more(
    serve: Callable[..., Server], files: Files
) -> None:
    server = serve(*files.flags("required"))
    old = files.context(issue(files.clients, WRITER))
    old.maximum_version = ssl.TLSVersion.TLSv1_2  # where a session is known at once
    address = ("127.0.0.1", server.port)
    session = await asyncio.to_thread(resume, old, address, None)
    again = await asyncio.to_thread(resume, old, address, session)
    other = CA()

    async with join(server, files, issue(files.clients, WRITER)) as socket:
        other.cert_pem.write_to_path(str(files.client_ca))
        found = await asyncio.to_thread(
            eventually, lambda: "TLS files read again" in server.logs()
        )
        still = await is_answered(socket)

    assert again is not None
    assert found
    assert still
    with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
        await asyncio.to_thread(resume, old, address, session)
    async with join(server, files, issue(other, WRITER)) as socket:
        assert await is_answered(socket)


def resume(
    context: ssl.SSLContext, address: tuple[str, int], session: ssl.SSLSession | None
) -> ssl.SSLSession | None:
    """A connection that takes up an earlier session; asks something, so that the server has agreed."""
    with (
        socket.create_connection(address) as plain,
        context.wrap_socket(
            plain, server_hostname="127.0.0.1", session=session
        ) as secure,
    ):
        secure.sendall(
            b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        )
        if not secure.recv(1000):
            raise EOFError
        return secure.session


@pytest.fixture
def granted(serve: Callable[..., Server], tmp_path: Path) -> Callable[..., Server]:
    """A server that lets certificates in, where the writer has been granted one room."""

    def start(*flags: str) -> Server:
        data = tmp_path / "data"
        made = Server(data).run("grant", "add", WRITER, "--room", "r=read,write")
        assert made.returncode == 0, made.stderr
        return serve(*flags, "--auth", "certificates", data=data)

    return start


async def test_a_certificate_opens_the_rooms_that_it_was_granted(
    granted: Callable[..., Server], files: Files
) -> None:
    server = granted(*files.flags("required"))
    writer = issue(files.clients, WRITER)

    async with join(server, files, writer) as socket:
        assert await is_answered(socket)
    async with join(server, files, writer, "other") as socket:
        assert await close_code(socket) == 4403


async def test_a_certificate_without_a_grant_opens_no_room(
    granted: Callable[..., Server], files: Files
) -> None:
    server = granted(*files.flags("required"))
    reader = issue(files.clients, "spiffe://example.org/agents/reader")

    async with join(server, files, reader) as socket:
        assert await close_code(socket) == 4403


@pytest.mark.parametrize(
    "uris", [(), (WRITER, "spiffe://example.org/other"), ("https://example.org/",)]
)
async def test_a_certificate_that_names_nobody_is_no_credential(
    granted: Callable[..., Server], files: Files, uris: tuple[str, ...]
) -> None:
    server = granted(*files.flags("required"))
    shown = issue(files.clients, *uris, names=("client",))

    async with join(server, files, shown) as socket:
        assert await close_code(socket) == 4401


async def test_where_a_certificate_is_optional_who_has_none_is_nobody(
    granted: Callable[..., Server], files: Files
) -> None:
    server = granted(*files.flags("optional"))

    async with join(server, files) as socket:
        assert await close_code(socket) == 4401


async def test_a_live_socket_ends_with_its_certificate(
    granted: Callable[..., Server], files: Files
) -> None:
    server = granted(*files.flags("required"))
    ending = issue(files.clients, WRITER, days=8 / 86_400)

    async with asyncio.timeout(30), join(server, files, ending) as socket:
        assert await is_answered(socket)
        assert await close_code(socket) == 4401


async def test_a_revoked_certificate_ends_its_live_sockets(
    granted: Callable[..., Server], files: Files
) -> None:
    server = granted(*files.flags("required"))

    async with join(server, files, issue(files.clients, WRITER)) as socket:
        assert await is_answered(socket)
        revoked = await asyncio.to_thread(server.run, "revoke", WRITER)
        async with asyncio.timeout(30):
            code = await close_code(socket)

    assert revoked.returncode == 0, revoked.stderr
    assert code == 4401


async def test_figures_are_for_this_machine_and_administrators(
    granted: Callable[..., Server], files: Files
) -> None:
    server = granted(*files.flags("optional"))
    address = f"https://127.0.0.1:{server.port}"

    async with httpx2.AsyncClient(verify=files.context()) as client:
        here = await client.get(f"{address}/metrics")
        passed_on = await client.get(
            f"{address}/metrics", headers={"x-forwarded-for": "203.0.113.7"}
        )
        ready = await client.get(
            f"{address}/readyz", headers={"x-forwarded-for": "203.0.113.7"}
        )
    writer = files.context(issue(files.clients, WRITER))
    async with httpx2.AsyncClient(verify=writer) as client:
        as_writer = await client.get(f"{address}/metrics", headers={"via": "1.1 x"})

    found = [each.status_code for each in (here, passed_on, as_writer, ready)]
    assert found == [200, 401, 403, 200]
    assert ready.json() == {"status": "ready"}
