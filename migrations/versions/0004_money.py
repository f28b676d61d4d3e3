"""money.

Revision 0004, after 0003: what is known of a charge, which set of pictures is kept, and how often the provider said
no. Workers of the release before know nothing of it: every new column has a default that says "nothing known".
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# as they were then; models/tables/ may move on
BEFORE = """CASE
    WHEN outcome IS NULL OR outcome = 'unknown' OR error_type = 'result_expired' THEN reserved
    WHEN outcome = 'succeeded' THEN coalesce(cost, 0)
    ELSE 0 END"""
COMMITTED = """CASE
    WHEN outcome IS NULL OR outcome = 'unknown' OR error_type = 'result_expired' OR may_be_charged THEN reserved
    ELSE coalesce(cost, 0) END"""
STORED = ("storage_key", "sha256", "stored_bytes", "stored_type", "stored_at")


def upgrade() -> None:
    _add_columns()
    _replace_committed(COMMITTED)
    for column in STORED:
        _replace_check(
            column,
            f"CASE state WHEN 'stored' THEN {column} IS NOT NULL "
            f"WHEN 'discarded' THEN ({column} IS NULL) = (stored_at IS NULL) ELSE {column} IS NULL END",
        )
    _fill()
    op.create_check_constraint(
        op.f("submissions_may_be_charged_check"),
        "submissions",
        "NOT may_be_charged OR outcome IS NOT DISTINCT FROM 'failed'",
    )
    op.create_check_constraint(
        op.f("submissions_denied_since_check"), "submissions", "(denied_since IS NULL) = (denials = 0)"
    )
    op.create_check_constraint(op.f("submissions_set_number_check"), "submissions", "set_number > 0")
    op.create_index(
        "submissions_open", "submissions", ["edit_id"], unique=False, postgresql_where=sa.text("outcome IS NULL")
    )
    op.create_index(
        "submissions_set",
        "submissions",
        ["edit_id", "set_number"],
        unique=True,
        postgresql_where=sa.text("set_number IS NOT NULL"),
    )
    op.create_index(
        "images_storage_key",
        "images",
        ["storage_key"],
        unique=True,
        postgresql_where=sa.text("storage_key IS NOT NULL"),
    )


def _add_columns() -> None:
    op.add_column("images", sa.Column("file_data", sa.TEXT(), nullable=True, comment="as declared"))
    for column in (
        sa.Column(
            "billable_units",
            sa.NUMERIC(),
            nullable=True,
            comment="as the provider reports on a result; a callback does not tell",
        ),
        sa.Column(
            "may_be_charged",
            sa.BOOLEAN(),
            server_default=sa.text("false"),
            nullable=False,
            comment="refused after a run, and the provider did not say whether it charges for it",
        ),
        sa.Column("seed", sa.BIGINT(), nullable=True, comment="the one that the provider says it used"),
        sa.Column(
            "set_number",
            sa.INTEGER(),
            nullable=True,
            comment="1: its pictures were the first to be taken for the edit; 2: in the place of these; "
            "NULL: never taken",
        ),
        sa.Column(
            "denials",
            sa.INTEGER(),
            server_default=sa.text("0"),
            nullable=False,
            comment="in a row: 404s on the result; while no request id is known, lookups that could prove nothing",
        ),
        sa.Column("denied_since", postgresql.TIMESTAMP(timezone=True), nullable=True, comment="the first of these"),
        sa.Column(
            "searched_to",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="the provider's listing is read from the end of its time down to here",
        ),
        sa.Column(
            "note",
            sa.TEXT(),
            nullable=True,
            comment="why its outcome is still unknown, or its result still unread",
        ),
    ):
        op.add_column("submissions", column)
    op.alter_column(
        "submissions",
        "doubled",
        comment="succeeded, but the pictures of another submission of its edit are the ones that are kept",
        existing_comment="paid beside a resubmission",
    )


def _replace_committed(expression: str) -> None:
    op.drop_column("submissions", "committed")
    op.add_column(
        "submissions",
        sa.Column(
            "committed",
            sa.NUMERIC(),
            sa.Computed(expression, persisted=True),
            nullable=True,
            comment="USD that it costs, or may have cost",
        ),
    )


def _replace_check(column: str, condition: str) -> None:
    op.drop_constraint(op.f(f"images_{column}_check"), "images", type_="check")
    op.create_check_constraint(op.f(f"images_{column}_check"), "images", condition)


def _fill() -> None:
    # a request id that was learned otherwise than from a reply came without a deadline of its result
    op.execute(
        """
        UPDATE submissions s
        SET result_lost_after = s.accepted_at + CASE WHEN e.arguments ->> 'sync_mode' = 'true'
                                THEN interval '6 minutes' ELSE interval '1 hour' END
        FROM edits e WHERE e.id = s.edit_id AND s.request_id IS NOT NULL AND s.result_lost_after IS NULL
        """
    )
    # two rows may name one object: a late result overwrote the pictures of another set; the newer bytes lie there
    op.execute(
        """
        UPDATE images i
        SET state = 'discarded', storage_key = NULL, sha256 = NULL, stored_bytes = NULL, stored_type = NULL,
            stored_at = NULL, stored_width = NULL, stored_height = NULL
        WHERE i.state = 'stored' AND EXISTS (
            SELECT FROM images o WHERE o.storage_key = i.storage_key AND (o.stored_at, o.id) > (i.stored_at, i.id))
        """
    )
    # the set that is kept: the newest of which a picture was not discarded; `doubled` is every other one
    op.execute(
        """
        WITH kept AS (
            SELECT DISTINCT ON (s.edit_id) s.edit_id, s.id
            FROM submissions s JOIN images i ON i.submission_id = s.id
            WHERE s.outcome = 'succeeded' AND i.state <> 'discarded'
            ORDER BY s.edit_id, s.completed_at DESC, s.id
        ), marked AS (
            UPDATE submissions s SET set_number = 1, doubled = false FROM kept WHERE s.id = kept.id
        )
        UPDATE submissions s SET doubled = true FROM kept
        WHERE s.edit_id = kept.edit_id AND s.id <> kept.id AND s.outcome = 'succeeded' AND NOT s.doubled
        """
    )
    op.execute(
        """
        UPDATE images i SET state = 'discarded', due_at = NULL FROM submissions s
        WHERE s.id = i.submission_id AND s.set_number IS NULL AND i.state <> 'discarded'
        """
    )


def downgrade() -> None:
    op.drop_index("images_storage_key", table_name="images")
    op.drop_index("submissions_set", table_name="submissions")
    op.drop_index("submissions_open", table_name="submissions")
    op.execute(
        """
        UPDATE images SET storage_key = NULL, sha256 = NULL, stored_bytes = NULL, stored_type = NULL,
                          stored_at = NULL, stored_width = NULL, stored_height = NULL
        WHERE state = 'discarded'
        """
    )
    for column in STORED:
        _replace_check(column, f"({column} IS NOT NULL) = (state = 'stored')")
    _replace_committed(BEFORE)
    op.alter_column(
        "submissions",
        "doubled",
        comment="paid beside a resubmission",
        existing_comment="succeeded, but the pictures of another submission of its edit are the ones that are kept",
    )
    for column in ("note", "searched_to", "denied_since", "denials"):
        op.drop_column("submissions", column)
    for column in ("set_number", "seed", "may_be_charged", "billable_units"):
        op.drop_column("submissions", column)
    op.drop_column("images", "file_data")
