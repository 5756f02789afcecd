"""J and B10: tokens that are forged, keys that are weak, backends that are bad, and what was used or revoked."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from catalogue import Field, Row, counted, story
from endpoints import Answering, Endpoint, answer, endless, endpoint, silence
from forging import FORGERIES, Issuer, encode
from house import ROOT, House
from liveness import liveness
from peer import HOCUSPOCUS, PATIENCE, WEBSOCKET, Peer, authentication, bearer
from processes import BUSY_SECONDS
from wire import string

REFUSED = 4401
MAX_HEADER = 4096  # longer ones are shown in a message
REVOKED_SECONDS = 2.0 + BUSY_SECONDS


async def show(field: Field, token: str, query: str = "") -> int | None:
    """The close code that a token gets, 0 when it opens the room; None when it cannot be shown in this way."""
    if field.dialect is HOCUSPOCUS and not query:
        return await _show_in_band(field, token)
    if len(token) > MAX_HEADER or not (token.isascii() and token.isprintable()):
        return None
    shown = (bearer(token),) if token else ()
    peer = await field.open(field.dialect.path(field.room) + query, *shown)
    await peer.until(lambda: bool(peer.messages) or peer.is_over)
    code = 0 if peer.messages else await peer.closed()
    peer.reset()
    return code


async def _show_in_band(field: Field, token: str) -> int:
    peer = await field.open()
    peer.shout(string(field.room) + authentication(token))
    await peer.until(lambda: bool(peer.messages) or peer.is_over)
    if not peer.messages:
        return await peer.closed()
    is_denied = peer.messages[0].startswith(string(field.room) + b"\x02\x01")
    peer.reset()
    return REFUSED if is_denied else 0


def _forged(row: str) -> Row:
    """Every forgery of a row, one after the other, beside a member whose token is good."""
    forgeries = [each for each in FORGERIES if each.row == row]

    async def act(field: Field) -> None:
        issuer = field.house.issuer
        assert issuer is not None
        member = await field.join()

        for forgery in forgeries:
            token = forgery.make(issuer)
            code = await show(field, token)

            # What is longer than any token is not taken for one, or not read to its end.
            is_long = len(token) > 16_384
            expected = (REFUSED, 4400, 1009, None) if is_long else (REFUSED, None)
            assert code in expected, (forgery.name, code)

        assert await member.document() == b"\0\0"

    return Row(
        id=row,
        name="forged tokens",
        act=act,
        house="guarded",
        lines=range(1, len(forgeries) + 1),
        counter=counted(REFUSED),
    )


@story("J10", "weak keys", house="guarded", dialects=(WEBSOCKET,), lines=(0,))
async def weak_keys(field: Field) -> None:
    small = {"kty": "RSA", "e": "AQAB", "n": encode(b"\xff" * 64)}
    files = (
        json.dumps(small),
        json.dumps({"keys": [small]}),
        json.dumps({"kty": "oct", "k": encode(b"0123456789abcdef0123456789abcde")}),
        "0123456789abcdef0123456789abcde\n",
        "a" * 64,
        "ssh-ed25519 AAAA somebody",
    )
    for content in files:
        done = await asyncio.to_thread(_start_with, content)

        assert done.returncode == 2, content
        assert "collab: " in done.stderr
        assert "Traceback" not in done.stderr


def _start_with(keys: str) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "keys"
        file.write_text(keys)
        return collab(
            *("serve", "--port", "0", "--data", f"{directory}/data"),
            *("--auth", "jwt", "--jwt-keys", str(file)),
        )


def collab(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "collab", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@story(
    "J12", "a revoked token", house="guarded", lines=(1, 2), counter=counted(REFUSED)
)
async def revoked(field: Field) -> None:
    assert field.house.issuer is not None
    id = f"token-{os.urandom(6).hex()}"
    token = field.house.issuer.token(jti=id)
    member = await field.join(token=token)

    done = await asyncio.to_thread(
        collab, "revoke", "--token", id, "--data", str(field.house.data)
    )
    revoked = time.monotonic()

    assert done.returncode == 0, done.stderr
    await member.until(lambda: _is_out(field, member), REVOKED_SECONDS)
    assert time.monotonic() - revoked < REVOKED_SECONDS
    assert await show(field, token) == REFUSED


def _is_out(field: Field, member: Peer) -> bool:
    if field.dialect is HOCUSPOCUS:
        return member.is_over or bool(member.answers(b"\x02\x01"))
    return member.is_over


@story(
    "J12",
    "a ticket that was used",
    house="guarded",
    dialects=(WEBSOCKET,),
    lines=(1,),
    counter=counted(REFUSED),
)
async def used_ticket(field: Field) -> None:
    body = json.dumps({"room": field.room})
    request = (
        f"POST /v1/tickets HTTP/1.1\r\nhost: 127.0.0.1:{field.port}\r\nconnection: close\r\n"
        f"authorization: Bearer {field.house.token}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}"
    )
    made = await field.ask(request.encode())
    field.answers.clear()  # it holds the ticket, for the one who asked
    ticket = json.loads(made.body)["ticket"]

    assert await show(field, "", f"?ticket={ticket}") == 0
    assert await show(field, "", f"?ticket={ticket}") == REFUSED


@asynccontextmanager
async def _fetching(answering: Answering) -> AsyncIterator[tuple[House, Endpoint]]:
    """Another server, whose keys come from an endpoint; its two members came with an API key."""
    with tempfile.TemporaryDirectory() as directory:
        data = f"{directory}/data"
        create = ("key", "create", "--principal", "pair", "--prefix", "=read,write")
        made = await asyncio.to_thread(collab, *create, "--json", "--data", data)
        async with endpoint(answering) as backend:
            house = await asyncio.to_thread(
                House,
                Path(data),
                *("--auth", "jwt", "--auth", "keys"),
                *("--jwt-jwks-url", backend.url),
                token=json.loads(made.stdout)["key"],
            )
            try:
                async with liveness(house):
                    yield house, backend
            finally:
                await asyncio.to_thread(house.close)


@story(
    "J14",
    "an endpoint that was good and is silent",
    house="guarded",
    dialects=(WEBSOCKET,),
    lines=(0,),
)
async def silent_endpoint(field: Field) -> None:
    issuer = Issuer()
    async with _fetching(answer(issuer.jwks("EdDSA"))) as (house, backend):
        elsewhere = Field(house, WEBSOCKET, field.pair)
        try:
            assert await show(elsewhere, issuer.token()) == 0
            backend.answering = silence

            for kid in ("unknown", "../../keys", backend.url):
                token = issuer.sign({"kid": kid}, issuer.claims())
                assert await show(elsewhere, token) == REFUSED

            # Whatever tokens say, it is not asked again so soon; and who is known goes on to come in.
            assert len(backend.asked) == 1
            assert await show(elsewhere, issuer.token(sub="bob")) == 0
        finally:
            await elsewhere.leave()


@story(
    "J14",
    "an endpoint that is bad from the beginning",
    house="guarded",
    dialects=(WEBSOCKET,),
    lines=(0,),
)
async def bad_endpoint(field: Field) -> None:
    issuer = Issuer()
    redirect = answer(b"", 302, location="http://169.254.169.254/latest")
    async with _fetching(silence) as (house, backend):
        elsewhere = Field(house, WEBSOCKET, field.pair)
        try:
            for asked, answering in enumerate((silence, endless, redirect)):
                backend.answering = answering
                while len(backend.asked) == asked:
                    began = time.monotonic()
                    assert await show(elsewhere, issuer.token()) == 1013
                    assert time.monotonic() - began < PATIENCE / 3
                    await asyncio.sleep(0.1)

            backend.answering = answer(issuer.jwks("EdDSA"))
            for _ in range(100):
                if await show(elsewhere, issuer.token()) == 0:
                    break
                await asyncio.sleep(0.1)
            assert len(backend.asked) == 4
        finally:
            await elsewhere.leave()


@story(
    "J15",
    "keys that are guessed",
    house="guarded",
    lines=range(1, 8),
    counter=counted(REFUSED),
)
async def guessed(field: Field) -> None:
    for token in (
        "ck_0123456789abcdef.guess",
        "ck_0123456789abcdef.",
        "ck_.x",
        "ck_" + "f" * 3000 + ".x",
        "ck_0123456789abcdef",
        "ck_' OR 1=1 --.x",
        "tk_guess",
    ):
        assert await show(field, token) == REFUSED, token


@story(
    "J15",
    "a token in the address",
    house="guarded",
    lines=range(1, 6),
    counter=counted(REFUSED) + "|refused_requests",
)
async def in_address(field: Field) -> None:
    for query in (
        f"?token={field.house.token}",
        "?token=ck_0123456789abcdef.guess",
        f"?ticket={field.house.token}",
    ):
        assert await show(field, "", query) in (401, REFUSED), query


@story(
    "B10",
    "addresses that nobody may be asked at",
    house="guarded",
    dialects=(WEBSOCKET,),
    lines=(0,),
)
async def forbidden_addresses(field: Field) -> None:
    with tempfile.TemporaryDirectory() as directory:
        secret = Path(directory) / "secret"
        secret.write_text("0123456789abcdef0123456789abcdef")
        for url in (
            "file:///etc/passwd",
            "http://169.254.169.254/latest/meta-data",
            "http://[::ffff:169.254.169.254]/",
            "http://user:secret@127.0.0.1/",
        ):
            done = await asyncio.to_thread(
                collab,
                *("serve", "--port", "0", "--data", f"{directory}/data"),
                *("--auth", "webhook", "--webhook-url", url),
                *("--webhook-secret-file", str(secret)),
            )

            assert done.returncode == 2, url
            assert "collab: webhook_url" in done.stderr
            assert "Traceback" not in done.stderr
            assert "secret@" not in done.stderr


@story(
    "B10",
    "a backend that sends elsewhere",
    house="guarded",
    dialects=(WEBSOCKET,),
    lines=(0,),
)
async def redirected(field: Field) -> None:
    yes = answer({"principal": "eve", "operations": ["read", "write"]})
    async with endpoint(yes) as inner, endpoint(silence) as backend:
        with tempfile.TemporaryDirectory() as directory:
            secret = Path(directory) / "secret"
            secret.write_text("0123456789abcdef0123456789abcdef")
            house = await asyncio.to_thread(
                House,
                Path(directory) / "data",
                *("--auth", "webhook", "--webhook-url", backend.url),
                *("--webhook-secret-file", str(secret)),
            )
            elsewhere = Field(house, WEBSOCKET, field.pair)
            try:
                for status in (301, 302, 303, 307, 308):
                    backend.answering = answer(b"", status, location=inner.url)
                    assert await show(elsewhere, f"token-{status}") == 1013
                backend.answering = yes
                assert await show(elsewhere, "token") == 0
            finally:
                await elsewhere.leave()
                await asyncio.to_thread(house.close)

        assert inner.asked == []
        assert len(backend.asked) == 6


ROWS = [
    *(_forged(row) for row in sorted({each.row for each in FORGERIES})),
    weak_keys,
    revoked,
    used_ticket,
    silent_endpoint,
    bad_endpoint,
    guessed,
    in_address,
    forbidden_addresses,
    redirected,
]
