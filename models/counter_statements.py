"""How a statement adds what another one changed to counters: the shape that all of them share.

A counter has several rows, and its value is their sum. A transaction takes any row that nobody holds, and adds one
where all are held: writers never wait for each other here, and so never for each other in a ring.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from models.statements import fill

ALWAYS = "true"
SOURCE = "{source}"
"""Stays in a statement's text until a trigger is made of it: what the statement changed, as rows with a `sign`."""
SINCE = "{since}"
"""The same for the time from which on something counts as happening: that of the transaction, or all times."""
UNFOLD = "folded = false"
"""SQL: whoever adds to counters of a batch that were folded into one row has the accounts look at it again."""


@dataclass(frozen=True)
class Counting:
    """One statement that counts what was changed, with `{source}` for the changed rows, and when it is worth it."""

    statement: str
    after_insert: str | None = ALWAYS
    """SQL condition over a row `n` that was inserted; None: an insert changes nothing that is counted here."""
    after_update: str | None = ALWAYS
    """SQL condition over a row as it is, `n`, and as it was, `o`; None: no update does."""


def has_changed(*columns: str) -> str:
    """SQL: whether an update changed one of these columns."""
    new, old = (", ".join(f"{row}.{column}" for column in columns) for row in ("n", "o"))
    return f"({new}) IS DISTINCT FROM ({old})"


def sum_signed(counters: Mapping[str, str]) -> str:
    """SQL: what the changed rows `r` add to each counter."""
    return ", ".join(f"sum(r.sign * {amount}) AS {name}" for name, amount in counters.items())


def sum_again(counters: Iterable[str]) -> str:
    """SQL: the same over the groups `d`."""
    return ", ".join(f"sum(d.{name}) AS {name}" for name in counters)


def any_changed(counters: Iterable[str]) -> str:
    """SQL: whether a group `d` changes any counter."""
    return " OR ".join(f"d.{name} <> 0" for name in counters)


@dataclass(frozen=True)
class Addition:
    """What a statement adds to one table of counters."""

    table: str
    keys: tuple[str, ...]
    counters: tuple[str, ...]
    change: str
    """SQL: the rows to be added. The statement's other parts know them as `TABLE_change`."""
    others: Mapping[str, str] = field(default_factory=dict)
    """Columns that are no sums, with what becomes of them: `k` is the row of the counters, `c` what is added."""
    also: str = ""
    """What else is set in a row that is there."""


# `id` is NULL where every row is held
_CHOOSE = """
    {table}_change AS MATERIALIZED ({change}), {table}_chosen AS MATERIALIZED (
        SELECT c.*, k.id FROM {table}_change c LEFT JOIN LATERAL (
            SELECT k.id FROM {table} k WHERE {same} ORDER BY k.id LIMIT 1 FOR UPDATE SKIP LOCKED
        ) k ON true
    ), {table}_added AS (
        UPDATE {table} k SET {sets} FROM {table}_chosen c WHERE k.id = c.id
    )"""
_COUNT = "SELECT count(*) FROM {part}"
_INSERT = "INSERT INTO {table} ({columns}) SELECT {columns} FROM {table}_chosen WHERE id IS NULL"


def add_to_counters(*additions: Addition, before: str = "", beside: str = "", counted: str = "") -> str:
    """SQL: one statement that adds to the counters of several tables, each time to a row that nobody holds.

    `before` and `beside`: other parts of its WITH, which the changes read, or which read the changes. `counted`: the
    part whose rows it counts and returns the number of, else it returns nothing.
    """
    inserts = [_insert_row(addition) for addition in additions]
    last = fill(_COUNT, part=counted) if counted else inserts.pop()
    parts = [
        *([before] if before else []),
        *(_choose_row(addition) for addition in additions),
        *(f"{addition.table}_inserted AS ({insert})" for addition, insert in zip(additions, inserts, strict=False)),
        *([beside] if beside else []),
    ]
    return f"WITH {', '.join(parts)} {last}"


def _choose_row(addition: Addition) -> str:
    sets = [f"{name} = k.{name} + c.{name}" for name in addition.counters]
    sets += [f"{name} = {value}" for name, value in addition.others.items()]
    return fill(
        _CHOOSE,
        table=addition.table,
        change=addition.change,
        same=" AND ".join(f"k.{key} = c.{key}" for key in addition.keys),
        sets=", ".join([*sets, *([addition.also] if addition.also else [])]),
    )


def _insert_row(addition: Addition) -> str:
    columns = ", ".join([*addition.keys, *addition.counters, *addition.others])
    return fill(_INSERT, table=addition.table, columns=columns)
