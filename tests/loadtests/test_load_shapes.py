"""How a load test spends its time."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "loadtests"))

import options
import shapes

PLAN = shapes.Plan(users=40, seconds=100)


@pytest.mark.parametrize("name", shapes.SHAPES)
def test_every_shape_ends_with_its_time(name: str) -> None:
    tick = shapes.SHAPES[name].tick

    assert tick(99.9, PLAN) == (40, tick(99.9, PLAN).rate)
    assert tick(100, PLAN) is None


def test_a_ramp_grows_over_four_fifths_of_the_time() -> None:
    users = [shapes.ramp(elapsed, PLAN).users for elapsed in (0, 20, 40, 60, 80, 90)]

    assert users == [1, 10, 20, 30, 40, 40]


def test_no_shape_starts_more_users_a_second_than_locust_bears() -> None:
    plan = shapes.Plan(users=5000, seconds=100)

    rates = [shape.tick(1, plan).rate for shape in shapes.SHAPES.values()]

    assert max(rates) <= shapes.MAX_STARTS_PER_SECOND


def test_a_storm_leaves_time_to_come_back() -> None:
    drops = shapes.SHAPES["storm"].drops

    assert drops
    assert max(drops) < 0.8


def test_addresses_are_taken_as_people_write_them() -> None:
    given = "http://one:8000/, wss://two,https://three"

    assert options.addresses(given) == ["ws://one:8000", "wss://two", "wss://three"]
    assert options.addresses("") == []
