"""What schemathesis cannot know: which strings are names of rooms, which bytes are updates."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from typing import Any

import schemathesis
from hypothesis import strategies as st
from pycrdt import Doc, Text

from collab.errors import CollabError
from collab.names import principal_id, room_name


def is_name(text: str) -> bool:
    try:
        return bool(room_name(text))
    except CollabError:
        return False


def update(word: str) -> bytes:
    doc: Doc[Any] = Doc()
    doc.get("text", type=Text).insert(0, word)
    return doc.get_update()


def state_vector(word: str) -> str:
    doc: Doc[Any] = Doc()
    doc.apply_update(update(word))
    return urlsafe_b64encode(doc.get_state()).decode()


def is_principal(text: str) -> bool:
    try:
        return bool(principal_id(text))
    except CollabError:
        return False


NAMES = st.text(min_size=1, max_size=40)
WORDS = st.text("abc", min_size=1, max_size=9)

schemathesis.openapi.format("room-name", NAMES.filter(is_name))
schemathesis.openapi.format(
    "room-prefix", st.just("") | NAMES.map(lambda name: f"{name}/").filter(is_name)
)
schemathesis.openapi.format("principal-id", NAMES.filter(is_principal))
schemathesis.openapi.format("state-vector", WORDS.map(state_vector))
schemathesis.openapi.media_type("application/octet-stream", WORDS.map(update))


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """A position that is far off is waited for, and that takes its time."""
    query = case.query or {}
    position = str(query.get("min_position", ""))
    if position.isascii() and position.isdigit():
        query["min_position"] = 0
