"""One job of the fuzz, in a process of its own: python worker.py '{"seed": …, "mutants": …, …}'

Writes the number of the mutant it is at into a file, so that its death or silence names the culprit; ends with one
line of JSON on stdout.
"""

from __future__ import annotations

import faulthandler
import json
import os
import re
import resource
import sys
from collections import Counter
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

Report = dict[str, Any]


def without(rule: str) -> None:
    """Load the guard with one rule switched off, to show that the harness sees what the rule is for."""
    removed = 0
    for name in ("collab.protocol.structs", "collab.protocol.guard"):
        spec = find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        source = Path(spec.origin).read_text()
        if rule == "readiness":
            source, count = re.subn(
                r"(def is_ready.*\n)", r"\1    return True\n", source
            )
        else:
            raising = rf'raise (Refused|TooLarge)\("{rule}"\)( from None)?'
            source, count = re.subn(raising, "pass", source)
        removed += count
        module = module_from_spec(spec)
        sys.modules[name] = module
        exec(compile(source, spec.origin, "exec"), module.__dict__)
    assert removed > 0, f"the guard has no rule {rule!r}"


def work(job: Report) -> Report:
    from mutants import mutate
    from subject import Subject
    from valid import read

    chance = Random(job["seed"])
    streams = read(Path(job["corpus"]))
    outcomes: Counter[str] = Counter()
    progress = os.open(job["progress"], os.O_WRONLY | os.O_CREAT)
    number = 0
    while number < job["mutants"]:
        name, stream = chance.choice(streams)
        subject = Subject()
        for update in stream[: chance.randrange(len(stream) + 1)]:
            subject.feed(update)
        for _ in range(min(50, job["mutants"] - number)):
            mutant = mutate(chance, chance.choice(stream), stream)
            number += 1
            os.pwrite(progress, number.to_bytes(8, "little"), 0)
            if job.get("stop_at") == number:
                return {"mutant": mutant.hex(), "stream": name}
            outcome = subject.feed(mutant)
            outcomes[outcome] += 1
            problem = subject.problem(outcome)
            if problem:
                return failure(problem, name, mutant, number, outcomes)
        problem = subject.final_problem()
        if problem:
            return failure(problem, name, mutant, number, outcomes)
    return {"outcomes": outcomes}


def failure(
    problem: str, name: str, mutant: bytes, number: int, outcomes: Counter[str]
) -> Report:
    found = {"problem": problem, "stream": name, "mutant": mutant.hex()}
    return {"outcomes": outcomes, "failure": {**found, "number": number}}


def main() -> None:
    job = json.loads(sys.argv[1])
    limit = job["max_bytes"]
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable()
    if job.get("without"):
        without(job["without"])
    sys.stdout.write(json.dumps(work(job)) + "\n")


if __name__ == "__main__":
    main()
