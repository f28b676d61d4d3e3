"""listing head.

Revision 0006, after 0005: from where on a listing has not been read yet at its newer end, so that a request that ends
while it is being read is found.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "submissions",
        sa.Column(
            "searched_from",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="the latest end in that listing when reading it began",
        ),
    )


def downgrade() -> None:
    op.drop_column("submissions", "searched_from")
