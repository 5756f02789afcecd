"""`make load`: locust, headless, against a server of its own or the one at `--url`; reports in results/."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import options as flags

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
START_SECONDS = 30.0
STOP_SECONDS = 40.0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="make load ARGS=…",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    made.add_argument("--users", type=int, default=20)
    made.add_argument(
        "--processes",
        type=int,
        default=1,
        help="that make the load: one is about one core",
    )
    flags.add_arguments(made)
    made.set_defaults(results=RESULTS)
    return made


@contextlib.contextmanager
def own_server(words: Path) -> Iterator[str]:
    """A server with SQLite in a directory that goes with it; yields its address. What it says is in `words`."""
    with tempfile.TemporaryDirectory(prefix="collab-load-") as folder:
        command = [sys.executable, "-m", "collab", "serve", "--port", "0"]
        with words.open("w") as errors:
            process = subprocess.Popen(
                [*command, "--data", folder, "--drain-seconds", "1"],
                cwd=HERE.parent,
                start_new_session=True,  # Ctrl-C ends the load, and then there is something to compare
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        try:
            yield f"ws://127.0.0.1:{_port(process, words)}"
        finally:
            end(process)


def _port(process: subprocess.Popen[str], words: Path) -> int:
    assert process.stdout is not None
    timer = threading.Timer(START_SECONDS, process.kill)
    timer.start()
    line = process.stdout.readline()
    timer.cancel()
    found = re.search(r":(\d+)\s*$", line)
    if found is None:
        raise SystemExit(f"the server did not start: {line}{words.read_text()}")
    return int(found[1])


def command(options: argparse.Namespace, given: Sequence[str], url: str) -> list[str]:
    """Locust's command line: what was given here goes on to it, except for what only this program knows."""
    folder = options.results
    words = [
        *(sys.executable, "-m", "locust", "-f", str(HERE / "locustfile.py")),
        *("--headless", "--only-summary", "--loglevel", "WARNING"),
        *("--html", str(folder / "report.html")),
        *("--json-file", str(folder / "stats")),  # locust adds .json
        *given,
        *("--users", str(options.users), "--results", str(folder)),
        *("--url", url, "--nonce", options.nonce),
    ]
    if options.processes > 1:
        words += ["--processes", str(options.processes)]
    return words


def carry_out(command: Sequence[str]) -> int:
    """Locust's exit code. It hears Ctrl-C itself, and sums up; whatever else ends this program ends it too."""
    process = subprocess.Popen(command, cwd=HERE.parent, stdin=subprocess.DEVNULL)
    try:
        while True:
            with contextlib.suppress(KeyboardInterrupt):
                return process.wait()
    finally:
        end(process)


def end(process: subprocess.Popen[Any]) -> None:
    """Ask it to end, make it end when it does not."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main(arguments: Sequence[str]) -> int:
    made = parser()
    options = made.parse_args(arguments)
    only_here = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in ("--users", "--processes", "--results", "--url", "--nonce"):
        only_here.add_argument(flag)
    _, given = only_here.parse_known_args(arguments)
    started = time.strftime("%Y%m%d-%H%M%S")
    run = f"{started}-{options.shape}-{options.nonce}"
    options.results = Path(options.results).resolve() / run
    options.results.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        url = options.url or stack.enter_context(
            own_server(options.results / "server.log")
        )
        sys.stdout.write(
            f"{options.shape}: {options.users} users for {options.seconds:g} seconds at {url}\n"
        )
        sys.stdout.flush()
        code = carry_out(command(options, given, url))
    report = os.path.relpath(options.results / "report.html")
    sys.stdout.write(f"report: {report}\n")
    return code


def stop(number: int, _: object) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    sys.exit(main(sys.argv[1:]))
