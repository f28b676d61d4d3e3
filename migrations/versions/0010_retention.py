"""retention.

Revision 0010, after 0009: what is kept for a time only, and callbacks that take less room. Receivers of the release
before go on writing `headers` and `body`, which stay; they may still open a batch again that is not pruned. Callbacks
wait for some seconds while two small indexes of theirs are made.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

KINDS = ("callback_bodies", "batches", "orphans", "uploads", "quarantine", "moments")
TIME = postgresql.TIMESTAMP(timezone=True)
VACUUM = {
    "autovacuum_vacuum_scale_factor": "0.01",
    "autovacuum_vacuum_threshold": "1000",
}
FEW_ROWS = {"autovacuum_vacuum_scale_factor": "0", "autovacuum_vacuum_threshold": "500"}
TO_BE_AUDITED = "finished_at IS NOT NULL AND (audited_at IS NULL OR audited_at < finished_at)"


def upgrade() -> None:
    _change_batches()
    _change_callbacks()
    op.create_index("uploads_expired", "uploads", ["expires_at"], postgresql_where=sa.text("expires_at IS NOT NULL"))
    _create_tables()


def _change_batches() -> None:
    comments = {
        "audited_at": "when its counters were last held against its rows; before finished_at: it is to be",
        "pruned_at": "from then on its edits are not to be had: their rows go, or are gone",
        "prune_ended_at": "when the last of these rows was gone",
    }
    difference = "what did not agree then; NULL: everything did"
    for name, comment in comments.items():
        op.add_column("batches", sa.Column(name, TIME, nullable=True, comment=comment))
    op.add_column("batches", sa.Column("audit_difference", sa.TEXT(), nullable=True, comment=difference))
    checks = {
        "audit_difference": "audit_difference IS NULL OR audited_at IS NOT NULL",
        "pruned_at": "pruned_at IS NULL OR finished_at IS NOT NULL",
        "prune_ended_at": "prune_ended_at IS NULL OR pruned_at IS NOT NULL",
    }
    for name, condition in checks.items():
        op.create_check_constraint(op.f(f"batches_{name}_check"), "batches", condition)
    indexes = {
        "batches_unaudited": ("finished_at", TO_BE_AUDITED),
        "batches_differing": ("id", "audit_difference IS NOT NULL"),
        "batches_kept": ("finished_at", "finished_at IS NOT NULL AND pruned_at IS NULL"),
        "batches_pruning": ("pruned_at", "pruned_at IS NOT NULL AND prune_ended_at IS NULL"),
    }
    for name, (column, condition) in indexes.items():
        op.create_index(name, "batches", [column], postgresql_where=sa.text(condition))


def _change_callbacks() -> None:
    packed = "body and signature headers, packed (models/deliveries.py); NULL once pruned"
    op.add_column("callbacks", sa.Column("delivery", postgresql.BYTEA(), nullable=True, comment=packed))
    op.alter_column(
        "callbacks",
        "token",
        existing_type=sa.TEXT(),
        nullable=True,
        existing_comment="as it stood in the path",
        comment="as it stood in the path; NULL: the submission's id",
    )
    of_before = "of releases that did not pack them"
    op.alter_column("callbacks", "headers", existing_type=postgresql.JSONB(), nullable=True, comment=of_before)
    op.alter_column(
        "callbacks",
        "body",
        existing_type=postgresql.BYTEA(),
        nullable=True,
        existing_comment="verbatim",
        comment="the same, verbatim",
    )
    for name in ("callbacks_submission", "callbacks_received"):
        op.drop_index(name, table_name="callbacks")
    op.create_index(
        "callbacks_submission",
        "callbacks",
        ["submission_id"],
        postgresql_where=sa.text("submission_id IS NOT NULL"),
    )
    op.create_index("callbacks_received", "callbacks", ["received_at"], postgresql_using="brin")
    op.create_index(
        "callbacks_orphans", "callbacks", ["received_at"], postgresql_where=sa.text("submission_id IS NULL")
    )
    op.execute(f"ALTER TABLE callbacks SET ({', '.join(f'{name} = {value}' for name, value in VACUUM.items())})")


def _create_tables() -> None:
    sums: list[sa.Column[Any]] = [
        *(sa.Column(name, sa.NUMERIC(), nullable=False, comment="USD") for name in ("paid", "wasted", "uncertain")),
        *(sa.Column(name, sa.BIGINT(), nullable=False) for name in ("images_stored", "bytes_stored")),
    ]
    op.create_table(
        "retention",
        sa.Column("kind", sa.TEXT(), nullable=False),
        sa.Column("due_at", TIME, server_default=sa.text("now()"), nullable=False, comment="when it is next looked at"),
        sa.Column(
            "reached",
            sa.BIGINT(),
            server_default=sa.text("0"),
            nullable=False,
            comment="the last id that was looked at",
        ),
        sa.Column(
            "removed", sa.BIGINT(), server_default=sa.text("0"), nullable=False, comment="so far: rows, bodies or files"
        ),
        sa.Column("removed_at", TIME, nullable=True, comment="when last something was"),
        sa.CheckConstraint(f"kind IN ({', '.join(map(repr, KINDS))})", name=op.f("retention_kind_check")),
        sa.PrimaryKeyConstraint("kind", name=op.f("retention_pkey")),
        comment="what is kept for a time only; a row for each kind",
        postgresql_with=FEW_ROWS,
    )
    # whoever upgrades has an hour to set how long things are kept
    op.execute(
        "INSERT INTO retention (kind, due_at) SELECT kind, now() + interval '1 h' FROM unnest(ARRAY["
        "'callback_bodies', 'batches', 'orphans', 'uploads', 'quarantine', 'moments']) AS kind"
    )
    op.create_table(
        "pruned_days",
        sa.Column("batch_id", sa.UUID(), nullable=False),
        sa.Column("day", sa.DATE(), nullable=False),
        *sums,
        sa.ForeignKeyConstraint(
            ["batch_id"], ["batches.id"], name=op.f("pruned_days_batch_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("batch_id", "day", name=op.f("pruned_days_pkey")),
        comment="what the edits of pruned batches cost and stored, by batch and day (UTC)",
    )
    op.create_table(
        "pruned_callbacks",
        sa.Column("effect", sa.TEXT(), nullable=False),
        sa.Column("callbacks", sa.BIGINT(), nullable=False),
        sa.PrimaryKeyConstraint("effect", name=op.f("pruned_callbacks_pkey")),
        comment="rows of callbacks that are gone, by effect",
        postgresql_with=FEW_ROWS,
    )


def downgrade() -> None:
    for table in ("pruned_callbacks", "pruned_days", "retention"):
        op.drop_table(table)
    op.drop_index("uploads_expired", table_name="uploads")
    _restore_callbacks()
    _restore_batches()


def _restore_callbacks() -> None:
    """What is packed cannot be read by the release before: it gets an empty body, and the hash of the real one."""
    op.execute(f"ALTER TABLE callbacks RESET ({', '.join(VACUUM)})")
    for name in ("callbacks_orphans", "callbacks_received", "callbacks_submission"):
        op.drop_index(name, table_name="callbacks")
    op.create_index("callbacks_received", "callbacks", ["received_at"])
    op.create_index("callbacks_submission", "callbacks", ["submission_id"])
    op.execute(
        "UPDATE callbacks SET token = coalesce(token, submission_id::text), headers = coalesce(headers, '{}'),"
        " body = coalesce(body, '') WHERE token IS NULL OR headers IS NULL OR body IS NULL"
    )
    op.drop_column("callbacks", "delivery")
    op.alter_column(
        "callbacks",
        "token",
        existing_type=sa.TEXT(),
        nullable=False,
        existing_comment="as it stood in the path; NULL: the submission's id",
        comment="as it stood in the path",
    )
    op.alter_column(
        "callbacks",
        "headers",
        existing_type=postgresql.JSONB(),
        nullable=False,
        existing_comment="of releases that did not pack them",
        comment=None,
    )
    op.alter_column(
        "callbacks",
        "body",
        existing_type=postgresql.BYTEA(),
        nullable=False,
        existing_comment="the same, verbatim",
        comment="verbatim",
    )


def _restore_batches() -> None:
    for name in ("batches_pruning", "batches_kept", "batches_differing", "batches_unaudited"):
        op.drop_index(name, table_name="batches")
    for name in ("audited_at", "audit_difference", "pruned_at", "prune_ended_at"):
        op.drop_column("batches", name)
