"""Editing histories of real documents, keystroke by keystroke; generated ones stand in where they are not at hand.

A trace is `{"txns": [{"patches": [[at, removed, inserted]], …}], "endContent": …}`. In a concurrent one every
transaction also names its author (`agent`) and the transactions it builds on (`parents`).
"""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

Trace = dict[str, Any]

DATA = Path(__file__).parents[3] / "shared" / "data"
NAMES = ("automerge-paper", "friendsforever")


def load(path: Path) -> Trace:
    with gzip.open(path, "rt") as file:
        return dict(json.load(file))


def find(name: str, scratch: Path) -> Path:
    """The file of a trace: the real one, or one generated in `scratch`."""
    real = DATA / f"{name}.json.gz"
    if real.is_file():
        return real
    path = scratch / f"{name}.json.gz"
    trace = concurrent() if name == "friendsforever" else sequential()
    with gzip.open(path, "wt") as file:
        json.dump(trace, file)
    return path


def sequential(edits: int = 20_000, seed: int = 1) -> Trace:
    """One author who types, jumps about and deletes."""
    chance = random.Random(seed)
    text, at, txns = "", 0, []
    for _ in range(edits):
        if chance.random() < 0.03:
            at = chance.randrange(len(text) + 1)
        if text and at and chance.random() < 0.25:
            at -= 1
            patch = [at, 1, ""]
        else:
            patch = [at, 0, chance.choice("etaoin shrdlu\n")]
        text = text[: patch[0]] + patch[2] + text[patch[0] + patch[1] :]
        at += len(patch[2])
        txns.append({"patches": [patch]})
    return {"txns": txns, "endContent": text}


def concurrent(edits: int = 5_000, seed: int = 1) -> Trace:
    """Two authors at the same time, each in a paragraph of their own, so that the end is beyond dispute."""
    chance = random.Random(seed)
    own = ["", ""]  # paragraphs as their authors have them
    seen = ""  # the first paragraph as the second author sees it
    txns: list[dict[str, Any]] = [
        {"agent": 0, "parents": [], "patches": [[0, 0, "\n"]]}
    ]
    last = [0, 0]
    for index in range(1, edits):
        agent = chance.randrange(2)
        parents = {last[agent]}
        if chance.random() < 0.1:  # hears of everything the other has done
            parents.add(last[1 - agent])
            seen = own[0] if agent == 1 else seen
        paragraph = own[agent]
        at = chance.randrange(len(paragraph) + 1)
        removed = 1 if at < len(paragraph) and chance.random() < 0.3 else 0
        inserted = "" if removed else chance.choice("etaoin shrdlu")
        own[agent] = paragraph[:at] + inserted + paragraph[at + removed :]
        offset = len(seen) + 1 if agent else 0
        txns.append(
            {
                "agent": agent,
                "parents": sorted(parents),
                "patches": [[at + offset, removed, inserted]],
            }
        )
        last[agent] = index
    return {
        "kind": "concurrent",
        "numAgents": 2,
        "txns": txns,
        "endContent": "\n".join(own),
    }


def ancestry(trace: Trace) -> list[list[int]]:
    """For each transaction, what its author had not heard of before and must take in first, in order."""
    txns = trace["txns"]
    known: list[set[int]] = [set() for _ in range(trace["numAgents"])]
    news = []
    for index, txn in enumerate(txns):
        held = known[txn["agent"]]
        missing, open_ = [], list(txn["parents"])
        while open_:
            parent = open_.pop()
            if parent not in held:
                held.add(parent)
                missing.append(parent)
                open_ += txns[parent]["parents"]
        held.add(index)
        news.append(sorted(missing))
    return news
