"""All scenarios of the fault table, by name."""

from __future__ import annotations

import rows_clients
import rows_delivery
import rows_process
import rows_redis
import rows_store
import stock
from scenario import Scenario

SCENARIOS: dict[str, Scenario] = {
    row.name: row
    for rows in (rows_process, rows_redis, rows_delivery, rows_store, rows_clients)
    for row in rows.ROWS
}
STOCK = stock.with_stock_clients(SCENARIOS.values())
EVERY = SCENARIOS | STOCK
# What the fault table asks for here; the rest of it has tests of its own elsewhere.
ASKED = [*range(1, 16), 21, *range(23, 29), 33, 35, 39]


def number_of(name: str) -> int:
    """F6 flush/postgres → 6"""
    return int(name.split("/")[0].split()[0][1:])
