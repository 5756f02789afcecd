"""What is known of a turn beside its id, and of the principal that took it; written beside every update of it."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from typing import Any

import orjson

from collab.errors import InvalidMessage

MAX_ABOUT_BYTES = 2048  # of all fields together, as JSON
MAX_TURN_CHARACTERS = 64

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


def checked_turn(id: str) -> str:
    """The id, unchanged; InvalidMessage when it is none: 1 to 64 letters, digits, dots, dashes, underscores, tildes."""
    if not _TURN(id):
        raise InvalidMessage(
            f"a turn is named by 1 to {MAX_TURN_CHARACTERS} letters, digits and . _ ~ -"
        )
    return id
