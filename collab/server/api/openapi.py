"""The table of routes as an OpenAPI 3.1 document; the schemas are pydantic's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

import collab
from collab.auth.permissions import names_of
from collab.errors import (
    Busy,
    CollabError,
    Conflict,
    InvalidRequest,
    InvalidRoomName,
    PermissionDenied,
    RateLimited,
    StoreUnavailable,
    TooLarge,
    Unauthenticated,
    UnsupportedMediaType,
)
from collab.server.api.dispatch import Bodies, Route
from collab.server.api.models import Problem

_REFERENCE = "#/components/schemas/{model}"
_PROBLEM = {
    "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
}

# Refused while the address and the headers are read, whatever they lead to.
_BEFORE_ROUTES = ((408, "handshake_timeout"), (414, "too_large"), (431, "too_large"))

DESCRIPTION = """Rooms, their documents and who is in them, over plain HTTP.

The name of a room is one segment of the path, percent-encoded: a slash in it is `%2F`. Whoever may not read a room
gets the same answer whether it exists or not. A write with an `Idempotency-Key` that is sent again happens once, and
its answer comes again, for 24 hours. Every error is `application/problem+json`, and its `code` is stable."""


def describe(routes: Sequence[Route]) -> dict[str, Any]:
    """The document, with everything that may be asked and every answer there is."""
    taken = {model for route in routes for model in _models(route.takes)}
    given = {model for route in routes for model in _models(route.gives)} | {Problem}
    _, definitions = models_json_schema(
        [
            *((model, "validation") for model in sorted(taken, key=_by_name)),
            *((model, "serialization") for model in sorted(given, key=_by_name)),
        ],
        ref_template=_REFERENCE,
    )
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "collab",
            "version": collab.__version__,
            "description": DESCRIPTION,
        },
        "paths": paths,
        "components": {
            "schemas": definitions.get("$defs", {}),
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A JWT or an API key. Not asked for on a server without access control.",
                }
            },
        },
    }


def operation_id(route: Route) -> str:
    """The module and name of the handler: `rooms.describe`."""
    return f"{route.handler.__module__.rpartition('.')[2]}.{route.handler.__name__}"


def _by_name(model: type[BaseModel]) -> str:
    return model.__name__


def _models(bodies: Bodies) -> list[type[BaseModel]]:
    return [model for model in bodies.values() if model is not None]


def _operation(route: Route) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": operation_id(route),
        "tags": [operation_id(route).partition(".")[0]],
        "summary": route.summary,
        "description": " ".join((route.handler.__doc__ or "").split()),
        "security": [] if route.needs == "none" else [{"token": []}],
        "x-needs": needs(route),
        "parameters": _parameters(route),
        "responses": _responses(route),
    }
    if route.takes:
        found["requestBody"] = {"required": True, "content": _content(route.takes)}
    return found


def needs(route: Route) -> str:
    """In words, who may."""
    match route.needs:
        case "none":
            return "nothing"
        case "self":
            return "a valid token"
        case operations:
            where = "room" if "{room}" in route.path or route.names else "tenant"
            return f"{' and '.join(names_of(operations))} in the {where}"


def _parameters(route: Route) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for segment in route.segments:
        if segment[0] == "{":
            name = segment[1:-1]
            schema: dict[str, Any] = {"type": "string", "minLength": 1}
            if name == "room":
                schema |= {"maxLength": 256, "format": "room-name"}
            found.append(
                {"name": name, "in": "path", "required": True, "schema": schema}
            )
    if route.query is not None:
        schema = route.query.model_json_schema(ref_template=_REFERENCE)
        for name, field in schema["properties"].items():
            found.append(
                {
                    "name": name,
                    "in": "query",
                    "required": name in schema.get("required", ()),
                    "description": field.pop("description", ""),
                    "schema": field,
                }
            )
    for name, meaning in route.headers:
        found.append(
            {
                "name": name,
                "in": "header",
                "description": meaning,
                "schema": {"type": "string"},
            }
        )
    if route.is_write:
        found.append(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "description": "Sent again with the same request, nothing happens twice.",
                "schema": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 255,
                    "pattern": "^[!-~]+$",
                },
            }
        )
    return found


def _content(bodies: Bodies) -> dict[str, Any]:
    return {
        kind: {
            "schema": {"$ref": _REFERENCE.format(model=model.__name__)}
            if model is not None
            else {}
        }
        for kind, model in bodies.items()
    }


def _responses(route: Route) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": route.summary}
    if route.gives:
        answer["content"] = _content(route.gives)
    if route.shows:
        answer["headers"] = {
            name: {"description": meaning, "schema": {"type": "string"}}
            for name, meaning in route.shows
        }
    found = {str(route.status if route.gives else 204): answer}
    if "If-None-Match" in dict(route.headers):
        found["304"] = {"description": "What you have is still so."}
    codes = [(error.http_status, error.code) for error in errors(route)]
    for number, code in sorted({*codes, *_BEFORE_ROUTES}):
        status = str(number)
        if status in found:
            found[status]["description"] += f", `{code}`"
        else:
            found[status] = {"description": f"`{code}`", "content": _PROBLEM}
    return found


def errors(route: Route) -> list[type[CollabError]]:
    """All that a route may answer."""
    found: list[type[CollabError]] = [InvalidRequest, *route.errors]
    if route.needs != "none":
        found += [Unauthenticated, RateLimited, Busy, StoreUnavailable]
    if isinstance(route.needs, int):
        found += [PermissionDenied]
    if "{room}" in route.path:
        found += [InvalidRoomName]
    if route.takes:
        found += [UnsupportedMediaType, TooLarge]
    if route.is_write:
        found += [Conflict]
    return list(dict.fromkeys(found))
