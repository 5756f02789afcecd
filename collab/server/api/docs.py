"""The page at /docs: the API for people, made from the OpenAPI document. No script, nothing from elsewhere."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Iterator, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute
from starlette.routing import Router

from collab.server import playground
from collab.server.api.dispatch import Route
from collab.server.api.openapi import describe

MAX_LINE = 50  # characters of a command, so that it need not be broken elsewhere
FONT = "instrument-sans-latin-wght-normal-"

# What a value may look like, by the name of its field, where the type alone says too little.
_EXAMPLES: dict[str, Any] = {
    "name": "team/plan",
    "metadata": {"title": "Plan"},
    "history_seconds": 604800,
    "state": {"user": {"name": "Ada"}},
    "principal": "ada",
    "room": "team/plan",
    "operations": ["read", "write"],
    "root": "text",
    "grants": [{"prefix": "team/", "operations": ["read"]}],
    "op": "replace",
    "path": "/todo/0/done",
    "value": True,
    "old": "colour",
    "new": "color",
    "index": 0,
    "insert": "Hello ",
    "content": "Hello",
    "source": "/todo/0",
    "from": "/todo/0",
}
# Where what is required alone would be no example.
_BODIES: dict[str, Any] = {
    "NewRoom": {"name": "team/plan", "metadata": {"title": "Plan"}},
    "RoomChange": {"metadata": {"title": "Plan B"}},
    "Ticket": {"room": "team/plan"},
    "NewGrant": {"principal": "ada", "room": "team/plan", "operations": ["write"]},
    "Revocation": {"principal": "ada"},
    "Recheck": {"principal": "ada"},
    "TakeBack": {"reason": "not asked for"},
    "TakeBackRange": {"principal": "bot", "from_time": 1_790_000_000_000},
    "Patch": [{"op": "replace", "path": "/todo/0/done", "value": True}],
    "Edits": {"splices": [{"root": "text", "index": 0, "insert": "Hello "}]},
}

_MARK = (
    '<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M7 3v18M4.6 3h4.8M4.6 21h4.8"/>'
    '<path d="M17 3v18M14.6 3h4.8M14.6 21h4.8"/></svg>'
)


def make_docs(routes: Sequence[Route]) -> Router:
    """The page, made at once: that takes as long as a hundred frames."""
    page, policy = _page(routes), _policy()

    async def docs(request: Request) -> Response:
        answer = page.response(request)
        answer.headers["content-security-policy"] = policy
        return answer

    return Router([StarletteRoute("/docs", docs)])


@cache
def _style() -> str:
    font = next(name for name in playground.load() if name.startswith(FONT))
    sheet = (files("collab.server.api") / "docs.css").read_text()
    return sheet.replace("FONT", f"/static/{font}")


def _policy() -> str:
    """As of the playground, and the one style sheet that stands in the page."""
    digest = hashlib.sha256(_style().encode()).digest()
    allowed = f"style-src 'sha256-{b64encode(digest).decode()}'"
    return playground.POLICY.replace("style-src 'self'", allowed).replace(
        "script-src 'self'", "script-src 'none'"
    )


def _page(routes: Sequence[Route]) -> playground.Page:
    document = describe(routes)
    content = "".join(_Writer(document).page())
    return playground.Page("index.html", content.encode())


class _Writer:
    """Writes one document as HTML."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self._schemas: dict[str, Any] = document["components"]["schemas"]
        self._groups: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                group = self._groups.setdefault(operation["tags"][0], [])
                group.append((method.upper(), path, operation))
        # What every route may answer that asks for a token: said once.
        self._common = [
            each
            for each in _problems(document["paths"]["/v1/rooms"]["get"])
            if all(
                each in _problems(operation)
                for group in self._groups.values()
                for _, _, operation in group
                if operation["security"]
            )
        ]

    def page(self) -> Iterator[str]:
        info = self._document["info"]
        yield (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta name="color-scheme" content="light dark">'
            f"<title>{escape(info['title'])}: REST API</title>"
            f"<style>{_style()}</style></head><body>"
            '<a class="skip" href="#main">Skip to the routes</a>'
            f'<header class="bar"><a class="brand" href="/">{_MARK}<span>collab</span></a>'
            f"<h1>REST API <small>{escape(info['version'])}</small></h1>"
            '<a class="raw" href="/v1/openapi.json">openapi.json</a></header>'
        )
        yield from self._contents()
        yield '<main id="main"><section class="intro"><div>'
        for paragraph in info["description"].split("\n\n"):
            yield f"<p>{_prose(paragraph)}</p>"
        yield "<p>Any route may answer:</p>"
        yield from _errors(self._common)
        yield '</div><div class="code"><h4>Try it</h4>'
        yield _code(
            "# no token on a server without access control\n"
            "export TOKEN=…\n"
            'curl -H "Authorization: Bearer $TOKEN" http://127.0.0.1:8000/v1/rooms'
        )
        yield "</div></section>"
        for group, operations in self._groups.items():
            yield f'<h2 id="{group}">{_title(group)}</h2>'
            for method, path, operation in operations:
                yield from self._operation(method, path, operation)
        yield '<h2 id="schemas">Bodies</h2>'
        for name, schema in sorted(self._schemas.items()):
            yield from self._schema(name, schema)
        yield "</main></body></html>"

    def _contents(self) -> Iterator[str]:
        yield '<nav aria-label="Routes">'
        for group, operations in self._groups.items():
            yield f'<h3><a href="#{group}">{_title(group)}</a></h3><ul>'
            for method, _, operation in operations:
                yield (
                    f'<li><a href="#{operation["operationId"]}">{_method(method)}'
                    f"<span>{escape(operation['summary'])}</span></a></li>"
                )
            yield "</ul>"
        yield '<h3><a href="#schemas">Bodies</a></h3></nav>'

    def _operation(
        self, method: str, path: str, operation: dict[str, Any]
    ) -> Iterator[str]:
        id = operation["operationId"]
        yield (
            f'<article id="{id}"><div><h3><a href="#{id}">{escape(operation["summary"])}</a></h3>'
            f'<p class="address">{_method(method)}<code>{_path(path)}</code></p>'
            f'<p class="needs">Needs <b>{escape(operation["x-needs"])}</b></p>'
        )
        if operation["description"]:
            yield f"<p>{_prose(operation['description'])}</p>"
        parameters = [
            each for each in operation["parameters"] if each["name"] != "room"
        ]
        if parameters:
            yield '<h4>Parameters</h4><dl class="fields">'
            for each in parameters:
                where = "" if each["in"] == "path" else f" in the {each['in']}"
                yield self._field(
                    each["name"],
                    each["schema"],
                    each.get("description", ""),
                    note=where.strip(),
                    is_required=each.get("required", False),
                )
            yield "</dl>"
        body = operation.get("requestBody")
        if body:
            yield "<h4>Body</h4>"
            yield self._bodies(body["content"])
            for each in body["content"].values():
                name = each["schema"].get("$ref", "").rpartition("/")[2]
                yield from self._fields(self._schemas.get(name, {}))
        yield '<h4>Answers</h4><dl class="answers">'
        for status, answer in operation["responses"].items():
            if status < "400":
                yield f"<dt>{status}</dt><dd>"
                content = answer.get("content")
                yield self._bodies(content) if content else "Nothing more to say."
                for name, header in answer.get("headers", {}).items():
                    yield f"<p><code>{escape(name)}</code> {_prose(header['description'])}</p>"
                yield "</dd>"
        yield "</dl>"
        yield from _errors(self._own_errors(operation))
        yield '</div><div class="code"><h4>With curl</h4>'
        yield _code(self._curl(method, path, operation))
        yield "</div></article>"

    def _own_errors(self, operation: dict[str, Any]) -> list[tuple[str, str]]:
        return [each for each in _problems(operation) if each not in self._common]

    def _bodies(self, content: dict[str, Any]) -> str:
        return "".join(
            f'<p class="body">{self._type(each["schema"]) or "bytes"} <span>{escape(kind)}</span></p>'
            for kind, each in content.items()
        )

    def _schema(self, name: str, schema: dict[str, Any]) -> Iterator[str]:
        yield f'<article id="{name}" class="schema"><div><h3><a href="#{name}">{name}</a></h3>'
        if schema.get("description"):
            yield f"<p>{_prose(schema['description'])}</p>"
        if "properties" in schema:
            yield from self._fields(schema)
        else:
            yield f'<p class="body">{self._type(schema)}</p>'
        yield "</div></article>"

    def _fields(self, schema: dict[str, Any]) -> Iterator[str]:
        if "properties" in schema:
            yield '<dl class="fields">'
            for field, about in schema["properties"].items():
                yield self._field(
                    field,
                    about,
                    _description(about),
                    is_required=field in schema.get("required", ()),
                )
            yield "</dl>"

    def _field(
        self,
        name: str,
        schema: dict[str, Any],
        description: str,
        *,
        is_required: bool,
        note: str = "",
    ) -> str:
        default = schema.get("default")
        said = [note] if note else []
        if default not in (None, "", {}, []):
            said.append(f"default {json.dumps(default)}")
        said += [f"at least {schema['minimum']}"] if schema.get("minimum") else []
        said += [f"at most {schema['maximum']}"] if schema.get("maximum") else []
        shown = escape(", ".join(said))
        return (
            f"<dt><code>{escape(name)}</code>{'<b>required</b>' if is_required else ''}</dt>"
            f'<dd><span class="type">{self._type(schema)}</span> <span class="note">{shown}</span>'
            f"{f'<p>{_prose(description)}</p>' if description else ''}</dd>"
        )

    def _type(self, schema: dict[str, Any]) -> str:
        """In words, with links to what stands further down."""
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            return f'<a href="#{name}">{name}</a>'
        for key in ("anyOf", "oneOf"):
            if key in schema:
                return " or ".join(
                    dict.fromkeys(self._type(each) for each in schema[key])
                )
        if "enum" in schema:
            return " or ".join(
                f"<code>{escape(str(each))}</code>" for each in schema["enum"]
            )
        if "const" in schema:
            return f"<code>{escape(str(schema['const']))}</code>"
        kind = schema.get("type", "")
        if kind == "array":
            return f"list of {self._type(schema.get('items', {})) or 'anything'}"
        if kind == "object":
            inner = schema.get("additionalProperties")
            return (
                f"object of {self._type(inner) or 'anything'}"
                if isinstance(inner, dict)
                else "object"
            )
        return escape(
            {"integer": "whole number", "boolean": "true or false"}.get(kind, kind)
        )

    def _curl(self, method: str, path: str, operation: dict[str, Any]) -> str:
        address = path.replace("{room}", "team%2Fplan")
        required = [
            f"{each['name']}={_sample(each['name'])}"
            for each in operation["parameters"]
            if each["in"] == "query" and each.get("required")
        ]
        query = "?" + "&".join(required) if required else ""
        lines = ["curl" if method == "GET" else f"curl -X {method}"]
        lines.append(f'"http://127.0.0.1:8000{address}{query}"')
        if len(lines[0]) + len(lines[1]) < MAX_LINE:
            lines[:2] = [" ".join(lines[:2])]
        if operation["security"]:
            lines.append('-H "Authorization: Bearer $TOKEN"')
        content = operation.get("requestBody", {}).get("content", {})
        for kind, each in content.items():
            lines.append(f'-H "Content-Type: {kind}"')
            if "$ref" in each["schema"]:
                lines.append(f"-d '{json.dumps(self._example(each['schema']))}'")
            else:
                lines.append("--data-binary @update.bin")
            break
        return " \\\n  ".join(lines)

    def _example(self, schema: dict[str, Any]) -> Any:
        if "$ref" not in schema:
            return {}
        name = schema["$ref"].rpartition("/")[2]
        if name in _BODIES:
            return _BODIES[name]
        found = self._schemas[name]
        return {
            field: _EXAMPLES.get(field, "…")
            for field in found.get("properties", {})
            if field in found.get("required", ())
        }


def _description(schema: dict[str, Any]) -> str:
    """Of a field; of what it may be beside null, where only that has one."""
    kinds = (schema, *schema.get("anyOf", ()))
    return next((each["description"] for each in kinds if "description" in each), "")


def _problems(operation: dict[str, Any]) -> list[tuple[str, str]]:
    """Status and code of every error that is documented."""
    return [
        (status, code.strip("`"))
        for status, answer in operation["responses"].items()
        if status >= "400"
        for code in answer["description"].split(", ")
    ]


def _errors(problems: list[tuple[str, str]]) -> Iterator[str]:
    if problems:
        yield '<ul class="errors">'
        for status, code in problems:
            yield f"<li>{status} <code>{escape(code)}</code></li>"
        yield "</ul>"


def _sample(name: str) -> str:
    return str(_EXAMPLES.get(name, "…")).replace("/", "%2F")


def _title(group: str) -> str:
    return "This document" if group == "routes" else group.capitalize()


def _method(method: str) -> str:
    kind = "reads" if method == "GET" else "writes"
    return f'<b class="method {kind}">{method}</b>'


def _path(path: str) -> str:
    broken = escape(path).replace("/", "/<wbr>")
    return broken.replace("{", "<i>{").replace("}", "}</i>")


def _prose(text: str) -> str:
    """Text in which backticks mean code."""
    parts = escape(text, quote=False).split("`")
    return "".join(
        f"<code>{part}</code>" if at % 2 else part for at, part in enumerate(parts)
    )


def _code(text: str) -> str:
    return f'<pre tabindex="0"><code>{escape(text, quote=False)}</code></pre>'
