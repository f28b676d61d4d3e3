"""past counters.

Revision 0013, after 0012: minutes, hours and days that are over get tables of their own, so that few rows have to be
added up for a sum over all times. The prune lane moves into them what is there. That of the release before may go on:
what it adds up is what it finds in the old tables, and that stands nowhere else. One index of submissions takes the
place of two; building it, a second for each million of them, holds up who writes them.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

MINUTE = (
    *("created", "submitted", "accepted", "called_back", "polled", "stored", "failed", "cancelled"),
    *("images_stored", "bytes_stored"),
)
BUCKETS = (
    *("le_0_1", "le_0_2", "le_0_5", "le_1", "le_2", "le_5", "le_10", "le_20", "le_50", "le_100", "le_200", "le_500"),
    *("le_1000", "le_3600"),
)
AMOUNTS = ("reserved", "paid", "wasted", "uncertain")
STORED = ("images_stored", "bytes_stored")
Moved = tuple[str, str, str, tuple[str, ...]]
"""The table of what goes on, its time, the rest of its key, what it counts."""
PRUNED: dict[str, Moved] = {
    "past_minutes": ("minute_counters", "minute", "", MINUTE),
    "past_latencies": ("latency_counters", "hour", "step", ("events", "seconds", *BUCKETS)),
}
KEPT: dict[str, Moved] = {
    "past_days": ("day_counters", "day", "client", (*AMOUNTS, *STORED)),
    "past_callbacks": ("callback_counters", "hour", "effect", ("callbacks",)),
}


def _numbers(names: tuple[str, ...], type_: sa.types.TypeEngine[Any]) -> list[sa.Column[Any]]:
    return [sa.Column(name, type_, nullable=False) for name in names]


def _hour() -> sa.Column[Any]:
    return sa.Column("hour", postgresql.TIMESTAMP(timezone=True), nullable=False)


def upgrade() -> None:
    op.create_table(
        "past_minutes",
        sa.Column("minute", postgresql.TIMESTAMP(timezone=True), nullable=False),
        *_numbers(MINUTE, sa.BIGINT()),
        sa.PrimaryKeyConstraint("minute", name=op.f("past_minutes_pkey")),
        comment="minutes that are over (models/past_counters.py)",
    )
    op.create_table(
        "past_latencies",
        _hour(),
        sa.Column("step", sa.TEXT(), nullable=False),
        sa.Column("events", sa.BIGINT(), nullable=False),
        sa.Column("seconds", sa.DOUBLE_PRECISION(), nullable=False),
        *_numbers(BUCKETS, sa.BIGINT()),
        sa.PrimaryKeyConstraint("hour", "step", name=op.f("past_latencies_pkey")),
        comment="the same of hours and steps",
    )
    op.create_table(
        "past_days",
        sa.Column("day", sa.DATE(), nullable=False),
        sa.Column("client", sa.TEXT(), nullable=False),
        *_numbers(AMOUNTS, sa.NUMERIC()),
        *_numbers(STORED, sa.BIGINT()),
        sa.PrimaryKeyConstraint("day", "client", name=op.f("past_days_pkey")),
        comment="the same of days and clients",
    )
    op.create_table(
        "past_callbacks",
        _hour(),
        sa.Column("effect", sa.TEXT(), nullable=False),
        sa.Column("callbacks", sa.BIGINT(), nullable=False),
        sa.PrimaryKeyConstraint("hour", "effect", name=op.f("past_callbacks_pkey")),
        comment="the same of hours and what callbacks brought about",
    )
    _comment("random", "its time and 74 random bits")
    op.drop_index("submissions_set", table_name="submissions")
    op.drop_index("submissions_edit", table_name="submissions")
    op.create_index("submissions_edit", "submissions", ["edit_id", "set_number"], unique=True)


def _comment(was: str, now: str) -> None:
    comments = [f"{what}; the token in the webhook URL" for what in (was, now)]
    op.alter_column("submissions", "id", existing_comment=comments[0], comment=comments[1])


def downgrade() -> None:
    """What is over goes back to where it came from, and out of the sum that stands before all time."""
    _comment("its time and 74 random bits", "random")
    op.drop_index("submissions_edit", table_name="submissions")
    op.create_index("submissions_edit", "submissions", ["edit_id"])
    op.create_index(
        "submissions_set",
        "submissions",
        ["edit_id", "set_number"],
        unique=True,
        postgresql_where=sa.text("set_number IS NOT NULL"),
    )
    for past, (table, time, key, names) in PRUNED.items():
        keys, columns = f"{key}, " if key else "", ", ".join(names)
        gone = ", ".join(f"-sum({name})" for name in names)
        group = f"GROUP BY {key}" if key else "HAVING count(*) > 0"
        op.execute(
            f"INSERT INTO {table} ({time}, {keys}{columns}) SELECT '-infinity', {keys}{gone} FROM {past} {group}"  # noqa: S608
        )
    for table, time, *_ in KEPT.values():
        op.execute(f"DELETE FROM {table} WHERE {time} = '-infinity'")  # noqa: S608
    for past, (table, time, key, names) in {**PRUNED, **KEPT}.items():
        every = ", ".join((time, *([key] if key else []), *names))
        op.execute(f"INSERT INTO {table} ({every}) SELECT {every} FROM {past}")  # noqa: S608
        op.drop_table(past)
