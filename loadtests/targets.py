"""What is measured, what a run must reach, and the table at its end."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import NamedTuple

EVENTS = {
    "connect": "from the first packet until the handshake is done",
    "initial_sync": "from there until the whole document is here",
    "saved": "from sending an update until the server says that it is on disk",
    "propagation": "from an edit until another member has it in its document",
    "reconnect": "from losing the connection until back in step",
    "lag": "from when the load meant to do something until it did",
}
PERCENTILES = (50, 95, 99)


class Row(NamedTuple):
    """What came of one event; times in milliseconds, by percentile and at most."""

    count: int
    failed: int
    at: Mapping[int, float]
    greatest: float


class Target(NamedTuple):
    """A percentile of an event that must not take longer."""

    event: str
    percentile: int
    milliseconds: float

    def is_reached(self, row: Row | None) -> bool:
        """Nothing measured is nothing reached."""
        return (
            row is not None
            and row.count > row.failed
            and row.at[self.percentile] <= self.milliseconds
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A flag for each percentile of each event: `--p99-saved-ms 50`."""
    for event, meaning in EVENTS.items():
        for percentile in PERCENTILES:
            parser.add_argument(
                f"--p{percentile}-{event.replace('_', '-')}-ms",
                type=float,
                metavar="MS",
                help=f"the run fails when it takes longer {meaning}"
                if percentile == 50
                else "likewise",
            )


def chosen(options: argparse.Namespace) -> list[Target]:
    """The targets that were given."""
    return [
        Target(event, percentile, milliseconds)
        for event in EVENTS
        for percentile in PERCENTILES
        if (milliseconds := getattr(options, f"p{percentile}_{event}_ms")) is not None
    ]


def table(rows: Mapping[str, Row], targets: Sequence[Target]) -> str:
    """The events that happened, and beside each what was asked of it."""
    lines = [
        f"{'':14}{'count':>9}{'failed':>8}{'p50':>9}{'p95':>9}{'p99':>9}{'max':>9}  ms"
    ]
    names = dict.fromkeys((*EVENTS, *rows))
    for name in names:
        row = rows.get(name)
        verdicts = [
            f"{'reached' if target.is_reached(row) else 'MISSED'}:"
            f" p{target.percentile} ≤ {target.milliseconds:g}"
            for target in targets
            if target.event == name
        ]
        if row is None and not verdicts:
            continue
        if row is None:
            figures = f"{0:>9}"
        else:
            times = "".join(f"{row.at[p]:>9.0f}" for p in PERCENTILES)
            figures = f"{row.count:>9}{row.failed:>8}{times}{row.greatest:>9.0f}"
        lines.append(f"{name:14}{figures}  {', '.join(verdicts)}".rstrip())
    return "\n".join(lines)


def shortcomings(
    rows: Mapping[str, Row],
    targets: Sequence[Target],
    *,
    failed: int,
    max_failures: int,
) -> list[str]:
    """One sentence for everything that makes the run a failure, convergence aside."""
    found = [
        f"target missed: p{target.percentile} of {target.event} ≤ {target.milliseconds:g} ms"
        for target in targets
        if not target.is_reached(rows.get(target.event))
    ]
    if failed > max_failures:
        found.append(f"{failed} failures, {max_failures} allowed")
    found += [
        f"nothing was measured: {event}"
        for event in ("connect", "initial_sync", "saved")
        if event not in rows or rows[event].count == rows[event].failed
    ]
    return found
