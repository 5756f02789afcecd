"""Stock clients behind HAProxy go through faults of replicas and of what these share. `make faults` has the other scenarios."""

from __future__ import annotations

from pathlib import Path

import pytest
from controls import CONTROLS
from fault_table import STOCK
from scenario import Scenario
from stock import StockStage

pytestmark = pytest.mark.anyio

PATCHED = str(Path(__file__).parent / "patched.py")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["F1/postgres stock"])
async def test_stock_clients_lose_nothing_that_they_call_saved(
    tmp_path: Path, name: str
) -> None:
    result = await STOCK[name].run(tmp_path, seed=1)

    assert result.violations == []
    assert result.acked > 0
    assert (result.lost, result.doubled) == (0, 0)


async def test_a_server_that_writes_after_its_word_is_found_out_by_stock_clients(
    tmp_path: Path,
) -> None:
    play, _ = CONTROLS["acknowledges first"]
    control = Scenario("control stock", "", play.play, 5, StockStage)

    result = await control.run(
        tmp_path, seed=1, program=(PATCHED, "acknowledges first")
    )

    assert result.lost > 0
    assert "C2" in {violation.check for violation in result.violations}
