"""A short run of the fuzz, and proof that it would see what the guard's rules are for.

The long one is `make fuzz`.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from fuzz.harness import Job, Result, fuzz, mutant, run
from fuzz.subject import Subject
from fuzz.valid import Stream, excerpts, traces, write, yjs_streams

SEED = 20_261_122


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Stream]]:
    """Yjs sessions and the beginnings of both editing traces."""
    scratch = tmp_path_factory.mktemp("valid")
    return [*yjs_streams(scratch, 60), *traces(scratch, 8000)]


@pytest.fixture(scope="module")
def corpus(
    valid: list[tuple[str, Stream]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    short = [
        piece
        for name, stream in valid
        for piece in (
            [(name, stream)] if len(stream) < 1000 else excerpts(name, stream)
        )
    ]
    return write(tmp_path_factory.mktemp("corpus") / "corpus.jsonl", short)


def test_no_valid_update_is_refused(valid: list[tuple[str, Stream]]) -> None:
    for name, stream in valid:
        subject = Subject()

        outcomes = Counter(subject.feed(update) for update in stream)

        assert outcomes.keys() <= {"applied", "waits"}, name
        assert len(subject.gate) == 0, name
        assert subject.final_problem() is None, name


def test_no_mutant_harms_the_process_or_the_document(corpus: Path) -> None:
    results = list(fuzz(corpus, seed=SEED, mutants=20_000))

    outcomes = sum((result.outcomes for result in results), Counter[str]())
    assert [result for result in results if result.failure] == []
    assert outcomes.total() == 20_000
    assert all(outcomes[each] > 100 for each in ("refused", "applied", "waits"))


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ("empty section", "PanicException in apply_update"),
        ("nesting", "the process died of SIGSEGV"),
        ("client id", "the gate's vector is not the document's"),
        ("readiness", "the gate's vector is not the document's"),
    ],
)
def test_a_guard_without_a_rule_is_found_out(
    rule: str, problem: str, corpus: Path
) -> None:
    result = run(Job(SEED, 20_000, without=rule), corpus)

    assert result.failure is not None
    assert problem in result.failure["problem"]


def test_a_guard_that_lets_a_client_in_twice_is_found_out(corpus: Path) -> None:
    """It makes a circle: depending on where, yrs never returns, loses content or dies."""
    result = run(Job(SEED, 20_000, without="client twice"), corpus, quiet_seconds=5)

    assert result.failure is not None


def test_a_failure_names_a_mutant_that_can_be_made_again(corpus: Path) -> None:
    job = Job(SEED, 20_000, without="empty section")

    first, again = found(run(job, corpus)), found(run(job, corpus))

    assert first == again
    assert mutant(job, first["number"], corpus)["mutant"] == first["mutant"]


def found(result: Result) -> dict[str, object]:
    assert result.failure is not None
    return result.failure
