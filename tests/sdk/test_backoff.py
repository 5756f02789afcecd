"""When to try again, and when not."""

from __future__ import annotations

import pytest

from collab.sdk.backoff import (
    LONGEST_SECONDS,
    MAX_ASKED_SECONDS,
    Closing,
    closing_of_status,
    delay,
)
from collab.sdk.errors import Forbidden, NotFound, RateLimited, Refused, Unavailable


@pytest.mark.parametrize("code", [4400, 4403, 4499, 1003, 1007, 1009])
def test_some_codes_end_it(code: int) -> None:
    assert Closing(code, "").is_final


@pytest.mark.parametrize("code", [1000, 1001, 1006, 1011, 1012, 1013, 4205, 4429, 4500])
def test_after_all_others_it_comes_back(code: int) -> None:
    assert not Closing(code, "").is_final


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (4401, Forbidden),
        (4403, Forbidden),
        (4404, NotFound),
        (4429, RateLimited),
        (4400, Refused),
        (1012, Unavailable),
        (1006, Unavailable),
    ],
)
def test_a_code_has_its_error(code: int, kind: type[Exception]) -> None:
    assert type(Closing(code, "").as_error()) is kind


def test_the_reason_of_a_limit_says_when_to_come_back() -> None:
    assert Closing(4429, "too many; retry in 42 s").pause_seconds() == 42
    assert Closing(4429, "no number").pause_seconds() == 5
    assert Closing(4429, "retry in 99999999 s").pause_seconds() == 5


def test_nobody_makes_a_client_wait_for_ever() -> None:
    assert Closing(1006, "", asked_seconds=1e12).pause_seconds() == MAX_ASKED_SECONDS
    assert delay(0, 1e12, lambda: 1.0) == MAX_ASKED_SECONDS


def test_waits_double_up_to_a_bound() -> None:
    waits = [delay(attempt, chance=lambda: 1.0) for attempt in range(100)]

    assert waits[:4] == [0.2, 0.4, 0.8, 1.6]
    assert waits[-1] == LONGEST_SECONDS


def test_a_wait_is_a_random_part_so_that_a_herd_does_not_come_back_as_one() -> None:
    waits = {delay(5) for _ in range(100)}

    assert len(waits) == 100
    assert all(0 <= wait <= 6.4 for wait in waits)


def test_what_a_draining_server_asks_for_is_spread_over() -> None:
    assert delay(0, 10.0, lambda: 0.5) == 5.0


@pytest.mark.parametrize("status", [302, 400, 403, 404, 421, 426])
def test_some_answers_to_a_handshake_end_it(status: int) -> None:
    assert closing_of_status(status, "", None).is_final


def test_a_full_server_says_when_to_come_back() -> None:
    closing = closing_of_status(503, "full", "7")

    assert not closing.is_final
    assert closing.pause_seconds() == 7


def test_a_limit_over_http_says_when_to_come_back() -> None:
    assert closing_of_status(429, "slow", "9").pause_seconds() == 9
    assert (
        closing_of_status(429, "slow", "Wed, 21 Oct 2015 07:28:00 GMT").pause_seconds()
        == 5
    )
