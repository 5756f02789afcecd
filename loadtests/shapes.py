"""How many users there are at which moment of a run, and when all of them lose their connection at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

MAX_STARTS_PER_SECOND = 100  # locust itself stumbles over more
START_PART = 0.2  # of a run, for those that come all at its beginning: arriving is not what they measure


class Plan(NamedTuple):
    """What a shape is stretched over."""

    users: int
    seconds: float


class Tick(NamedTuple):
    """Towards this many users, at most this many more of them a second."""

    users: int
    rate: float


def steady(elapsed: float, plan: Plan) -> Tick | None:
    """All users within the first fifth, until the end."""
    if elapsed >= plan.seconds:
        return None
    rate = max(1.0, plan.users / (START_PART * plan.seconds))
    return Tick(plan.users, min(rate, MAX_STARTS_PER_SECOND))


def ramp(elapsed: float, plan: Plan) -> Tick | None:
    """More and more users over four fifths of the time, then all of them."""
    if elapsed >= plan.seconds:
        return None
    part = min(1.0, elapsed / (0.8 * plan.seconds))
    return Tick(max(1, round(part * plan.users)), MAX_STARTS_PER_SECOND)


class Shape(NamedTuple):
    """A way of spending a run."""

    tick: Callable[[float, Plan], Tick | None]
    drops: tuple[float, ...] = ()  # parts of the run at which every connection is cut
    is_one_room: bool = False


SHAPES = {
    "steady": Shape(steady),
    "ramp": Shape(ramp),
    "storm": Shape(steady, drops=(0.4, 0.7)),
    "hot": Shape(steady, is_one_room=True),
}
