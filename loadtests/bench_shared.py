"""Time to logged in a store that replicas share: each is a process of its own, and all write in the same rooms.

Run `python loadtests/bench_shared.py postgresql://…` or `redis://…` from the repository, against a server whose content
does not matter: rooms with new names stay behind. CPU is that of the replicas, not of the server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import secrets
import subprocess
import sys
import time
from collections.abc import Sequence

import uvloop

from collab.connection import endpoint
from collab.journal import Journal
from collab.metrics import Metrics
from collab.store.base import Author, Entry, Store
from collab.store.postgres.store import PostgresStore
from collab.store.redis.store import RedisStore

UPDATE = bytes(40)
AUTHORS = [Author(f"user-{n}", f"connection-{n}") for n in range(200)]


def make(url: str, window_ms: float) -> Store:
    window = window_ms / 1000
    if url.startswith("redis"):
        return RedisStore(endpoint(url), cluster="bench", window_seconds=window)
    return PostgresStore(url, window_seconds=window)


async def write(options: argparse.Namespace) -> dict[str, object]:
    """One replica: Poisson arrivals, one entry per room and loop turn."""
    times: list[float] = []
    arrived: dict[tuple[str, int], list[float]] = {}

    def logged(entries: Sequence[Entry]) -> None:
        now = time.monotonic()
        for entry in entries:
            times.extend(now - at for at in arrived.pop((entry.room, entry.position)))

    def failed(error: Exception) -> None:
        sys.exit(f"the store failed: {error}")

    origin = secrets.token_hex(8)
    numbers = dict.fromkeys(
        (f"{options.run}-{n}" for n in range(options.rooms)),
        1,
    )
    chance = random.Random(origin)
    metrics = Metrics()
    async with make(options.url, options.window) as store:
        journal = Journal(
            store, logged=logged, failed=failed, healed=lambda: None, metrics=metrics
        )
        async with journal:
            due = started = time.monotonic()
            cpu = time.process_time()
            while (now := time.monotonic()) < started + options.seconds:
                turn: dict[str, list[float]] = {}
                while due <= now:
                    turn.setdefault(chance.choice([*numbers]), []).append(due)
                    due += chance.expovariate(options.rate / options.replicas)
                entries = []
                for room, times_due in turn.items():
                    number = numbers[room]
                    numbers[room] += len(times_due)
                    arrived[room, number] = times_due
                    authors = chance.choices(AUTHORS, k=len(times_due))
                    updates = [UPDATE] * len(times_due)
                    entries.append(
                        Entry(room, "epoch", number, 0, updates, authors, origin)
                    )
                journal.append(entries)
                await asyncio.sleep(max(0, due - time.monotonic()))
            await journal.flush()
            cpu = time.process_time() - cpu
        mine = sum(numbers.values()) - len(numbers)
    return {"times": times, "commits": metrics.commits, "cpu": cpu, "updates": mine}


async def check(options: argparse.Namespace, updates: int) -> None:
    """Every room holds what was logged."""
    async with make(options.url, options.window) as store:
        found = 0
        for n in range(options.rooms):
            stored = await store.load(f"{options.run}-{n}")
            assert [at for at, _ in stored.tail] == [*range(1, stored.position + 1)]
            found += stored.position
    assert found == updates, f"{found} of {updates} updates are in the store"


def percentile(times: list[float], share: float) -> float:
    return times[min(len(times) - 1, int(len(times) * share))] * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rooms", type=int, default=100)
    parser.add_argument("--rate", type=float, default=1000)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--window", type=float, default=6)
    parser.add_argument("--run", default="")
    options = parser.parse_args()
    if options.run:
        said = json.dumps(uvloop.run(write(options)))
        print(said)  # noqa: T201  # read by the process that started this one
        return
    options.run = secrets.token_hex(4)
    command = [sys.executable, *sys.argv, "--run", options.run]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE)
        for _ in range(options.replicas)
    ]
    said = [json.loads(one.communicate()[0].splitlines()[-1]) for one in started]
    times = sorted(at for one in said for at in one["times"])
    uvloop.run(check(options, sum(one["updates"] for one in said)))
    commits, cpu = sum(one["commits"] for one in said), sum(one["cpu"] for one in said)
    print(  # noqa: T201  # the table is what this program is for
        f"{options.replicas} replicas, {options.rooms} rooms, {len(times) / options.seconds:,.0f} updates/s, "
        f"{commits / options.seconds:,.0f} commits/s, logged p50 {percentile(times, 0.5):.1f} p95 "
        f"{percentile(times, 0.95):.1f} p99 {percentile(times, 0.99):.1f} max {times[-1] * 1000:.1f} ms, "
        f"{cpu / len(times) * 1e6:.0f} µs of CPU per update"
    )


if __name__ == "__main__":
    main()
