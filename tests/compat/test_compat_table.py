"""The table of stock clients says what the tests do."""

from driving import Driver
from kinds import KINDS
from table import COLUMNS, TABLE, kinds_of, render


def test_the_table_of_clients_is_fresh(clients: Driver) -> None:
    fresh = render(clients.do("installed"))

    assert TABLE.read_text() == fresh, "run python tests/compat/table.py"


def test_every_client_is_tried_in_every_column() -> None:
    tried = {
        column: set().union(*map(kinds_of, tests)) for column, tests in COLUMNS.items()
    }

    assert tried == {column: set(KINDS) for column in COLUMNS}
