"""traces.

Revision 0012, after 0011: the trace to which a batch belongs. Programs of the release before leave it empty, and an
empty column rewrites no row.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "batches",
        sa.Column(
            "traceparent",
            sa.TEXT(),
            nullable=True,
            comment="the trace of the request that brought it, as W3C writes it",
        ),
    )
    op.create_check_constraint(
        op.f("batches_traceparent_check"), "batches", "traceparent ~ '^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$'"
    )


def downgrade() -> None:
    op.drop_column("batches", "traceparent")
