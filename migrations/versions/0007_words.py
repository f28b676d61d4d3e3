"""words.

Revision 0007, after 0006: one name for the cancel that was sent to the provider, and `image` in comments.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

COMMENTS: dict[tuple[str, Any], tuple[str, str]] = {
    ("price", sa.NUMERIC()): ("USD per picture, when POSTed", "USD per image, when POSTed"),
    ("due_at", sa.TIMESTAMP(timezone=True)): (
        "next poll, or the proven deadline while no request id is known",
        "next poll, or the unknown deadline while no request id is known",
    ),
    ("doubled", sa.BOOLEAN()): (
        "succeeded, but the pictures of another submission of its edit are the ones that are kept",
        "succeeded, but the images of another submission of its edit are the ones that are kept",
    ),
    ("set_number", sa.INTEGER()): (
        "1: its pictures were the first to be taken for the edit; 2: in the place of these; NULL: never taken",
        "1: its images were the first to be taken for the edit; 2: in the place of these; NULL: never taken",
    ),
}


def upgrade() -> None:
    op.alter_column("submissions", "cancel_asked_at", new_column_name="cancel_sent_at")
    for (column, kind), (before, after) in COMMENTS.items():
        op.alter_column("submissions", column, existing_type=kind, existing_comment=before, comment=after)


def downgrade() -> None:
    for (column, kind), (before, after) in COMMENTS.items():
        op.alter_column("submissions", column, existing_type=kind, existing_comment=after, comment=before)
    op.alter_column("submissions", "cancel_sent_at", new_column_name="cancel_asked_at")
