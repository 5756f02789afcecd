"""Which client certificates make a principal."""

from __future__ import annotations

from typing import Any

import pytest

from collab.auth.base import Certificate, Credential
from collab.auth.certificates import Certificates, certificate_of, is_spiffe_id

ID = "spiffe://example.org/agents/writer"


def peer(*names: tuple[str, str]) -> dict[str, Any]:
    """As `getpeercert` has it."""
    return {
        "serialNumber": "0AB1",
        "notAfter": "Nov 23 11:08:48 2026 GMT",
        "subjectAltName": names,
    }


def test_the_one_spiffe_id_is_taken_with_serial_number_and_end() -> None:
    found = certificate_of(peer(("DNS", "example.org"), ("URI", ID)))

    assert found == Certificate(ID, "0ab1", 1795432128.0)


@pytest.mark.parametrize(
    "names",
    [
        (),
        (("DNS", ID),),
        (("URI", ID), ("URI", "spiffe://example.org/other")),
        (("URI", ID), ("URI", "https://example.org")),
        (("URI", "https://example.org/agents/writer"),),
    ],
)
def test_without_exactly_one_spiffe_id_there_is_nobody(
    names: tuple[tuple[str, str], ...],
) -> None:
    assert certificate_of(peer(*names)) is None


@pytest.mark.parametrize("nothing", [None, {}])
def test_without_a_certificate_there_is_nobody(nothing: dict[str, Any] | None) -> None:
    assert certificate_of(nothing) is None


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "spiffe://",
        "spiffe://example.org",
        "spiffe://example.org/",
        "spiffe:///agents",
        "spiffe://Example.org/a",
        "spiffe://example.org:443/a",
        "spiffe://user@example.org/a",
        "spiffe://example.org/a/",
        "spiffe://example.org//a",
        "spiffe://example.org/./a",
        "spiffe://example.org/a/..",
        "spiffe://example.org/a?b",
        "spiffe://example.org/a#b",
        "spiffe://example.org/a%2Fb",
        "spiffe://example.org/\u00e4",
        "spiffe://example.org/a\n",
        "spiffe://example.org/a\x00b",
        "SPIFFE://example.org/a",
        " spiffe://example.org/a",
        "spiffe://example.org/" + "a" * 2048,
    ],
)
def test_what_could_be_written_in_two_ways_is_no_spiffe_id(uri: str) -> None:
    assert not is_spiffe_id(uri)


@pytest.mark.anyio
async def test_a_certificate_is_a_service_that_may_do_nothing_by_itself() -> None:
    shown = Credential(certificate=Certificate(ID, "0ab1", 7.0))

    found = await Certificates().verify(shown, "r")

    assert found is not None
    assert (found.id, found.kind, found.name) == (ID, "service", "writer")
    assert (found.expires, found.token, found.tenant) == (7.0, "0ab1", "")
    assert found.operations("r") == 0


@pytest.mark.anyio
async def test_a_token_goes_before_the_certificate_of_who_carries_it() -> None:
    shown = Credential("a.b.c", Certificate(ID, "0ab1", 7.0))

    assert await Certificates().verify(shown, "r") is None
