"""A batch's counters, added up: the one row of a finished batch, and the several of those of which something changed.

A sum over the rows of each batch would be made batch by batch. Of finished batches there is nothing to be added up, and
the others are few, so all of them are added up in one pass, and each batch finds its own.
"""

from collections.abc import Iterable

from models.statements import fill

JOIN_FOLDED = "LEFT JOIN batch_counters f ON f.batch_id = b.id AND f.folded"
"""SQL: of the batch `b`, the row `f` of its folded counters. There is at most one."""
_JOIN_UNFOLDED = """LEFT JOIN (
    SELECT k.batch_id, {sums} FROM batch_counters k WHERE NOT k.folded GROUP BY k.batch_id
) u ON u.batch_id = b.id"""
_TOTAL = "coalesce(f.{name}, 0) + coalesce(u.{name}, 0) AS {name}"


def join_unfolded(counters: Iterable[str], *others: str) -> str:
    """SQL: of the batch `b`, the sums `u` over its counters that are not folded, and other aggregates of theirs."""
    return fill(_JOIN_UNFOLDED, sums=", ".join([*(f"sum(k.{name}) AS {name}" for name in counters), *others]))


def total(name: str) -> str:
    """SQL: one counter of the batch."""
    return fill(_TOTAL, name=name)
