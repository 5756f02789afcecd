"""Doc: a room's document as an agent sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pycrdt

from collab.sdk.provider import Provider

if TYPE_CHECKING:
    from collab.sdk.agent import Agent


class Doc:
    """One open document. Offsets are characters."""

    def __init__(self, provider: Provider, agent: Agent) -> None:
        self.provider, self.agent = provider, agent

    @property
    def raw(self) -> pycrdt.Doc[Any]:
        """The pycrdt document itself; another one after the server has refused something in it."""
        return self.provider.doc

    @property
    def text(self) -> str:
        """The root text named `text`."""
        return str(self.raw.get("text", type=pycrdt.Text))
