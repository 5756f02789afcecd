"""H with access control: a credential opens no door that the page, the address or the proxy should keep shut."""

from __future__ import annotations

import itertools

from catalogue import Field, Row, story
from peer import HOCUSPOCUS, WEBSOCKET, YSWEET, Peer, bearer, upgrade_request

LINE = (WEBSOCKET,)
CARRIERS = (WEBSOCKET, YSWEET)  # whose handshake shows the token
REFUSED = 4401

_addresses = itertools.count(1)


def address() -> str:
    """One that no other row uses: what it did is remembered for a minute."""
    return f"203.0.113.{next(_addresses)}"


def token(field: Field) -> str:
    assert field.house.issuer is not None
    return field.house.issuer.token()


def behind(*hops: str) -> tuple[str, str]:
    return "x-forwarded-for", ", ".join(hops)


async def is_let_in(peer: Peer) -> bool:
    """Whether a member hears of its room; else the server has closed."""
    await peer.until(lambda: bool(peer.messages) or peer.is_over)
    return bool(peer.messages)


def _foreign(id: str, origin: str) -> Row:
    async def act(field: Field) -> None:
        answer = await field.ask(
            upgrade_request(
                field.dialect.path(field.room),
                field.port,
                bearer(token(field)),
                origin=origin,
                cookie="session=1",
            )
        )

        assert answer.status == 403

    return Row(
        id=id,
        name=f"a good token on a page of {origin!r}",
        act=act,
        house="guarded",
        lines=(1,),
        counter='refused_requests.*"403"',
    )


@story("H3", "a cookie for a credential", house="guarded", dialects=CARRIERS)
async def cookie_alone(field: Field) -> None:
    peer = await field.open(None, ("cookie", f"token={token(field)}"))

    assert await peer.closed() == REFUSED


@story("H3", "no origin and a good token", house="guarded", lines=(0,))
async def program(field: Field) -> None:
    peer = await field.join()

    await peer.document()


@story("H4", "two credentials", house="guarded", dialects=CARRIERS, lines=(1,))
async def two_credentials(field: Field) -> None:
    peer = await field.open(
        None,
        bearer(token(field)),
        ("sec-websocket-protocol", f"collab.v1, collab.token.{token(field)}"),
    )

    assert await peer.closed() == REFUSED


@story("H4", "two lines of credentials", house="guarded", dialects=LINE, lines=(1,))
async def two_lines(field: Field) -> None:
    path = field.dialect.path(field.room)
    shown = bearer(token(field))

    answer = await field.ask(upgrade_request(path, field.port, shown, shown))

    assert answer.status == 400


@story("H14", "addresses before the one that the proxy saw", house="proxied")
async def forged_addresses(field: Field) -> None:
    mine = address()
    shown = (bearer(token(field)),)
    for number, forged in enumerate(
        ("127.0.0.1", "1.1.1.1", "unknown", '"', "for=1.1.1.1")
    ):
        extra = behind(forged, mine) if number else behind(mine)
        await field.open(None, extra, *shown)

    answer = await field.ask(
        upgrade_request(
            field.dialect.path("other"), field.port, behind("1.1.1.2", mine), *shown
        )
    )

    assert answer.status == 429


@story("H14", "headers that the proxy does not write", house="proxied", dialects=LINE)
async def other_headers(field: Field) -> None:
    mine = address()
    others = (
        ("forwarded", "for=127.0.0.1;proto=https;host=evil.example"),
        ("x-real-ip", "127.0.0.1"),
        ("x-client-ip", "127.0.0.1"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-port", "1"),
    )
    for _ in range(5):
        await field.open(None, behind(mine), bearer(token(field)), *others)

    answer = await field.ask(
        upgrade_request("/ws/other", field.port, behind(mine), *others)
    )

    assert answer.status == 429


@story("H14", "a proxy that says nonsense", house="proxied", dialects=LINE, lines=(1,))
async def nonsense(field: Field) -> None:
    for said in ("", "unknown", "999.1.1.1", "\x7f" * 4000, "1.1.1.1," * 900):
        answer = await field.ask(
            upgrade_request("/ws/r", field.port, behind(said), connection="close")
        )

        assert answer.status in (400, 426)


@story(
    "H15",
    "200 sockets of one address behind a proxy",
    house="proxied",
    dialects=LINE,
    lines=(195,),
    counter='limited_total.*"sockets_per_address"',
)
async def many_from_one(field: Field) -> None:
    mine = behind(address())
    shown = bearer(token(field))
    for _ in range(5):
        await field.open(None, mine, shown)

    refused = [
        await field.ask(upgrade_request("/ws/x", field.port, mine, shown))
        for _ in range(195)
    ]
    other = await field.open(None, behind(address()), shown)

    assert {answer.status for answer in refused} == {429}
    assert all("retry-after: 5" in answer.headers for answer in refused)
    assert await is_let_in(other)


@story(
    "H15",
    "an address that guesses tokens",
    house="proxied",
    dialects=CARRIERS,
    lines=(4,),
    counter='limited_total.*"failures_per_address"',
)
async def guessing(field: Field) -> None:
    mine = behind(address())
    codes = []
    for number in range(3):
        peer = await field.open(None, mine, bearer(f"ck_{number}.guess"))
        codes.append(await peer.closed())

    late = await field.open(None, mine, bearer(token(field)))
    other = await field.open(None, behind(address()), bearer(token(field)))

    assert codes == [REFUSED] * 3
    assert await late.closed() == 4429
    assert b"retry in" in late.close_reason
    assert await is_let_in(other)


@story(
    "H16",
    "a good token in the address",
    house="guarded",
    dialects=CARRIERS,
    lines=(4,),
    counter='closes.*"unauthenticated"',
)
async def good_token_in_address(field: Field) -> None:
    secret = token(field)
    since = len(field.house.lines)
    for name in ("token", "ticket", "access_token", "jwt"):
        peer = await field.open(f"{field.dialect.path(field.room)}?{name}={secret}")
        assert await peer.closed() == REFUSED

    await field.house.incidents(since)
    assert not any(secret.encode() in line for line in field.house.raw_lines[since:])


@story("H16", "a token in the address of the API", house="guarded", dialects=LINE)
async def token_in_request(field: Field) -> None:
    secret = token(field)
    since = len(field.house.lines)

    answer = await field.ask(
        f"GET /v1/rooms?token={secret} HTTP/1.1\r\nHost: 127.0.0.1:{field.port}\r\n"
        "Connection: close\r\n\r\n".encode()
    )

    assert answer.status in (400, 401)
    await field.house.incidents(since)
    assert secret.encode() not in answer.raw
    assert not any(secret.encode() in line for line in field.house.raw_lines[since:])


@story("H17", "a socket that shows no token", house="guarded", dialects=(HOCUSPOCUS,))
async def no_token(field: Field) -> None:
    peer = await field.open()

    peer.say(b"\x02\x00\x00")

    await peer.until(lambda: bool(peer.answers(b"\x02\x01")) or peer.is_over)


ROWS = [
    _foreign("H1", "https://evil.example"),
    _foreign("H2", "null"),
    _foreign("H2", "https://127.0.0.1.evil.example"),
    cookie_alone,
    program,
    two_credentials,
    two_lines,
    forged_addresses,
    other_headers,
    nonsense,
    many_from_one,
    guessing,
    good_token_in_address,
    token_in_request,
    no_token,
]
