"""steering.

Revision 0002, after 0001: criteria, retries, money and appended edits. Workers of the release before insert
submissions without `price` and `reserved`; their defaults are what that release charged and reserved.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# as it was then; models/tables/ may move on
COMMITTED = """CASE
    WHEN outcome IS NULL OR outcome = 'unknown' OR error_type = 'result_expired' THEN reserved
    WHEN outcome = 'succeeded' THEN coalesce(cost, 0)
    ELSE 0 END"""


def upgrade() -> None:
    op.create_table(
        "additions",
        sa.Column("batch_id", sa.UUID(), nullable=False),
        sa.Column("idempotency_key", sa.TEXT(), nullable=False),
        sa.Column(
            "content_sha256", sa.TEXT(), nullable=False, comment="of its edits; the same key with others is refused"
        ),
        sa.Column("edit_count", sa.INTEGER(), nullable=False),
        sa.Column("skipped", sa.INTEGER(), nullable=False),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name=op.f("additions_batch_id_fkey"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("batch_id", "idempotency_key", name=op.f("additions_pkey")),
        comment="edits appended to a batch under an idempotency key",
    )
    op.create_table(
        "spending",
        sa.Column("batch_id", sa.UUID(), nullable=False),
        sa.Column(
            "committed", sa.NUMERIC(), server_default=sa.text("0"), nullable=False, comment="USD, over its submissions"
        ),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name=op.f("spending_batch_id_fkey"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("batch_id", name=op.f("spending_pkey")),
        comment="of batches with a max_cost; kept by the triggers of models/spending.py",
    )
    op.add_column(
        "batches",
        sa.Column(
            "broken_criterion",
            sa.TEXT(),
            nullable=True,
            comment="why the rest was not done: which of its own limits the batch broke",
        ),
    )
    op.add_column(
        "edits",
        sa.Column(
            "attempts_before",
            sa.INTEGER(),
            server_default=sa.text("0"),
            nullable=False,
            comment="of these, before the last retry",
        ),
    )
    op.create_index("edits_failed", "edits", ["batch_id"], unique=False, postgresql_where=sa.text("state = 'failed'"))
    op.add_column("notifications", sa.Column("attempted_at", postgresql.TIMESTAMP(timezone=True), nullable=True))
    op.add_column(
        "provider_status",
        sa.Column("price_per_image", sa.NUMERIC(), nullable=True, comment="USD, as the provider says"),
    )
    op.add_column("provider_status", sa.Column("price_read_at", postgresql.TIMESTAMP(timezone=True), nullable=True))
    op.add_column(
        "submissions",
        sa.Column(
            "price",
            sa.NUMERIC(),
            server_default=sa.text("0.03"),
            nullable=False,
            comment="USD per picture, when POSTed",
        ),
    )
    op.add_column(
        "submissions",
        sa.Column(
            "reserved",
            sa.NUMERIC(),
            server_default=sa.text("0"),
            nullable=False,
            comment="USD, if it brings all it may",
        ),
    )
    op.add_column(
        "submissions",
        sa.Column(
            "committed",
            sa.NUMERIC(),
            sa.Computed(COMMITTED, persisted=True),
            nullable=True,
            comment="USD that it costs, or may have cost",
        ),
    )
    op.add_column(
        "submissions",
        sa.Column(
            "cancel_asked_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="the provider took or refused the wish to cancel",
        ),
    )
    op.create_check_constraint(
        op.f("batches_broken_criterion_check"),
        "batches",
        "broken_criterion IN ('tolerated_failures', 'tolerated_failure_percent', 'deadline', 'max_cost')",
    )
    op.create_check_constraint(op.f("edits_attempts_before_check"), "edits", "attempts_before BETWEEN 0 AND attempt")
    op.execute(
        """
        INSERT INTO spending (batch_id, committed)
        SELECT b.id, (SELECT coalesce(sum(s.committed), 0) FROM edits e JOIN submissions s ON s.edit_id = e.id
                      WHERE e.batch_id = b.id)
        FROM batches b WHERE b.max_cost IS NOT NULL
        """
    )


def downgrade() -> None:
    op.drop_column("submissions", "cancel_asked_at")
    op.drop_column("submissions", "committed")
    op.drop_column("submissions", "reserved")
    op.drop_column("submissions", "price")
    op.drop_column("provider_status", "price_read_at")
    op.drop_column("provider_status", "price_per_image")
    op.drop_column("notifications", "attempted_at")
    op.drop_index("edits_failed", table_name="edits", postgresql_where=sa.text("state = 'failed'"))
    op.drop_column("edits", "attempts_before")
    op.drop_column("batches", "broken_criterion")
    op.drop_table("spending")
    op.drop_table("additions")
