"""counters.

Revision 0008, after 0007: what a person polls is kept beside every change, and no longer counted. The tables that are
counted stay as they are until the triggers of `models/counters.py` stand, in this same transaction.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

INTEGERS = (
    *("pending", "submitting", "submitted", "ready", "stored", "failed", "cancelled", "skipped"),
    *("submissions", "in_flight", "unknown", "doubled", "images_returned"),
    *("images_waiting", "images_stored", "images_failed", "images_discarded"),
)
BEFORE = "of batches with a max_cost; kept by the triggers of models/spending.py"
AFTER = "of batches with a max_cost; kept by the triggers of models/counters.py"


def upgrade() -> None:
    op.execute("LOCK TABLE edits, submissions, images, callbacks IN SHARE ROW EXCLUSIVE MODE")
    op.create_table_comment("spending", AFTER, existing_comment=BEFORE)
    _create_batch_counters()
    op.create_table(
        "error_counters",
        sa.Column("id", sa.BIGINT(), sa.Identity(always=True), nullable=False),
        sa.Column("batch_id", sa.UUID(), nullable=False),
        sa.Column("type", sa.TEXT(), nullable=False),
        sa.Column("edits", sa.INTEGER(), nullable=False, comment="not stored, whose latest error is of this type"),
        sa.Column("failed", sa.INTEGER(), nullable=False, comment="of these"),
        sa.Column("example", sa.TEXT(), nullable=True, comment="a message"),
        sa.PrimaryKeyConstraint("id", name=op.f("error_counters_pkey")),
        comment="the same by the type of an edit's latest error",
        postgresql_with={"fillfactor": 50},
    )
    op.create_index("error_counters_batch", "error_counters", ["batch_id", "type", "id"])
    op.create_table(
        "callback_counters",
        sa.Column("id", sa.BIGINT(), sa.Identity(always=True), nullable=False),
        sa.Column("effect", sa.TEXT(), nullable=False),
        sa.Column("callbacks", sa.BIGINT(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("callback_counters_pkey")),
        comment="the same by what a callback brought about",
        postgresql_with={"fillfactor": 50},
    )
    op.create_index("callback_counters_effect", "callback_counters", ["effect", "id"])
    _fill()


def _create_batch_counters() -> None:
    numbers: list[sa.Column[Any]] = [
        sa.Column(name, sa.INTEGER(), server_default="0", nullable=False) for name in INTEGERS
    ]
    amounts: list[sa.Column[Any]] = [
        sa.Column(name, sa.NUMERIC(), server_default="0", nullable=False) for name in ("cost", "committed")
    ]
    moments: list[sa.Column[Any]] = [
        sa.Column(name, postgresql.TIMESTAMP(timezone=True), nullable=True)
        for name in ("first_stored_at", "last_stored_at")
    ]
    op.create_table(
        "batch_counters",
        sa.Column("id", sa.BIGINT(), sa.Identity(always=True), nullable=False),
        sa.Column("batch_id", sa.UUID(), nullable=False),
        *numbers,
        *amounts,
        sa.Column("bytes_stored", sa.BIGINT(), server_default="0", nullable=False),
        *moments,
        sa.PrimaryKeyConstraint("id", name=op.f("batch_counters_pkey")),
        comment="several rows a batch, to be summed; kept by the triggers of models/counters.py",
        postgresql_with={"fillfactor": 50},
    )
    op.create_index("batch_counters_batch", "batch_counters", ["batch_id", "id"])


def _fill() -> None:
    op.execute(
        """
        INSERT INTO batch_counters (batch_id, pending, submitting, submitted, ready, stored, failed, cancelled, skipped)
        SELECT batch_id, count(*) FILTER (WHERE state = 'pending'), count(*) FILTER (WHERE state = 'submitting'),
               count(*) FILTER (WHERE state = 'submitted'), count(*) FILTER (WHERE state = 'ready'),
               count(*) FILTER (WHERE state = 'stored'), count(*) FILTER (WHERE state = 'failed'),
               count(*) FILTER (WHERE state = 'cancelled'), count(*) FILTER (WHERE state = 'failed' AND attempt = 0)
        FROM edits GROUP BY batch_id
        """
    )
    op.execute(
        """
        INSERT INTO batch_counters (batch_id, submissions, in_flight, unknown, doubled, cost, committed,
                                    images_returned)
        SELECT e.batch_id, count(*), count(*) FILTER (WHERE s.outcome IS NULL),
               count(*) FILTER (WHERE s.outcome = 'unknown'), count(*) FILTER (WHERE s.doubled),
               coalesce(sum(s.cost), 0), sum(s.committed), coalesce(sum(s.images_returned), 0)
        FROM submissions s JOIN edits e ON e.id = s.edit_id GROUP BY e.batch_id
        """
    )
    op.execute(
        """
        INSERT INTO batch_counters (batch_id, images_waiting, images_stored, images_failed, images_discarded,
                                    bytes_stored, first_stored_at, last_stored_at)
        SELECT e.batch_id, count(*) FILTER (WHERE i.state = 'waiting'), count(*) FILTER (WHERE i.state = 'stored'),
               count(*) FILTER (WHERE i.state = 'failed'), count(*) FILTER (WHERE i.state = 'discarded'),
               coalesce(sum(i.stored_bytes) FILTER (WHERE i.state = 'stored'), 0),
               min(i.stored_at) FILTER (WHERE i.state = 'stored'), max(i.stored_at) FILTER (WHERE i.state = 'stored')
        FROM images i JOIN submissions s ON s.id = i.submission_id JOIN edits e ON e.id = s.edit_id
        GROUP BY e.batch_id
        """
    )
    op.execute(
        """
        INSERT INTO error_counters (batch_id, type, edits, failed, example)
        SELECT batch_id, coalesce(left(errors -> -1 ->> 'type', 200), ''), count(*),
               count(*) FILTER (WHERE state = 'failed'), max(left(errors -> -1 ->> 'message', 500))
        FROM edits WHERE state <> 'stored' AND errors <> '[]' GROUP BY 1, 2
        """
    )
    op.execute("INSERT INTO callback_counters (effect, callbacks) SELECT effect, count(*) FROM callbacks GROUP BY 1")


def downgrade() -> None:
    for table in ("callback_counters", "error_counters", "batch_counters"):
        op.drop_table(table)
    op.create_table_comment("spending", BEFORE, existing_comment=AFTER)
