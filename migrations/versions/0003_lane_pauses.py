"""lane_pauses.

Revision 0003, after 0002: what stands still, why, and until when.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "lane_pauses",
        sa.Column("lane", sa.TEXT(), nullable=False),
        sa.Column("subject", sa.TEXT(), nullable=False, comment="what of the lane is paused: `storage`, an endpoint"),
        sa.Column("paused_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("reason", sa.TEXT(), nullable=False),
        sa.Column("message", sa.TEXT(), nullable=False),
        sa.Column(
            "retry_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=False,
            comment="when one item probes whether the trouble is over",
        ),
        sa.Column("probes", sa.INTEGER(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("lane", "subject", name=op.f("lane_pauses_pkey")),
        comment="what stands still for a trouble that is ours or the provider's; a row only while it does",
    )


def downgrade() -> None:
    op.drop_table("lane_pauses")
