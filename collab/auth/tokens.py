"""JWTs: who signed it, what it says, and for how long. A token is verified once, not for each room or message."""

from __future__ import annotations

import json
import re
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from typing import Any, NamedTuple

from collab import logs
from collab.auth import claims as read
from collab.auth.base import INVALID, Credential
from collab.auth.claims import MAX_TEXT_BYTES, Unfit
from collab.auth.permissions import Principal
from collab.auth.signing import Keyring, SigningKey
from collab.errors import Unauthenticated

MAX_TOKEN_BYTES = 16_384
MAX_LIFE_SECONDS = 86_400  # a token that outlives a day cannot be taken back by waiting
LEEWAY_SECONDS = 60  # that an issuer's clock may be ahead of ours
MAX_VERIFIED = 10_000  # the one that was used longest ago is verified again

_JWS = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_TYPES = ("jwt", "at+jwt", "application/jwt", "application/at+jwt")

log = logs.logger(__name__)


class _Verified(NamedTuple):
    principal: Principal
    thumbprint: str  # of the key that signed it


class Tokens:
    """The verifier of JWTs. What has two dots or more is for it, and for no verifier after it."""

    def __init__(
        self,
        keys: Keyring,
        *,
        audience: str = "",
        issuer: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keys, self._clock = keys, clock
        self._audience, self._issuer = audience, issuer
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()

    async def verify(self, credential: Credential, room: str) -> Principal | None:
        token = credential.token
        if token.count(".") < 2:
            return None
        try:
            if len(token) > MAX_TOKEN_BYTES:
                raise Unfit("too long")
            digest = sha256(token.encode("ascii", "replace")).digest()
            known = self._known(digest)
            if known is None:
                known = await self._verify(token)
                self._keep(digest, known)
            return known.principal
        except Unfit as error:
            log.debug("token refused", reason=str(error))
            raise Unauthenticated(INVALID) from None

    def _known(self, digest: bytes) -> _Verified | None:
        known = self._verified.get(digest)
        if known is None:
            return None
        is_over = known.principal.expires <= self._clock()
        if is_over or not self._keys.holds(known.thumbprint):
            del self._verified[digest]
            return None
        self._verified.move_to_end(digest)
        return known

    def _keep(self, digest: bytes, verified: _Verified) -> None:
        self._verified[digest] = verified
        if len(self._verified) > MAX_VERIFIED:
            self._verified.popitem(last=False)

    async def _verify(self, token: str) -> _Verified:
        found = _JWS.fullmatch(token)
        if found is None:
            raise Unfit("not a signed token")
        header = read.parse(_decode(found[1]))
        key = await self._signer(header, token, _decode(found[3]))
        return _Verified(self._principal(read.parse(_decode(found[2]))), key.thumbprint)

    async def _signer(
        self, header: dict[str, Any], token: str, signature: bytes
    ) -> SigningKey:
        """The key that signed it. The header chooses among our keys and says nothing else that is believed.

        `jku`, `x5u`, `jwk` and `x5c` are not looked at: where keys come from is not for the token to say.
        """
        kind = header.get("typ")
        if type(kind) is not str or kind.lower() not in _TYPES:
            raise Unfit("typ is that of another class of token")
        if "crit" in header or "b64" in header or "zip" in header or "cty" in header:
            raise Unfit("an extension that is not understood")
        algorithm, id = header.get("alg"), header.get("kid", "")
        if type(algorithm) is not str or type(id) is not str:
            raise Unfit("alg or kid is not a text")
        if len(id) > MAX_TEXT_BYTES:
            raise Unfit("kid is too long")
        content = token.rpartition(".")[0].encode("ascii")
        for key in await self._keys.find(id, algorithm):
            if key.verifies(content, signature):
                return key
        raise Unfit("not signed by a key of ours")

    def _principal(self, claims: dict[str, Any]) -> Principal:
        expires, issued = self._times(claims)
        return Principal(
            expires=expires,
            issued=issued,
            grants=read.grants(claims),
            token=read.text(claims, "jti"),
            **self._addressed(claims),
        )

    def _times(self, claims: dict[str, Any]) -> tuple[float, float]:
        """Until when it is valid, and since when."""
        now = self._clock()
        expires = read.seconds(claims, "exp")
        if expires is None:
            raise Unfit("exp is missing")
        if expires <= now:
            raise Unfit("expired")
        if expires > now + MAX_LIFE_SECONDS + LEEWAY_SECONDS:
            raise Unfit("exp is more than a day ahead")
        for name in ("nbf", "iat"):
            if (read.seconds(claims, name) or 0) > now + LEEWAY_SECONDS:
                raise Unfit(f"{name} is in the future")
        issued = read.seconds(claims, "iat")
        if issued is None:
            return expires, 0.0
        if expires - issued > MAX_LIFE_SECONDS:
            # Else it could be shown for the first time when a revocation of its day is forgotten.
            raise Unfit("good for more than a day")
        return expires, max(0.0, min(issued, now))

    def _addressed(self, claims: dict[str, Any]) -> dict[str, Any]:
        """Who it is for and from, when that is to be looked at; then who it speaks of."""
        if self._issuer and claims.get("iss") != self._issuer:
            raise Unfit("from another issuer")
        if self._audience:
            audience = claims.get("aud")
            if type(audience) is str:
                audience = [audience]
            if type(audience) is not list or self._audience not in audience:
                raise Unfit("for another audience")
        return read.person(claims, "sub")


def mint(key: SigningKey, claims: dict[str, Any]) -> str:
    """A signed token."""
    header = {"alg": key.algorithm, "typ": "JWT"} | ({"kid": key.id} if key.id else {})
    content = b".".join(map(_written, (header, claims)))
    return (content + b"." + _encode(key.sign(content))).decode()


def _written(part: dict[str, Any]) -> bytes:
    return _encode(json.dumps(part, separators=(",", ":")).encode())


def _encode(content: bytes) -> bytes:
    return urlsafe_b64encode(content).rstrip(b"=")


def _decode(segment: str) -> bytes:
    """Strict: one content has one spelling."""
    try:
        content = urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except ValueError:
        raise Unfit("not base64url") from None
    if _encode(content) != segment.encode():
        raise Unfit("not base64url")
    return content
