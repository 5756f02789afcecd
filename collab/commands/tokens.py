"""`collab token`: signs a token to try things with; in earnest the team's own login does that."""

from __future__ import annotations

import re
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import quote

import typer

from collab.commands.base import AsJson, command, show_json
from collab.errors import ConfigurationError

if TYPE_CHECKING:
    from collab.auth.signing import SigningKey

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@command("token")
def mint_token(
    sub: Annotated[str, typer.Option(help="Who the token speaks for.")] = "",
    room: Annotated[
        list[str] | None,
        typer.Option(
            help="A room to be let into: notes, or notes=read,write. May be repeated."
        ),
    ] = None,
    prefix: Annotated[
        list[str] | None,
        typer.Option(
            help="Likewise all rooms that begin with a prefix: team-a/, or an empty one for every room."
        ),
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Not only to read and be seen.")
    ] = False,
    expires: Annotated[
        str, typer.Option(help="How long it is good for: 90s, 15m, 1h; 24h at most.")
    ] = "1h",
    key: Annotated[
        Path | None,
        typer.Option(help="The key to sign with: a JWK, JWKS, PEM or secret file."),
    ] = None,
    new_key: Annotated[
        Path | None,
        typer.Option(help="Make a key in a new file first, for its owner's eyes only."),
    ] = None,
    public: Annotated[
        bool,
        typer.Option(
            "--public",
            help="Print the public half of the key, which checks what it signs, as a JWKS for jwt_keys, and no token.",
        ),
    ] = False,
    tenant: Annotated[str, typer.Option(help="The tenant whose rooms these are.")] = "",
    kind: Annotated[
        Literal["human", "agent", "service"] | None,
        typer.Option(help="What it is; a human when nothing is said."),
    ] = None,
    name: Annotated[str, typer.Option(help="To be shown to others.")] = "",
    act: Annotated[
        str,
        typer.Option(
            help="Who acts, by default an agent, on behalf of the subject; kind and name are then its own."
        ),
    ] = "",
    role: Annotated[
        str, typer.Option(help="What it does: coordinator, executor, monitor.")
    ] = "",
    audience: Annotated[str, typer.Option(help="What jwt_audience asks for.")] = "",
    issuer: Annotated[str, typer.Option(help="What jwt_issuer asks for.")] = "",
    link: Annotated[
        str,
        typer.Option(
            help="Address of a server, such as http://127.0.0.1:8000: print a link that signs in to its page instead."
        ),
    ] = "",
    json: AsJson = False,
) -> None:
    """Sign a token to try things with, and print it.

    `collab token --new-key key.json` makes a key; `collab serve --auth jwt --jwt-keys key.json` takes what it signs.
    """
    from collab.auth.signing import make_key
    from collab.auth.tokens import mint

    if new_key is not None and key is not None:
        raise ConfigurationError("either a key that there is, or a new one")
    if public:
        half = (_signer(key) if new_key is None else make_key(new_key)).public
        show_json({"keys": [half]})
        return
    if new_key is not None and not sub:
        made = make_key(new_key)
        if json:
            show_json({"key": str(new_key), "kid": made.id})
        else:
            typer.echo(f"made {new_key}")
        return
    now = int(time.time())
    flags = ["read", "write", "presence"] if write else ["read", "presence"]
    shown = {"kind": kind or ("agent" if act else "human"), "name": name}
    shown = {claim: value for claim, value in shown.items() if value}
    claims: dict[str, Any] = {
        "sub": sub,
        "iss": issuer,
        "aud": audience,
        "tenant": tenant,
        **({"act": {"sub": act, **shown}} if act else shown),
        "role": role,
        "iat": now,
        "exp": now + _seconds(expires),
        "jti": secrets.token_hex(8),
        "rooms": dict(_right(said, flags) for said in room or ()),
        "prefixes": dict(_right(said, flags) for said in prefix or ()),
    }
    claims = {claim: value for claim, value in claims.items() if value not in ("", {})}
    _check(claims)
    token = mint(_signer(key) if new_key is None else make_key(new_key), claims)
    if json:
        ends = datetime.fromtimestamp(claims["exp"], UTC).isoformat()
        show_json({"token": token, "expires": ends, "claims": claims})
    elif link:
        typer.echo(_link(link, list(claims.get("rooms", {})), token))
    else:
        typer.echo(token)


def _link(address: str, rooms: list[str], token: str) -> str:
    """What stands behind `#` is sent to no server; the page takes it from there."""
    room = f"?room={quote(rooms[0], safe='')}" if len(rooms) == 1 else ""
    return f"{address.rstrip('/')}/{room}#token={token}"


def _signer(path: Path | None) -> SigningKey:
    from collab.auth.signing import ALGORITHMS, read_keys

    if path is None:
        raise ConfigurationError("say which key signs it with --key, or --new-key")
    for key in read_keys(path, ALGORITHMS):
        if key.is_secret:
            return key
    raise ConfigurationError(f"{path} holds only public keys, which sign nothing")


def _right(said: str, flags: list[str]) -> tuple[str, list[str]]:
    name, equals, operations = said.rpartition("=")
    if not equals:
        return said, flags
    return name, [one.strip() for one in operations.split(",") if one.strip()]


def _seconds(said: str) -> int:
    found = re.fullmatch(r"([0-9]{1,6})([smhd]?)", said)
    seconds = int(found[1]) * _UNITS.get(found[2], 1) if found else 0
    if not 0 < seconds <= 86_400:
        raise ConfigurationError(
            f"a token is good for 1s to 24h, such as 15m; not {said}"
        )
    return seconds


def _check(claims: dict[str, Any]) -> None:
    """As the server will: a token that it refuses helps nobody."""
    from collab.auth.claims import Unfit, grants, person

    try:
        person(claims, "sub")
        if not grants(claims):
            raise ConfigurationError(
                "say what it is for, with --room notes or --prefix team-a/"
            )
    except Unfit as error:
        raise ConfigurationError(f"no server would take this token: {error}") from None
