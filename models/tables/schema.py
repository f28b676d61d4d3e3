"""The one MetaData, and what the tables share."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Column, MetaData, text
from sqlalchemy.dialects.postgresql import TIMESTAMP

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)

NOW = text("now()")
EMPTY_LIST = text("'[]'::jsonb")
EMPTY_OBJECT = text("'{}'::jsonb")


def timestamp(name: str, **options: Any) -> Column[datetime]:
    """Make a column of times with time zone."""
    return Column(name, TIMESTAMP(timezone=True), **options)


def one_of(column: str, words: Iterable[str]) -> CheckConstraint:
    """Make the CHECK that a column is one of the words."""
    return CheckConstraint(f"{column} IN ({listed(words)})", name=column)


def listed(words: Iterable[str]) -> str:
    """Write the words as SQL literals."""
    return ", ".join(f"'{word}'" for word in words)


# What autovacuum waits for (docs/deploy.md). Its own default is a fifth of a table: of five million rows, a million
# dead ones, which every claim steps over.
CHANGED_OFTEN = {
    "autovacuum_vacuum_scale_factor": "0.01",
    "autovacuum_vacuum_threshold": "1000",
    "autovacuum_analyze_scale_factor": "0.02",
}
INSERTED_AND_PRUNED = {**CHANGED_OFTEN, "autovacuum_vacuum_insert_scale_factor": "0.02"}
FEW_ROWS = {"autovacuum_vacuum_scale_factor": "0", "autovacuum_vacuum_threshold": "500"}
