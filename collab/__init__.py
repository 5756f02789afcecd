"""A real-time collaboration server for people and software agents, and `collab.sdk`, the client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collab.sdk import Agent, Doc, Provider, connect, connect_sync

__all__ = ["Agent", "Doc", "Provider", "__version__", "connect", "connect_sync"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """The client's names, imported when they are asked for: a server never does."""
    if name in __all__:
        from collab import sdk

        return getattr(sdk, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
