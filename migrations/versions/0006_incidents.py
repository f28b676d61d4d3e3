"""incidents.

Revision 0006, after 0004: what tells a model that is down from an edit that is bad, and lost replies from an outage;
and failed edits in the order of their key, so that a retry can take them in chunks.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0004"
branch_labels = None
depends_on = None

BEFORE, NOW = "of these, before the last retry", "of these, before the last retry, or while the model was down"


def upgrade() -> None:
    op.add_column(
        "provider_status",
        sa.Column(
            "unknown_submits",
            sa.INTEGER(),
            server_default=sa.text("0"),
            nullable=False,
            comment="POSTs in a row without a usable reply, and without a sign that the provider accepted one of them",
        ),
    )
    op.add_column(
        "provider_status",
        sa.Column(
            "unknown_since",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="when the first of these was POSTed",
        ),
    )
    op.create_check_constraint(
        op.f("provider_status_unknown_since_check"),
        "provider_status",
        "(unknown_submits = 0) = (unknown_since IS NULL)",
    )
    op.add_column(
        "submissions",
        sa.Column(
            "excused",
            sa.BOOLEAN(),
            server_default=sa.text("false"),
            nullable=False,
            comment="it failed because the model was down, and used up no attempt of its edit",
        ),
    )
    op.create_check_constraint(
        op.f("submissions_excused_check"), "submissions", "NOT excused OR outcome IS NOT DISTINCT FROM 'failed'"
    )
    op.create_index(
        "submissions_completed",
        "submissions",
        ["completed_at"],
        postgresql_where=sa.text("completed_at IS NOT NULL"),
    )
    op.alter_column("edits", "attempts_before", existing_type=sa.INTEGER(), existing_comment=BEFORE, comment=NOW)
    op.drop_index("edits_failed", table_name="edits")
    op.create_index("edits_failed", "edits", ["batch_id", "id"], postgresql_where=sa.text("state = 'failed'"))


def downgrade() -> None:
    op.drop_index("edits_failed", table_name="edits")
    op.create_index("edits_failed", "edits", ["batch_id"], postgresql_where=sa.text("state = 'failed'"))
    op.alter_column("edits", "attempts_before", existing_type=sa.INTEGER(), existing_comment=NOW, comment=BEFORE)
    op.drop_index("submissions_completed", table_name="submissions")
    op.drop_column("submissions", "excused")
    op.drop_column("provider_status", "unknown_since")
    op.drop_column("provider_status", "unknown_submits")
