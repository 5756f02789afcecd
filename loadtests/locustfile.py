"""What locust runs: `make load`, or `locust -f loadtests/locustfile.py` with the flags of options.py."""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path
from typing import Any

import gevent
import options as flags
import shapes
import targets
from agreement import Rooms, merged
from crew import Crew, Place, settle
from gevent.event import Event
from locust import LoadTestShape, events
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner
from locust.stats import PERCENTILES_TO_REPORT, StatsCSV
from provider import Report
from users import Agent, Editor, Reader, YjsUser

__all__ = ["Agent", "Editor", "Reader", "Shape"]  # locust looks for them here

PROGRESS_SECONDS = 2.0
LAG_SECONDS = 0.1
ANSWER_SECONDS = 20.0
MAX_SENTENCES = 20

wrong: list[str] | None = None  # after the end: what is not the same everywhere


class NotTheSame(Exception):
    """The documents of a room differ; the message names it."""


class Shape(LoadTestShape):
    """The shape that `--shape` names."""

    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        options = self.runner.environment.parsed_options
        plan = shapes.Plan(options.num_users or 1, options.seconds)
        return shapes.SHAPES[options.shape].tick(self.get_run_time(), plan)


@events.init_command_line_parser.add_listener
def add_arguments(parser: Any) -> None:
    flags.add_arguments(parser)


@events.init.add_listener
def listen(environment: Environment, **_: object) -> None:
    """Between the process that decides and those that make the load, when they are several."""
    if isinstance(environment.runner, MasterRunner):
        environment.runner.register_message("standing", take)
    elif isinstance(environment.runner, WorkerRunner):
        environment.runner.register_message("stand", answer, concurrent=True)


@events.test_start.add_listener
def begin(environment: Environment, **_: object) -> None:
    options, runner = environment.parsed_options, environment.runner
    shape = shapes.SHAPES[options.shape]
    if not isinstance(runner, MasterRunner):
        report = counted_by(environment)
        YjsUser.crew = Crew(place(options), report, process=runner.worker_index)
        YjsUser.think_seconds = options.think_seconds
        gevent.spawn(watch_itself, report)
        for part in shape.drops:
            gevent.spawn_later(part * options.seconds, YjsUser.crew.drop_all)
    if not isinstance(runner, WorkerRunner):
        gevent.spawn(tell, environment)


def counted_by(environment: Environment) -> Report:
    """Events as locust's statistics, in all its reports."""

    def report(event: str, seconds: float, failure: Exception | None = None) -> None:
        environment.events.request.fire(
            request_type="YJS",
            name=event,
            response_time=seconds * 1000,
            response_length=0,
            exception=failure,
            context={},
        )

    return report


def watch_itself(report: Report) -> None:
    """By how much the load is late: of all other times, so much is not the server's."""
    while YjsUser.crew.is_writing:
        wanted = time.monotonic() + LAG_SECONDS
        gevent.sleep(LAG_SECONDS)
        report("lag", time.monotonic() - wanted)


def place(options: Any) -> Place:
    rooms = 1 if shapes.SHAPES[options.shape].is_one_room else options.rooms
    return Place(flags.addresses(options.url), options.nonce, rooms)


def tell(environment: Environment) -> None:
    """A line of progress every few seconds."""
    started = time.monotonic()
    while True:
        gevent.sleep(PROGRESS_SECONDS)
        if wrong is not None:
            return
        found = rows(environment)
        saved, arrived, late = map(found.get, ("saved", "propagation", "lag"))
        say(
            f"{time.monotonic() - started:5.0f} s  {environment.runner.user_count} users"
            + (f"  {saved.count} saved, p99 {saved.at[99]:.0f} ms" if saved else "")
            + (
                f"  {arrived.count} arrived, p99 {arrived.at[99]:.0f} ms"
                if arrived
                else ""
            )
            + f"  {environment.stats.total.num_failures} failures"
            + (f"  lag {late.at[99]:.0f} ms" if late else "")
        )


@events.test_stop.add_listener
def finish(environment: Environment, **_: object) -> None:
    """All documents of a room are equal, or the run has failed."""
    global wrong
    options, runner = environment.parsed_options, environment.runner
    if isinstance(runner, WorkerRunner):
        YjsUser.crew.end()
        return
    say("      comparing the documents of every room")
    ask = gather(runner) if isinstance(runner, MasterRunner) else stand
    started = time.monotonic()
    wrong = settle(ask, place(options), seconds=options.settle_seconds)
    for sentence in wrong:
        counted_by(environment)("end", time.monotonic() - started, NotTheSame(sentence))
    if not isinstance(runner, MasterRunner):
        YjsUser.crew.end()


def stand() -> Rooms:
    """How the members of this process stand, now that nobody edits any more."""
    YjsUser.crew.rest()
    return YjsUser.crew.standing()


question = 0
answers: dict[str, Rooms] = {}  # to that question: process → how its members stand
answered = Event()


def gather(runner: MasterRunner) -> Any:
    """How the members of all processes stand."""
    expected = set(runner.clients.keys())
    lost = runner.environment.parsed_options.expect_workers - len(expected)

    def ask() -> Rooms:
        global question
        question += 1
        answers.clear()
        runner.send_message("stand", question)
        deadline = time.monotonic() + ANSWER_SECONDS
        while answers.keys() != expected and time.monotonic() < deadline:
            answered.wait(0.1)
            answered.clear()
        silent: Rooms = {
            f"of process {name}": {"everybody": ("does not answer",)}
            for name in expected - answers.keys()
        }
        if lost > 0:
            silent["of another process"] = {"everybody": ("died with it",)}
        return merged([*answers.values(), silent])

    return ask


def take(environment: Environment, msg: Any) -> None:
    if msg.data["question"] == question:
        answers[msg.node_id] = msg.data["rooms"]
        answered.set()


def answer(environment: Environment, msg: Any) -> None:
    told = {"question": msg.data, "rooms": stand()}
    environment.runner.send_message("standing", told)


@events.quitting.add_listener
def judge(environment: Environment, **_: object) -> None:
    """The table, the sentences, and the exit code."""
    if isinstance(environment.runner, WorkerRunner):
        environment.process_exit_code = 0
        return
    options = environment.parsed_options
    found, asked = rows(environment), targets.chosen(options)
    sentences = targets.shortcomings(
        found,
        asked,
        failed=environment.stats.total.num_failures - len(wrong or ()),
        max_failures=options.max_failures,
    )
    sentences += ["the run was cut short"] if wrong is None else wrong
    sentences += [
        f"a bug of the load test: {row['msg']}\n{row['traceback']}"
        for row in environment.runner.exceptions.values()
    ]
    say(f"\n{targets.table(found, asked)}\n")
    for error in list(environment.stats.errors.values())[:MAX_SENTENCES]:
        say(f"{error.occurrences} × {error.name}: {error.error}")
    for sentence in sentences[:MAX_SENTENCES]:
        say(f"FAILED: {sentence}")
    if len(sentences) > MAX_SENTENCES:
        say(f"FAILED: and {len(sentences) - MAX_SENTENCES} more")
    if options.results:
        keep(environment, Path(options.results))
    if not sentences:
        say(f"passed: every room the same everywhere, run {options.nonce}")
    environment.process_exit_code = 1 if sentences else 0


def keep(environment: Environment, folder: Path) -> None:
    """The figures as CSV. Locust's own writer is still writing while its files are being closed."""
    csv_of = StatsCSV(environment, PERCENTILES_TO_REPORT)
    for name, write in (
        ("stats.csv", csv_of.requests_csv),
        ("failures.csv", csv_of.failures_csv),
    ):
        with (folder / name).open("w", newline="") as file:
            write(csv.writer(file))


def rows(environment: Environment) -> dict[str, targets.Row]:
    return {
        entry.name: targets.Row(
            entry.num_requests,
            entry.num_failures,
            {
                percentile: entry.get_response_time_percentile(percentile / 100)
                for percentile in targets.PERCENTILES
            },
            entry.max_response_time,
        )
        for entry in environment.stats.entries.values()
    }


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
