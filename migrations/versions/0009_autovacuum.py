"""autovacuum.

Revision 0009, after 0008: hot tables are vacuumed after a bounded number of changes, not after a fifth of their rows.
The lock it takes (SHARE UPDATE EXCLUSIVE) stops no reader and no writer of the release before.
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

CHANGED = {
    "autovacuum_vacuum_scale_factor": "0.01",
    "autovacuum_vacuum_threshold": "1000",
    "autovacuum_analyze_scale_factor": "0.02",
}
INSERTED = {"autovacuum_vacuum_insert_scale_factor": "0.02", "autovacuum_analyze_scale_factor": "0.02"}
COUNTED = {"autovacuum_vacuum_scale_factor": "0", "autovacuum_vacuum_threshold": "500"}
TABLES = {
    **dict.fromkeys(("edits", "submissions", "images"), CHANGED),
    "callbacks": INSERTED,
    **dict.fromkeys(("spending", "batch_counters", "error_counters", "callback_counters"), COUNTED),
}


def upgrade() -> None:
    for table, options in TABLES.items():
        op.execute(f"ALTER TABLE {table} SET ({', '.join(f'{name} = {value}' for name, value in options.items())})")


def downgrade() -> None:
    for table, options in TABLES.items():
        op.execute(f"ALTER TABLE {table} RESET ({', '.join(options)})")
