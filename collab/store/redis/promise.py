"""What a Redis really promises: whether it may throw keys away, and what of it survives which death."""

from __future__ import annotations

from typing import NamedTuple

from collab.connection import Client

_FSYNC = {
    "always": "what is saved survives a loss of power (appendfsync always)",
    "everysec": "a loss of power may take what was saved in the last second (appendfsync everysec)",
    "no": "a loss of power may take what was saved in the last half minute (appendfsync no)",
}
_ORDER = ("none", "no", "unknown", "everysec", "always")
_SETTINGS = ("maxmemory-policy", "appendonly", "appendfsync", "min-replicas-to-write")


class Promise(NamedTuple):
    """Of the weakest of its nodes."""

    policy: str  # of eviction; "" when it cannot be known
    fsync: str  # always, everysec, no; none without an append-only file; unknown
    min_replicas: int | None  # that must be there for a write; None when unknown
    is_checked: bool  # whether we may look at its settings

    @property
    def evicts(self) -> bool:
        """Whether it drops keys that nobody has put an end to, and so a room's."""
        return self.policy.startswith("allkeys-")

    @property
    def is_kept(self) -> bool:
        """Whether anything is written down soon."""
        return self.fsync in ("always", "everysec", "unknown")

    def __str__(self) -> str:
        if self.fsync == "none":
            text = "nothing survives the end of Redis, for it keeps no append-only file (appendonly no)"
        elif self.fsync == "unknown":
            text = "its append-only file is on; how soon that is on disk cannot be checked, for CONFIG GET is forbidden"
        else:
            text = _FSYNC[self.fsync]
        if self.min_replicas is None:
            return f"{text}; min-replicas-to-write cannot be checked"
        if self.min_replicas:
            return f"{text}; written only while {self.min_replicas} replicas of Redis follow, which copy it a moment later"
        return f"{text}; a failover may take what its replica had not yet copied"


async def look(client: Client) -> Promise:
    """Ask every node that takes writes. Raises StoreUnavailable."""
    nodes = await client.config(*_SETTINGS)
    if nodes is None:
        memory = await client.run_on_primaries("INFO", "memory")
        persistence = await client.run_on_primaries("INFO", "persistence")
        policies = [str(each.get("maxmemory_policy", "")) for each in memory]
        fsyncs = [
            "unknown" if each.get("aof_enabled") else "none" for each in persistence
        ]
        return Promise(_worst(policies), min(fsyncs, key=_ORDER.index), None, False)
    return Promise(
        _worst([each.get("maxmemory-policy", "") for each in nodes]),
        min(
            (
                each.get("appendfsync", "unknown")
                if each.get("appendonly") == "yes"
                else "none"
                for each in nodes
            ),
            key=_ORDER.index,
        ),
        min(int(each.get("min-replicas-to-write", 0)) for each in nodes),
        True,
    )


def _worst(policies: list[str]) -> str:
    return next((each for each in policies if each.startswith("allkeys-")), policies[0])
