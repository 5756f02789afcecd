"""The page for people: complete, without script, and nothing from elsewhere."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser

import pytest
from calling import open_api

from collab.server.api.openapi import operation_id
from collab.server.api.routes import ROUTES

pytestmark = pytest.mark.anyio

VOID = {"meta", "link", "wbr", "path"}


class Reader(HTMLParser):
    """What a browser would see of it: tags that fit each other, addresses, anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.add(tag)
        self.attributes |= set(found)
        self.links += [
            value for name, value in attrs if name in ("href", "src") and value
        ]
        if found.get("id"):
            self.ids.append(str(found["id"]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(
        self, tag: str, attrs: list[tuple[str, str | None]]
    ) -> None: ...

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


async def page() -> tuple[str, str]:
    """The text, and its policy."""
    async with open_api() as call:
        answer = await call("GET", "/docs", token="")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        return answer.text, answer.headers["content-security-policy"]


async def test_every_route_is_shown_with_a_command_to_try_it() -> None:
    text, _ = await page()

    ids = Reader(text).ids
    assert [
        operation_id(route) for route in ROUTES if operation_id(route) not in ids
    ] == []
    assert text.count("<h4>With curl</h4>") == len(ROUTES)


async def test_every_link_leads_somewhere_and_none_elsewhere() -> None:
    reader = Reader((await page())[0])

    assert len(set(reader.ids)) == len(reader.ids)
    for link in reader.links:
        assert link in ("/", "/v1/openapi.json") or link.removeprefix("#") in reader.ids


async def test_nothing_runs_and_nothing_is_loaded_from_elsewhere() -> None:
    text, policy = await page()

    reader = Reader(text)
    assert not {"script", "img", "iframe", "form", "object"} & reader.tags
    assert not [name for name in reader.attributes if name.startswith("on")]
    assert "style" not in reader.attributes
    assert "script-src 'none'" in policy
    assert re.findall(r"url\((?!\"/static/)", text) == []


async def test_the_policy_allows_the_style_of_the_page_and_no_other() -> None:
    text, policy = await page()

    (style,) = re.findall(r"<style>(.*?)</style>", text, flags=re.DOTALL)
    digest = b64encode(sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy


async def test_what_has_not_changed_is_not_sent_again() -> None:
    async with open_api() as call:
        first = await call("GET", "/docs")

        again = await call(
            "GET", "/docs", headers={"if-none-match": first.headers["etag"]}
        )

        assert (again.status_code, again.content) == (304, b"")
