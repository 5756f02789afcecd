"""Every fault, provoked for real in its short form: nothing that was called saved is lost, nothing is there twice.

`make faults` runs the long forms, with many seeds.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from fault_table import ASKED, SCENARIOS, number_of

pytestmark = pytest.mark.anyio

SEED = 1


def test_every_fault_of_the_table_that_belongs_here_has_a_scenario() -> None:
    assert sorted({number_of(name) for name in SCENARIOS}) == ASKED


@pytest.mark.slow
@pytest.mark.timeout(300)  # on a machine that others use too
@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_fault_costs_nothing_that_was_called_saved(
    tmp_path: Path, name: str
) -> None:
    result = await SCENARIOS[name].run(tmp_path, seed=SEED)

    assert result.violations == []
    assert result.acked > 0
    assert (result.lost, result.doubled) == (0, 0) or "lost" in result.notes
