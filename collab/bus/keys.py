"""What things are called in Redis: every key of a room shares its hash tag, so that a Cluster keeps them together."""

from __future__ import annotations

from collab.names import split_key


def room_tag(key: str) -> str:
    """The hash tag of a room, tenant first, each part with its length before it: no two rooms share one.

    In hexadecimal, since a brace in a name would end the tag early.
    """
    tenant, name = (part.encode().hex() for part in split_key(key))
    return f"{{{len(tenant)}:{tenant}{len(name)}:{name}}}"


def key_of(cluster: str, key: str, what: str) -> str:
    """A key of a room, such as its log: `<cluster>:{<tag>}:<what>`."""
    return f"{cluster}:{room_tag(key)}:{what}"
