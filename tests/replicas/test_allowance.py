"""So many at once, and so many a second."""

from __future__ import annotations

from collab.replicas.allowance import Allowance


def test_so_many_at_once_and_so_many_a_second() -> None:
    allowance = Allowance(3.0, 2.0, now=0.0)

    at_once = [allowance.take(0.0) for _ in range(5)]
    a_second_later = [allowance.take(1.0) for _ in range(5)]
    long_after = [allowance.take(1000.0) for _ in range(5)]

    assert at_once.count(True) == 3
    assert a_second_later.count(True) == 2
    assert long_after.count(True) == 3
