"""What a commit costs: time to logged, commits and CPU of the journal over SQLite, by window and load.

Run `python loadtests/bench_store.py` from the repository; `--seconds` per line, `--directory` where to write
(the disk that is to be measured). A producer stands for the replica: it appends one entry per room and
loop turn. CPU is the operating system's account of each thread.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop

from collab.journal import Journal
from collab.metrics import Metrics
from collab.store.base import Author, Entry
from collab.store.sqlite import SqliteStore

UPDATE = bytes(40)
AUTHORS = [Author(f"user-{n}", f"connection-{n}") for n in range(200)]


def thread_seconds(thread: threading.Thread) -> float:
    """CPU seconds of one thread, by the kernel."""
    schedstat = Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text()
    return int(schedstat.split()[0]) / 1e9


def percentile(times: list[float], share: float) -> float:
    return times[min(len(times) - 1, int(len(times) * share))] * 1000


async def measure(
    directory: Path, *, window_ms: float, rooms: int, rate: int, seconds: float
) -> str:
    """Poisson arrivals at `rate` updates a second over `rooms` rooms, for some seconds."""
    times: list[float] = []
    arrived: dict[tuple[str, int], list[float]] = {}

    def logged(entries: Sequence[Entry]) -> None:
        now = time.monotonic()
        for entry in entries:
            times.extend(now - at for at in arrived.pop((entry.room, entry.position)))

    def failed(error: Exception) -> None:
        sys.exit(f"the store failed: {error}")

    metrics = Metrics()
    positions = {f"room-{n}": 1 for n in range(rooms)}
    names = list(positions)
    chance = random.Random(1)
    async with SqliteStore(directory, window_seconds=window_ms / 1000) as store:
        writer = next(t for t in threading.enumerate() if t.name == "store-writer")
        journal = Journal(
            store, logged=logged, failed=failed, healed=lambda: None, metrics=metrics
        )
        async with journal:
            append_seconds = 0.0
            due = started = time.monotonic()
            cpu, writer_cpu = time.process_time(), thread_seconds(writer)
            while (now := time.monotonic()) < started + seconds:
                turn: dict[str, list[float]] = {}
                while due <= now:
                    turn.setdefault(chance.choice(names), []).append(due)
                    due += chance.expovariate(rate)
                entries = []
                for room, times_due in turn.items():
                    position = positions[room]
                    positions[room] += len(times_due)
                    arrived[room, position] = times_due
                    authors = chance.choices(AUTHORS, k=len(times_due))
                    updates = [UPDATE] * len(times_due)
                    entries.append(Entry(room, "epoch", position, 0, updates, authors))
                if entries:
                    before = time.perf_counter()
                    journal.append(entries)
                    append_seconds += time.perf_counter() - before
                await asyncio.sleep(max(0, due - time.monotonic()))
            await journal.flush()
            writer_cpu = thread_seconds(writer) - writer_cpu
            cpu = time.process_time() - cpu
            elapsed = time.monotonic() - started
    times.sort()
    count, commits = len(times), metrics.commits
    return (
        f"| {window_ms:g} | {rooms} | {count / elapsed:,.0f} | {commits / elapsed:,.0f} "
        f"| {percentile(times, 0.5):.1f} / {percentile(times, 0.95):.1f} / {percentile(times, 0.99):.1f} "
        f"| {writer_cpu / commits * 1e6:.0f} | {writer_cpu / count * 1e6:.2f} "
        f"| {append_seconds / count * 1e6:.2f} | {cpu / elapsed * 100:.0f} % |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--loads", default="20x800,100x20000,100x58000")
    parser.add_argument("--windows", default="0,5,10,20")
    options = parser.parse_args()
    print(  # noqa: T201
        "| window ms | rooms | updates/s | commits/s | logged p50 / p95 / p99 ms | thread µs per commit "
        "| thread µs per update | append µs per update | process CPU |\n|---|---|---|---|---|---|---|---|---|"
    )
    for load in options.loads.split(","):
        rooms, rate = map(int, load.split("x"))
        for window in options.windows.split(","):
            with tempfile.TemporaryDirectory(dir=options.directory) as directory:
                line = uvloop.run(
                    measure(
                        Path(directory),
                        window_ms=float(window),
                        rooms=rooms,
                        rate=rate,
                        seconds=options.seconds,
                    )
                )
                print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
