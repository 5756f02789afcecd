"""The authors that an answer about the past speaks of."""

from __future__ import annotations

from collections.abc import Mapping

from collab.store.base import Author
from collab.turns import read_about

Owners = Mapping[int, str]  # client id → principal


class People:
    """The authors that an answer speaks of, each once, by number."""

    def __init__(self) -> None:
        self.shown: list[dict[str, str]] = []
        self._numbers: dict[tuple[Author, str], int] = {}

    def number(self, author: Author, owner: str | None = None) -> int:
        """Of somebody. Where the client id belongs to another principal, that one wrote it, and this one brought it."""
        is_relayed = bool(owner and author.principal and owner != author.principal)
        principal = owner if owner and is_relayed else author.principal
        key = author._replace(connection=""), principal
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.shown)
            self.shown.append(show(author, principal))
        return number


def show(author: Author, principal: str) -> dict[str, str]:
    """An author as an answer has it, who wrote under a client id of this principal."""
    about = read_about(author.about)
    # Of the owner of relayed edits nothing else is known here.
    is_known = principal == author.principal
    return {
        "principal": principal,
        "name": about.name if is_known else "",
        "kind": about.kind if is_known else "",
        "on_behalf_of": about.on_behalf_of if is_known else "",
        "role": about.role if is_known else "",
        "turn": author.turn or "",
        "task": about.task,
        "model": about.model,
        "reason": about.reason,
        "undoes": about.undoes,
        "by": about.by,
        "introduced_by": "" if is_known else author.principal,
    }
