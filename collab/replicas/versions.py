"""How far apart versions are: replicas work together with the release before theirs and the one after."""

from __future__ import annotations

import re

_RELEASE = re.compile(r"(\d{1,6})\.(\d{1,6})")


def is_near(one: str, other: str) -> bool:
    """Whether there is at most one release between them. Of what is no version nobody can say so."""
    ours, theirs = _RELEASE.match(one), _RELEASE.match(other)
    if ours is None or theirs is None:
        return one == other
    if ours[1] != theirs[1]:
        return abs(int(ours[1]) - int(theirs[1])) == 1
    return abs(int(ours[2]) - int(theirs[2])) <= 1
