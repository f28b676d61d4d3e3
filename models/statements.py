"""How SQL is written down: each statement once, as a constant of a module of `models/`, so that all can be listed.

`tests/database/test_statements.py` finds them, prepares each against the migrated database, and looks at the plans of
those that name an index. No other package holds SQL (`tests/unit/project/test_rules.py`).
"""

from collections.abc import Iterable
from typing import Self


def fill(text: str, **fragments: str) -> str:
    """The text, each `{name}` in it replaced by the fragment of that name: SQL of ours, never a value."""
    return text.format(**fragments) if fragments else text


class Statement(str):
    """One SQL statement, with its parameters as psycopg takes them.

    `index`: the index, or several with spaces between, through which it reaches its rows, however large the tables;
    `a|b`: either, because both are short at most times. `fragments` are as in `fill`.
    """

    indexes: tuple[str, ...]

    def __new__(cls, text: str, *, index: str = "", **fragments: str) -> Self:
        """The statement with its fragments filled in."""
        made = super().__new__(cls, fill(text, **fragments))
        made.indexes = tuple(index.split())
        return made


class RowSet(str):
    """SQL: rows that are handed in, one array a column. `RowSet("m", id="bigint", state="text")` is
    `unnest(%(id)s::bigint[], %(state)s::text[]) AS m (id, state)`."""

    columns: tuple[str, ...]

    def __new__(cls, name: str, **types: str) -> Self:
        """The rows `name`, with a PostgreSQL type for each column."""
        arrays = ", ".join(f"%({column})s::{type_name}[]" for column, type_name in types.items())
        made = super().__new__(cls, f"unnest({arrays}) AS {name} ({', '.join(types)})")
        made.columns = tuple(types)
        return made

    def arrays(self, rows: Iterable[tuple[object, ...]]) -> dict[str, list[object]]:
        """The parameters: the rows' values, column by column."""
        values: dict[str, list[object]] = {column: [] for column in self.columns}
        for row in rows:
            for column, value in zip(self.columns, row, strict=True):
                values[column].append(value)
        return values
