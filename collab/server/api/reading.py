"""What a request says, read strictly: nothing is guessed, folded or taken twice. Wrong is 400 with the place."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote_to_bytes

import orjson
from pydantic import BaseModel, ValidationError

from collab.errors import InvalidRequest, UnsupportedMediaType

MAX_QUERY_FIELDS = 32
MAX_DEPTH = 64  # of JSON
MAX_PLACES = 10  # named in one answer

M = TypeVar("M", bound=BaseModel)

_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_PARAMETER = re.compile(r'\s*([a-z0-9-]+)=("[^"\\]*"|[^\s"]+)\s*')


def segments(raw_path: bytes) -> list[str]:
    """The parts of a path, split before they are decoded: `%2F` is a slash inside one of them."""
    return [_decode(part) for part in raw_path.removeprefix(b"/").split(b"/")]


def _decode(part: bytes) -> str:
    if _ESCAPE.search(part):
        raise InvalidRequest("the address is not percent-encoded")
    try:
        return unquote_to_bytes(part).decode()
    except UnicodeDecodeError:
        raise InvalidRequest("the address is not UTF-8") from None


def query(model: type[M] | None, raw: bytes) -> M | None:
    """The query as its model. A field that the model does not have, or that comes twice, is an error."""
    if _ESCAPE.search(raw):
        raise InvalidRequest("the query is not percent-encoded")
    try:
        pairs = parse_qsl(
            raw.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MAX_QUERY_FIELDS,
        )
    except UnicodeError:
        raise InvalidRequest("the query is not UTF-8") from None
    except ValueError:
        raise InvalidRequest(
            f"the query has more than {MAX_QUERY_FIELDS} fields"
        ) from None
    found = dict(pairs)
    if len(found) < len(pairs):
        raise InvalidRequest("the query says something twice")
    if model is None:
        if found:
            raise InvalidRequest("this address takes no query")
        return None
    try:
        return model.model_validate(found)
    except ValidationError as error:
        raise _refusal("query", error, found) from None


def media_type(values: Sequence[str]) -> str:
    """The type in a Content-Type header, in lower case and without its parameters."""
    if len(values) != 1:
        raise UnsupportedMediaType("say what the body is, once, by Content-Type")
    kind, *parameters = values[0].lower().split(";")
    for parameter in parameters:
        found = _PARAMETER.fullmatch(parameter)
        if parameter.strip() and (
            found is None
            or (found[1] == "charset" and found[2].strip('"') not in ("utf-8", "utf8"))
        ):
            raise UnsupportedMediaType("only UTF-8 is read")
    return kind.strip()


def body(model: type[M], raw: bytes) -> M:
    """JSON as its model: strict types, no unknown fields, no field twice, no NaN, no lone surrogates, not deep."""
    value = read_json(raw)
    try:
        # Not of the bytes: what is wrong would be copied into the error, once for each alternative.
        return model.model_validate(value, strict=True)
    except ValidationError as error:
        raise _refusal("body", error, value) from None


def read_json(raw: bytes) -> Any:
    """Refuses what readers of JSON take for different things."""
    try:
        orjson.loads(raw)
        value = json.loads(raw, object_pairs_hook=_once)
    except orjson.JSONDecodeError as error:
        reason = f"the body is not JSON: line {error.lineno}, column {error.colno}"
        raise InvalidRequest(reason) from None
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply") from None
    except ValueError:  # a number of thousands of digits
        raise InvalidRequest("the body holds a number that is too long") from None
    _check_depth(value)
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise InvalidRequest("an object of the body has a field twice")
    return found


def _check_depth(value: object) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        deeper: list[object] = []
        for each in level:
            if isinstance(each, dict):
                deeper += each.values()
            elif isinstance(each, list):
                deeper += each
        if not deeper:
            return
        level = deeper
    raise InvalidRequest(f"the body is nested more than {MAX_DEPTH} deep")


def _refusal(part: str, error: ValidationError, value: object) -> InvalidRequest:
    """Where it is wrong and what is expected there; never what was sent."""
    places = [
        (
            _pointer(each["loc"], value, is_missing=each["type"] == "missing"),
            each["msg"].removeprefix("Value error, "),
        )
        for each in error.errors(
            include_url=False, include_input=False, include_context=False
        )[:MAX_PLACES]
    ]
    first = places[0]
    return InvalidRequest(
        f"the {part} is not as it should be: {first[0] or '/'}: {first[1]}", places
    )


def _pointer(path: Sequence[str | int], value: Any, *, is_missing: bool) -> str:
    """The steps of a path that are in the value: pydantic names its alternatives too."""
    found = ""
    for at, step in enumerate(path):
        is_here = isinstance(value, dict) and step in value
        if is_here or (isinstance(value, list) and isinstance(step, int)):
            value = value[step]
        elif not is_missing or at < len(path) - 1:
            continue
        found += "/" + str(step)[:100].replace("~", "~0").replace("/", "~1")
    return found
