"""Stock clients behind HAProxy go through faults of replicas and of what these share. `make faults` has the other scenarios."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults import STOCK

pytestmark = pytest.mark.anyio


@pytest.mark.slow
@pytest.mark.parametrize("name", ["F1/postgres stock"])
async def test_stock_clients_lose_nothing_that_they_call_saved(
    tmp_path: Path, name: str
) -> None:
    result = await STOCK[name].run(tmp_path, seed=1)

    assert result.violations == []
    assert result.acked > 0
    assert (result.lost, result.doubled) == (0, 0)
