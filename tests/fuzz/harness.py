"""Runs the jobs of the fuzz in child processes and watches over them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WORKER = Path(__file__).with_name("worker.py")
MAX_BYTES = 3 << 30
QUIET_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Job:
    """Some mutants from one seed; the same job always makes the same ones."""

    seed: int
    mutants: int
    without: str | None = None  # a rule of the guard to switch off
    stop_at: int | None = None  # only tell what this mutant is


@dataclass(slots=True)
class Result:
    """What became of the mutants of a job, and the first that must not have happened."""

    seed: int
    outcomes: Counter[str] = field(default_factory=Counter)
    failure: dict[str, Any] | None = None


def run(job: Job, corpus: Path, *, quiet_seconds: float = QUIET_SECONDS) -> Result:
    """Run one job; a child that dies, or is silent for too long, is a failure of the mutant it was at."""
    with tempfile.TemporaryDirectory() as folder:
        progress = Path(folder) / "progress"
        progress.write_bytes(bytes(8))
        child = start(job, corpus, progress)
        at, since = b"", time.monotonic()
        while True:
            try:
                out, err = child.communicate(timeout=0.5)
                break
            except subprocess.TimeoutExpired:
                now = progress.read_bytes()
                if now != at:
                    at, since = now, time.monotonic()
                elif time.monotonic() - since > quiet_seconds:
                    child.kill()
                    child.communicate()
                    return ended(job, progress, f"silent for {quiet_seconds} s")
        if child.returncode < 0:
            name = signal.Signals(-child.returncode).name
            return ended(job, progress, f"the process died of {name}")
        if child.returncode:
            return ended(job, progress, f"the process failed: {err.decode()[-800:]}")
    report = json.loads(out)
    return Result(job.seed, Counter(report.get("outcomes", {})), report.get("failure"))


def start(job: Job, corpus: Path, progress: Path) -> subprocess.Popen[bytes]:
    description = {
        "seed": job.seed,
        "mutants": job.mutants,
        "without": job.without,
        "stop_at": job.stop_at,
        "corpus": str(corpus),
        "progress": str(progress),
        "max_bytes": MAX_BYTES,
    }
    command = [sys.executable, str(WORKER), json.dumps(description)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def ended(job: Job, progress: Path, problem: str) -> Result:
    number = int.from_bytes(progress.read_bytes(), "little")
    return Result(job.seed, failure={"problem": problem, "number": number})


def mutant(job: Job, number: int, corpus: Path) -> dict[str, Any]:
    """The bytes of one mutant of a job, and the stream it was fed to."""
    with tempfile.TemporaryDirectory() as folder:
        told = Job(job.seed, job.mutants, job.without, number)
        child = start(told, corpus, Path(folder) / "progress")
        out, _ = child.communicate(timeout=120)
    return dict(json.loads(out))


def fuzz(
    corpus: Path, *, seed: int, mutants: int, processes: int = 2, job_size: int = 5000
) -> Iterator[Result]:
    """The results of all jobs, as they come."""
    sizes = [min(job_size, mutants - start) for start in range(0, mutants, job_size)]
    jobs = [Job(seed + index, size) for index, size in enumerate(sizes)]
    with ThreadPoolExecutor(processes) as pool:
        yield from pool.map(lambda job: run(job, corpus), jobs)
