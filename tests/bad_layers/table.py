"""The hostile table: what archives may try, and what must come of it.

Each row builds its archive field by field. A row is refused with an error that names entry and reason, or it
is accepted as the field's tools accept it, and then leaves exactly the names given.
"""

from collections.abc import Iterator

from tests.bad_layers.attack import Attack, Table
from tests.bad_layers.rows_headers import add_extended_headers, add_numbers
from tests.bad_layers.rows_kinds import add_markers, add_types
from tests.bad_layers.rows_links import add_hard_links, add_symlinks
from tests.bad_layers.rows_names import add_names
from tests.bad_layers.rows_streams import add_budgets, add_streams


def _rows() -> Iterator[Attack]:
    table = Table()
    for add in (
        add_names,
        add_symlinks,
        add_hard_links,
        add_types,
        add_markers,
        add_numbers,
        add_extended_headers,
        add_streams,
        add_budgets,
    ):
        add(table)
    yield from table.rows


ROWS = tuple(_rows())
