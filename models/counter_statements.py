"""How a statement adds what another one changed to counters: the shape that all of them share.

A counter has several rows, and its value is their sum. A transaction takes any row that nobody holds, and adds one
where all are held: writers never wait for each other here, and so never for each other in a ring.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

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
    """SQL condition over `new_rows`; None: an insert changes nothing that is counted here."""
    after_update: str | None = ALWAYS
    """SQL condition over `new_rows` and `old_rows`; None: no update does."""


_CHANGED = """EXISTS (
    SELECT FROM new_rows n JOIN old_rows o USING (id) WHERE ({new}) IS DISTINCT FROM ({old}))"""


def has_changed(*columns: str) -> str:
    """SQL: whether an update changed one of these columns in any row."""
    names = {table: ", ".join(f"{table}.{column}" for column in columns) for table in ("n", "o")}
    return fill(_CHANGED, new=names["n"], old=names["o"])


def sum_signed(counters: Mapping[str, str]) -> str:
    """SQL: what the changed rows `r` add to each counter."""
    return ", ".join(f"sum(r.sign * {amount}) AS {name}" for name, amount in counters.items())


def sum_again(counters: Iterable[str]) -> str:
    """SQL: the same over the groups `d`."""
    return ", ".join(f"sum(d.{name}) AS {name}" for name in counters)


def any_changed(counters: Iterable[str]) -> str:
    """SQL: whether a group `d` changes any counter."""
    return " OR ".join(f"d.{name} <> 0" for name in counters)


# `k` is a row of the counters, `c` what is to be added; `id` is NULL where every row is held
_RECORD = """
    chosen AS MATERIALIZED (
        SELECT c.*, k.id FROM change c LEFT JOIN LATERAL (
            SELECT k.id FROM {table} k WHERE {same} ORDER BY k.id LIMIT 1 FOR UPDATE SKIP LOCKED
        ) k ON true
    ), added AS (
        UPDATE {table} k SET {sets} FROM chosen c WHERE k.id = c.id
    )
    INSERT INTO {table} ({columns}) SELECT {columns} FROM chosen WHERE id IS NULL
"""


def add_to_counters(table: str, keys: Sequence[str], counters: Iterable[str], *, also: str = "", **others: str) -> str:
    """SQL: add the rows of `change` to that table's counters, for each of them to a row that nobody holds.

    `others`: columns that are no sums, with what becomes of them; `also`: what else is set in a row that is there.
    """
    sets = [f"{name} = k.{name} + c.{name}" for name in counters]
    return fill(
        _RECORD,
        table=table,
        same=" AND ".join(f"k.{key} = c.{key}" for key in keys),
        sets=", ".join([*sets, *(f"{name} = {value}" for name, value in others.items()), *([also] if also else [])]),
        columns=", ".join([*keys, *counters, *others]),
    )
