"""The scenarios of agents measure what they say they do."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pycrdt import Doc, Text

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "loadtests"))

import agents


@pytest.mark.anyio
async def test_a_stream_beside_people_is_whole_and_no_word_is_split() -> None:
    found = await agents.streaming(1.0)

    assert found["lost or out of order"] == found["words split"] == 0
    assert found["bytes for each byte"] >= 1
    assert found["apply p99 ms"] > 0


@pytest.mark.anyio
async def test_a_stream_over_broken_sockets_is_whole() -> None:
    found = await agents.dropping(2)

    assert found["drops"] == 2
    assert found["lost or doubled"] == 0


def test_a_word_with_somebody_inside_and_lost_characters_are_seen() -> None:
    agent, person = Doc(client_id=1), Doc(client_id=2)
    agent.get("text", type=Text).insert(0, "one two ")
    person.apply_update(agent.get_update())
    person.get("text", type=Text).insert(5, "X")

    split = agents._inspected(person.get_update(), 1, "one two ")
    lost = agents._inspected(person.get_update(), 1, "one two three ")

    assert split == (0, 1)
    assert lost == (6, 1)
