"""monitoring.

Revision 0011, after 0010: money and storage by day and client, what happened in a minute, how long it took by hour,
signs of life, and what happened to an edit or a batch that no other row tells. Money and storage are counted from what
there is; minutes, latencies and events begin now. The release before may go on writing: all columns have defaults, and
the triggers of `models/` stand at the end of this same transaction.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

STATES = "('pending', 'submitting', 'submitted', 'ready', 'stored', 'failed', 'cancelled')"
AMOUNTS = ("reserved", "paid", "wasted", "uncertain")
HAPPENED = (
    *("created", "submitted", "accepted", "called_back", "polled", "stored", "failed", "cancelled"),
    *("images_stored", "bytes_stored"),
)
BOUNDS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 3600)
COUNTED: dict[str, Any] = {
    "fillfactor": 50,
    "autovacuum_vacuum_scale_factor": "0",
    "autovacuum_vacuum_threshold": "500",
}
FEW_ROWS = {name: value for name, value in COUNTED.items() if name != "fillfactor"}
COPIED = (
    *("pending", "submitting", "submitted", "ready", "stored", "failed", "cancelled", "skipped", "submissions"),
    *("in_flight", "unknown", "doubled", "cost", "committed", "images_returned"),
    *("images_waiting", "images_stored", "images_failed", "images_discarded", "bytes_stored"),
    *("reserved", "wasted", "uncertain"),
)


def upgrade() -> None:
    op.execute("LOCK TABLE edits, submissions, images, callbacks, batches IN SHARE ROW EXCLUSIVE MODE")
    _extend_counters()
    _create_counters()
    _create_events()
    _count_money()
    _fold()
    op.create_index(
        "batch_counters_folded", "batch_counters", ["batch_id"], unique=True, postgresql_where=sa.text("folded")
    )


def _number(name: str, type_: sa.types.TypeEngine[Any]) -> sa.Column[Any]:
    return sa.Column(name, type_, server_default="0", nullable=False)


def _time(name: str, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, postgresql.TIMESTAMP(timezone=True), **options)


def _identity(table: str) -> tuple[Any, ...]:
    column: sa.Column[Any] = sa.Column("id", sa.BIGINT(), sa.Identity(always=True), nullable=False)
    return (column, sa.PrimaryKeyConstraint("id", name=op.f(f"{table}_pkey")))


def _extend_counters() -> None:
    for amount in ("reserved", "uncertain", "wasted"):
        op.add_column("batch_counters", _number(amount, sa.NUMERIC()))
    op.add_column("batch_counters", _time("ended_at", nullable=True))
    lately = _number("ended_lately", sa.DOUBLE_PRECISION())
    lately.comment = "edits stored or failed, those of long before ended_at faded"
    op.add_column("batch_counters", lately)
    op.add_column(
        "batch_counters",
        sa.Column(
            "folded",
            sa.BOOLEAN(),
            server_default="false",
            nullable=False,
            comment="the only row of a finished batch that adds up; false again with the next change",
        ),
    )
    op.create_index("batch_counters_unfolded", "batch_counters", ["batch_id"], postgresql_where=sa.text("NOT folded"))
    op.add_column("callback_counters", _time("hour", server_default="-infinity", nullable=False))
    op.drop_index("callback_counters_effect", table_name="callback_counters")
    op.create_index("callback_counters_hour", "callback_counters", ["hour", "effect", "id"])


def _create_counters() -> None:
    op.create_table(
        "day_counters",
        *_identity("day_counters"),
        sa.Column("day", sa.DATE(), nullable=False, comment="UTC"),
        sa.Column("client", sa.TEXT(), nullable=False),
        *(_number(name, sa.NUMERIC()) for name in AMOUNTS),
        *(_number(name, sa.BIGINT()) for name in ("images_stored", "bytes_stored")),
        comment="money and storage by day and client; several rows each, to be summed; kept by triggers",
        postgresql_with=COUNTED,
    )
    op.create_index("day_counters_day", "day_counters", ["day", "client", "id"])
    op.create_table(
        "minute_counters",
        *_identity("minute_counters"),
        _time("minute", nullable=False),
        *(_number(name, sa.BIGINT()) for name in HAPPENED),
        comment="what happened in a minute; several rows each, to be summed; kept by triggers",
        postgresql_with=COUNTED,
    )
    op.create_index("minute_counters_minute", "minute_counters", ["minute", "id"])
    buckets: list[sa.Column[Any]] = [
        sa.Column(
            f"le_{str(bound).replace('.', '_')}",
            sa.BIGINT(),
            nullable=False,
            comment=f"events that took {bound} s at most",
        )
        for bound in BOUNDS
    ]
    op.create_table(
        "latency_counters",
        *_identity("latency_counters"),
        _time("hour", nullable=False),
        sa.Column("step", sa.TEXT(), nullable=False),
        sa.Column("events", sa.BIGINT(), nullable=False),
        sa.Column("seconds", sa.DOUBLE_PRECISION(), nullable=False, comment="sum over the events"),
        *buckets,
        comment="how long things took that ended in an hour; several rows each, to be summed; kept by triggers",
        postgresql_with=COUNTED,
    )
    op.create_index("latency_counters_hour", "latency_counters", ["hour", "step", "id"])
    op.create_table(
        "heartbeats",
        sa.Column("name", sa.TEXT(), nullable=False, comment="a lane, or `tick`"),
        _time("at", nullable=False, comment="the last turn or look"),
        _time("worked_at", nullable=True, comment="the last in which something was done"),
        sa.Column("places", sa.INTEGER(), nullable=True, comment="of the submit lane: edits that may be in flight"),
        sa.PrimaryKeyConstraint("name", name=op.f("heartbeats_pkey")),
        comment="when each part last said that it is alive; written every few seconds at the most",
        postgresql_with=FEW_ROWS,
    )


def _create_events() -> None:
    program = "by its name at the database"
    op.create_table(
        "edit_events",
        *_identity("edit_events"),
        sa.Column("edit_id", sa.BIGINT(), nullable=False),
        _time("at", server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("was", sa.TEXT(), nullable=False),
        sa.Column("state", sa.TEXT(), nullable=False),
        _time("final_since", nullable=True, comment="of a final state that it leaves"),
        sa.Column("attempt", sa.INTEGER(), nullable=False),
        sa.Column("program", sa.TEXT(), nullable=False, comment=f"the one that moved it, {program}"),
        sa.CheckConstraint(f"was IN {STATES}", name=op.f("edit_events_was_check")),
        sa.CheckConstraint(f"state IN {STATES}", name=op.f("edit_events_state_check")),
        sa.ForeignKeyConstraint(["edit_id"], ["edits.id"], name=op.f("edit_events_edit_id_fkey"), ondelete="CASCADE"),
        comment="arrows back, and all after the first of them: what the other rows of an edit do not tell",
    )
    op.create_index("edit_events_edit", "edit_events", ["edit_id", "id"])
    op.create_table(
        "batch_events",
        *_identity("batch_events"),
        sa.Column("batch_id", sa.UUID(), nullable=False),
        _time("at", server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("what", sa.TEXT(), nullable=False),
        sa.Column("program", sa.TEXT(), nullable=False, comment=f"the one that changed it, {program}"),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["batches.id"], name=op.f("batch_events_batch_id_fkey"), ondelete="CASCADE"
        ),
        comment="paused, resumed, cancelled, finished, reopened",
    )
    op.create_index("batch_events_batch", "batch_events", ["batch_id", "id"])


def _count_money() -> None:
    op.execute(
        """
        CREATE TEMPORARY TABLE money ON COMMIT DROP AS
        SELECT e.batch_id, b.client, (coalesce(s.completed_at, s.posted_at) AT TIME ZONE 'UTC')::date AS day,
               sum(CASE WHEN s.outcome IS NULL THEN s.reserved ELSE 0 END) AS reserved,
               sum(coalesce(s.cost, 0)) AS paid,
               sum(CASE WHEN s.doubled OR s.outcome = 'failed' OR e.state = 'failed' THEN coalesce(s.cost, 0)
                   ELSE 0 END) AS wasted,
               sum(CASE WHEN s.outcome = 'unknown' OR s.error_type = 'result_expired' OR s.may_be_charged
                   THEN s.reserved ELSE 0 END) AS uncertain
        FROM submissions s JOIN edits e ON e.id = s.edit_id JOIN batches b ON b.id = e.batch_id GROUP BY 1, 2, 3
        """
    )
    op.execute(
        """
        INSERT INTO day_counters (day, client, reserved, paid, wasted, uncertain)
        SELECT day, client, sum(reserved), sum(paid), sum(wasted), sum(uncertain) FROM money GROUP BY 1, 2
        """
    )
    op.execute(
        """
        INSERT INTO batch_counters (batch_id, reserved, wasted, uncertain)
        SELECT batch_id, sum(reserved), sum(wasted), sum(uncertain) FROM money GROUP BY 1
        """
    )
    op.execute(
        """
        INSERT INTO day_counters (day, client, images_stored, bytes_stored)
        SELECT (i.stored_at AT TIME ZONE 'UTC')::date, b.client, count(*), sum(i.stored_bytes)
        FROM images i JOIN submissions s ON s.id = i.submission_id JOIN edits e ON e.id = s.edit_id
        JOIN batches b ON b.id = e.batch_id WHERE i.state = 'stored' GROUP BY 1, 2
        """
    )
    op.execute("DELETE FROM callback_counters")
    op.execute(
        """
        INSERT INTO callback_counters (hour, effect, callbacks)
        SELECT date_trunc('hour', received_at, 'UTC'), effect, count(*) FROM callbacks GROUP BY 1, 2
        """
    )


def _fold() -> None:
    sums = ", ".join(f"sum({name})" for name in COPIED)
    columns = ", ".join(COPIED)
    op.execute(
        f"""
        WITH old AS (
            DELETE FROM batch_counters k USING batches b
            WHERE b.id = k.batch_id AND b.finished_at IS NOT NULL RETURNING k.*
        )
        INSERT INTO batch_counters (batch_id, folded, {columns}, first_stored_at, last_stored_at)
        SELECT batch_id, sum(pending + submitting + submitted + ready) = 0, {sums},
               min(first_stored_at), max(last_stored_at)
        FROM old GROUP BY batch_id
        """  # noqa: S608
    )


def downgrade() -> None:
    for table in ("batch_events", "edit_events", "heartbeats", "latency_counters", "minute_counters", "day_counters"):
        op.drop_table(table)
    op.drop_index("callback_counters_hour", table_name="callback_counters")
    op.create_index("callback_counters_effect", "callback_counters", ["effect", "id"])
    op.drop_column("callback_counters", "hour")
    op.drop_index("batch_counters_folded", table_name="batch_counters")
    op.drop_index("batch_counters_unfolded", table_name="batch_counters")
    for column in ("folded", "ended_lately", "ended_at", "wasted", "uncertain", "reserved"):
        op.drop_column("batch_counters", column)
