"""The fewest changes that turn one sequence into another."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from collab.document.budget import COMPARISON_WORK, Budget

# Comparisons spent on finding the fewest changes; one change from the first difference to the last else.
MAX_COMPARISONS = 100_000


def middle(old: str, new: str) -> tuple[int, int, int]:
    """Without what both begin and end with: where the rest begins, and where it ends in the one and the other."""
    start = _alike(old, new)
    tail = _alike(
        old[: start - 1 if start else None : -1],
        new[: start - 1 if start else None : -1],
    )
    return start, len(old) - tail, len(new) - tail


def _alike(one: str, other: str) -> int:
    """How many characters two strings have in common from the beginning."""
    low, high = 0, min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low


Hunk = tuple[int, int, int, int]  # from, to; in the other from, to


def changes(
    old: Sequence[Hashable], new: Sequence[Hashable], budget: Budget | None = None
) -> list[Hunk]:
    """The fewest changes that turn one sequence into another (Myers, "An O(ND) difference algorithm", 1986).

    One change of all in between when finding them takes more than MAX_COMPARISONS.
    """
    start, shorter = 0, min(len(old), len(new))
    while start < shorter and old[start] == new[start]:
        start += 1
    tail = 0
    while tail < shorter - start and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    n, m = len(old) - start - tail, len(new) - start - tail
    if not n and not m:
        return []
    hunks = [(0, n, 0, m)]
    if n and m:
        one, other = old[start : start + n], new[start : start + m]
        trace, comparisons = _trace(one, other)
        if budget is not None:
            budget.spend(comparisons * COMPARISON_WORK)
        if trace is not None:
            hunks = _hunks(trace, n, m)
    return [(start + a, start + b, start + c, start + d) for a, b, c, d in hunks]


def _trace(
    old: Sequence[Hashable], new: Sequence[Hashable]
) -> tuple[list[dict[int, int]] | None, int]:
    """How far each number of changes leads on each diagonal, up to the end; and the comparisons it took."""
    n, m = len(old), len(new)
    reached = {1: 0}
    trace: list[dict[int, int]] = []
    comparisons = 0
    for count in range(n + m + 1):
        trace.append(dict(reached))
        for k in range(-count, count + 1, 2):
            if k < -m or k > n:
                continue
            if _is_down(reached, k, count):
                x = reached.get(k + 1, -1)
            else:
                x = reached.get(k - 1, -1) + 1
            first, y = x, x - k
            while x < n and y < m and old[x] == new[y]:
                x += 1
                y += 1
            reached[k] = x
            comparisons += x - first + 1
            if x >= n and y >= m:
                return trace, comparisons
        if comparisons > MAX_COMPARISONS:
            break
    return None, comparisons


def _is_down(reached: dict[int, int], k: int, count: int) -> bool:
    """Whether the furthest way to a diagonal comes by an insertion, not by a deletion."""
    return k == -count or (
        k != count and reached.get(k - 1, -1) < reached.get(k + 1, -1)
    )


def _hunks(trace: list[dict[int, int]], x: int, y: int) -> list[Hunk]:
    """Go the way back, and join changes that touch."""
    hunks: list[Hunk] = []
    for count in range(len(trace) - 1, 0, -1):
        reached = trace[count]
        k = x - y
        down = _is_down(reached, k, count)
        before = k + 1 if down else k - 1
        old_x = reached[before]
        old_y = old_x - before
        to_x, to_y = (old_x, old_y + 1) if down else (old_x + 1, old_y)
        if hunks and hunks[-1][0] == to_x and hunks[-1][2] == to_y:
            _, end, _, new_end = hunks.pop()
        else:
            end, new_end = to_x, to_y
        hunks.append((old_x, end, old_y, new_end))
        x, y = old_x, old_y
    return hunks[::-1]
