"""Every row of the catalogue of hostile input, over a real socket, against a real server process.

What a row must not do is the same for all: end the process, fill its memory, disturb two members of another room,
or make the server say anything of its inside. `rows_*.py` hold the rows; `pytest -k S7` runs one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import rows_access
import rows_faults
import rows_frames
import rows_handshake
import rows_hocuspocus
import rows_messages
import rows_names
import rows_presence
import rows_rest
import rows_tokens
import rows_turns
from catalogue import IN_SCOPE, INTERNAL, Field, Row
from house import Houses, houses
from liveness import liveness
from peer import Dialect

MODULES = (
    rows_handshake,
    rows_frames,
    rows_messages,
    rows_presence,
    rows_hocuspocus,
    rows_names,
    rows_rest,
    rows_faults,
    rows_tokens,
    rows_access,
    rows_turns,
)
ROWS: list[Row] = [row for module in MODULES for row in module.ROWS]
MAX_GROWTH_BYTES = 64 << 20

CASES = [
    pytest.param(
        row,
        dialect,
        id=f"{row.id}-{dialect.name}-{row.name}".encode("unicode_escape").decode(),
    )
    for row in ROWS
    for dialect in row.dialects
]


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Houses]:
    with houses(tmp_path_factory.mktemp("houses")) as made:
        yield made


def test_every_row_of_the_catalogue_is_tried():
    covered = {row.id for row in ROWS}

    assert [id for id in IN_SCOPE if id not in covered] == []
    assert covered <= set(IN_SCOPE)


def test_no_two_rows_have_one_name():
    names = [case.id for case in CASES]

    assert sorted(names) == sorted(set(names))


@pytest.mark.anyio
@pytest.mark.parametrize(("row", "dialect"), CASES)
async def test_hostile_input_costs_only_its_sender(
    servers: Houses, row: Row, dialect: Dialect
):
    house = servers.get(row.house)
    since = len(house.lines)
    before = await house.counters()
    resident = house.memory_bytes("VmRSS")
    house.forget_peak()

    async with liveness(house) as pair:
        field = Field(house, dialect, pair)
        try:
            await row.act(field)
        finally:
            await field.leave()

    assert house.is_alive()
    lines = await house.incidents(since)
    after = await house.counters()
    assert house.memory_bytes("VmHWM") - resident < MAX_GROWTH_BYTES
    assert INTERNAL.search(field.heard()) is None
    assert not [
        line
        for line in lines
        if "exception" in line or line.get("level") in ("error", "critical")
    ]
    assert len(lines) in row.lines, lines
    if row.counter is not None:
        grown = [name for name, value in after.items() if value > before.get(name, 0)]
        assert [name for name in grown if re.search(row.counter, name)], grown
