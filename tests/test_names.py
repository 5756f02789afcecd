"""Which room names there are."""

from __future__ import annotations

import pytest

from collab.errors import InvalidRoomName
from collab.names import room_name


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "a/b",
        "../../etc/passwd",
        "a:b",
        "*",
        "{tag}",
        "é",
        "文档",
        "x" * 256,
        "A",
        " a",
        "...",
    ],
)
def test_names_are_opaque(name: str) -> None:
    assert room_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        " ",
        "\t",
        "a\x00b",
        "a\nb",
        "a\r",
        "\x7f",
        "\x85",
        "\u2028",
        "x" * 257,
        "é" * 129,
        "e\u0301",
        "\ud800",
    ],
)
def test_names_that_two_readers_could_take_for_different_ones_are_refused(
    name: str,
) -> None:
    with pytest.raises(InvalidRoomName):
        room_name(name)
