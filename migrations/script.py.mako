"""${message}.

Revision ${up_revision}, after ${down_revision}.

Before you write this: workers of the release before keep running against the new schema for a while. Add
columns as NULL or with a default; build indexes on big tables CONCURRENTLY in a migration of their own; fill
data in another one; drop only what no running release reads. `downgrade` must really undo it: it is tested.
"""

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
