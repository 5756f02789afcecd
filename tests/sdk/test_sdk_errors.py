"""The server's codes as errors of the client."""

from __future__ import annotations

import pytest

from collab.sdk.errors import (
    Cancelled,
    Conflict,
    Forbidden,
    Invalid,
    LeaseLost,
    NotFound,
    RateLimited,
    Refused,
    SdkError,
    TooLarge,
    error_of,
)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("turn_cancelled", Cancelled),
        ("lease_lost", LeaseLost),
        ("permission_denied", Forbidden),
        ("others_present", Conflict),
        ("text_not_found", NotFound),
        ("history_gone", NotFound),
        ("not_yet", NotFound),
        ("invalid_request", Invalid),
        ("inside_character", Invalid),
        ("too_large", TooLarge),
        ("rate_limited", RateLimited),
        ("something newer", Refused),
    ],
)
def test_a_code_is_an_error(code: str, kind: type[SdkError]) -> None:
    error = error_of(code, "why")

    assert type(error) is kind
    assert str(error) == "why"


def test_who_writes_too_much_is_told_when_to_come_back() -> None:
    error = error_of("rate_limited", "too many; retry in 17 s")

    assert isinstance(error, RateLimited)
    assert error.retry_seconds == 17
