"""Turns: what is known of one beside its id, written beside every update of it, and how one that is open ends."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from typing import Any

import orjson

from collab.errors import CollabError, InvalidMessage

MAX_ABOUT_BYTES = 2048  # of what a member says of its turn, as JSON
MAX_TURN_CHARACTERS = 64
GRACE_SECONDS = 0.2  # that what was on its way when a turn was cancelled is still taken
# How the turns are named that take others back. What stands in one is not taken for an edit of its principal, so that
# nobody may write under such a name.
UNDO = "undo-"

_SAID = ("task", "model", "reason")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_TURN = re.compile(r"[A-Za-z0-9._~-]{1,64}").fullmatch


@dataclass(frozen=True, slots=True)
class About:
    """Every field is "" when it is not known. The first four come from the credential, the rest from the member.

    `undoes` names the turn that this one takes back, and `by` its principal: both only by the server itself.
    """

    name: str = ""  # to be shown to others
    kind: str = ""  # human, agent or service
    on_behalf_of: str = ""  # the principal that asked for it
    role: str = ""  # coordinator, executor, monitor, or what a team calls it
    task: str = ""
    model: str = ""
    reason: str = ""
    undoes: str = ""
    by: str = ""

    def encode(self) -> str:
        """As JSON without the empty fields, "" when all are."""
        known = {name: value for name, value in asdict(self).items() if value}
        return (
            orjson.dumps(known, option=orjson.OPT_SORT_KEYS).decode() if known else ""
        )


_NAMES = frozenset(field.name for field in fields(About))


def read_about(encoded: str) -> About:
    """What `About.encode` wrote; fields that a newer version wrote are passed over."""
    if not encoded:
        return About()
    known: dict[str, Any] = orjson.loads(encoded)
    return About(**{name: value for name, value in known.items() if name in _NAMES})


def read_said(encoded: str) -> About:
    """What a member says of the turn that it begins: a JSON object, of which other fields are passed over.

    Raises InvalidMessage.
    """
    try:
        said = orjson.loads(encoded or "{}")
    except orjson.JSONDecodeError:
        raise InvalidMessage("what is said of a turn is not JSON") from None
    if type(said) is not dict:
        raise InvalidMessage("what is said of a turn is not an object")
    found = {name: said.get(name, "") for name in _SAID}
    for name, value in found.items():
        if type(value) is not str or _CONTROL.search(value):
            raise InvalidMessage(
                f"the {name} of a turn is no text, or has control characters"
            )
    return About(**found)


class Turn:
    """A turn as a member has it open. Once `ended` is set, that is why its updates are refused."""

    __slots__ = ("deleted", "ended", "id", "said")

    def __init__(self, id: str, said: About) -> None:
        self.id, self.said = id, said
        self.ended: CollabError | None = None
        self.deleted = 0  # characters, at most

    def end(self, why: CollabError) -> None:
        """The first reason is the one that counts."""
        self.ended = self.ended or why


def checked_turn(id: str) -> str:
    """The id, unchanged; InvalidMessage when it is none: 1 to 64 letters, digits, dots, dashes, underscores, tildes."""
    if not _TURN(id):
        raise InvalidMessage(
            f"a turn is named by 1 to {MAX_TURN_CHARACTERS} letters, digits and . _ ~ -"
        )
    return id
