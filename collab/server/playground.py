"""The playground: the committed bundle in pages/, served from memory under a policy that allows nothing inline."""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

# `connect-src 'self'` covers the WebSocket of the same address.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "font-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)

HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}

# Not from the system's table, which differs between machines.
MEDIA_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
    "woff2": "font/woff2",
}

# Their names do not change with their content, so every use asks whether it changed.
_LASTING_NAMES = frozenset({"index.html", "licences.txt"})


@dataclass(frozen=True)
class Page:
    """One file of the bundle."""

    name: str
    content: bytes

    @cached_property
    def compressed(self) -> bytes | None:
        """With gzip; None where that gains nothing."""
        if self.name.endswith(".woff2"):
            return None
        return gzip.compress(self.content, mtime=0)

    @cached_property
    def digest(self) -> str:
        """What stands in the entity tag: the content and nothing else."""
        return hashlib.sha256(self.content).hexdigest()[:32]

    def response(self, request: Request) -> Response:
        """The file, or 304 when the client's copy is the same in the same encoding."""
        compressed = self.compressed if accepts_gzip(request) else None
        tag = f'"{self.digest}-gzip"' if compressed else f'"{self.digest}"'
        headers = HEADERS | {
            "cache-control": (
                "no-cache"
                if self.name in _LASTING_NAMES
                else "public, max-age=31536000, immutable"
            ),
            "etag": tag,
            "vary": "accept-encoding",
        }
        if matches(request.headers.get("if-none-match", ""), tag):
            return Response(status_code=304, headers=headers)
        if compressed:
            headers["content-encoding"] = "gzip"
        return Response(
            compressed or self.content,
            headers=headers,
            media_type=MEDIA_TYPES[self.name.rpartition(".")[2]],
        )


def accepts_gzip(request: Request) -> bool:
    """Whether the client takes gzip; `q=0` says that it does not."""
    for choice in request.headers.get("accept-encoding", "").lower().split(","):
        coding, _, weight = choice.partition(";")
        if coding.strip() in ("gzip", "*"):
            return weight.strip() not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def matches(wanted: str, tag: str) -> bool:
    """RFC 9110: any of the tags named, compared weakly, or `*`."""
    named = {each.strip().removeprefix("W/") for each in wanted.split(",")}
    return tag in named or "*" in named


def load() -> dict[str, Page]:
    """The files that the bundle's manifest names."""
    folder = files("collab.server") / "pages"
    manifest = json.loads((folder / "manifest.json").read_bytes())
    return {
        name: Page(name, (folder / name).read_bytes()) for name in manifest["files"]
    }


def routes() -> list[Route]:
    """`/` and `/static/{file}`."""
    pages = load()

    async def index(request: Request) -> Response:
        return pages["index.html"].response(request)

    async def static(request: Request) -> Response:
        page = pages.get(request.path_params["file"])
        if page is None:
            return Response("Not Found", status_code=404, media_type="text/plain")
        return page.response(request)

    return [
        Route("/", index, name="playground"),
        Route("/static/{file}", static, name="static"),
    ]
