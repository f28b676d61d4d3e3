"""inputs.

Revision 0015, after 0014: inputs that are looked at before their edits are submitted, and files that callers hand in.
Every new column of an old table has a constant default or is empty, so no row is rewritten. Workers of the release
before know no input to wait for, and no object of the store: upgrade them before batches that name such objects, or
ask for `check_inputs`, are handed in. Going down, batches that wait for their inputs wait no longer.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

TIME = postgresql.TIMESTAMP(timezone=True)
CHANGED_OFTEN = {
    "autovacuum_vacuum_scale_factor": "0.01",
    "autovacuum_vacuum_threshold": "1000",
    "autovacuum_analyze_scale_factor": "0.02",
}
KINDS = ("callback_bodies", "batches", "orphans", "uploads", "quarantine", "moments", "images", "provider_copies")


def upgrade() -> None:
    _add_columns()
    _create_inputs()
    _create_input_files()
    _replace_kinds((*KINDS, "input_files"))
    op.execute("INSERT INTO retention (kind, due_at) VALUES ('input_files', now() + interval '1 h')")


def _add_columns() -> None:
    columns: list[sa.Column[Any]] = [
        sa.Column("pause_reason", sa.TEXT(), nullable=True, comment="where it was not a person who paused it"),
        sa.Column(
            "check_inputs",
            sa.TEXT(),
            server_default=sa.text("'none'"),
            nullable=False,
            comment="which inputs are looked at first",
        ),
        sa.Column("inputs", sa.INTEGER(), server_default=sa.text("0"), nullable=False, comment="its rows of `inputs`"),
        sa.Column(
            "inputs_ready_to",
            sa.INTEGER(),
            nullable=True,
            comment="no edit from this position on is submitted yet, for its inputs; NULL: none waits for them",
        ),
    ]
    for column in columns:
        op.add_column("batches", column)
    op.create_check_constraint(
        op.f("batches_check_inputs_check"), "batches", "check_inputs IN ('none', 'sample', 'all')"
    )
    sent = "what was sent in the place of entries of image_urls: {place from 0: URL}"
    op.add_column("submissions", sa.Column("sent_urls", postgresql.JSONB(), nullable=True, comment=sent))


def _create_inputs() -> None:
    checks = {
        "state": "state IN ('waiting', 'ready', 'refused')",
        "due_at": "(due_at IS NOT NULL) = (state = 'waiting')",
        "url": "(url IS NOT NULL) = (state = 'ready' AND host IS NULL)",
        "url_expires_at": "url IS NOT NULL OR url_expires_at IS NULL",
        "sha256": "state <> 'ready' OR sha256 IS NOT NULL",
    }
    op.create_table(
        "inputs",
        sa.Column("id", sa.BIGINT(), sa.Identity(always=True), nullable=False),
        sa.Column("state", sa.TEXT(), server_default=sa.text("'waiting'"), nullable=False),
        sa.Column("batch_id", sa.UUID(), nullable=False),
        sa.Column(
            "digest",
            postgresql.BYTEA(),
            nullable=False,
            comment="SHA-256 of the entry of image_urls, as it stands there",
        ),
        sa.Column("position", sa.INTEGER(), nullable=False, comment="the first edit that has it"),
        sa.Column("number", sa.INTEGER(), nullable=False, comment="its place there in image_urls, from 0"),
        sa.Column(
            "holds_from",
            sa.INTEGER(),
            nullable=False,
            comment="while it waits no edit from this position on is submitted",
        ),
        sa.Column(
            "sampled",
            sa.BOOLEAN(),
            server_default=sa.text("false"),
            nullable=False,
            comment="it stands for others too",
        ),
        sa.Column(
            "host",
            sa.TEXT(),
            nullable=True,
            comment="of a web URL, with its port; empty: a data URI; NULL: an object of the store",
        ),
        sa.Column("due_at", TIME, server_default=sa.text("now()"), nullable=True),
        sa.Column("attempt", sa.INTEGER(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "sha256",
            sa.TEXT(),
            nullable=True,
            comment="of its bytes when it was last looked at, lower-case hex",
        ),
        sa.Column("content_type", sa.TEXT(), nullable=True),
        sa.Column("bytes", sa.BIGINT(), nullable=True),
        sa.Column("width", sa.INTEGER(), nullable=True),
        sa.Column("height", sa.INTEGER(), nullable=True),
        sa.Column(
            "url", sa.TEXT(), nullable=True, comment="what the provider is given in the place of an object of the store"
        ),
        sa.Column("url_expires_at", TIME, nullable=True),
        sa.Column(
            "errors",
            postgresql.JSONB(),
            server_default=sa.text("'[]'::jsonb"),
            nullable=False,
            comment="[{at, attempt, type, message}]",
        ),
        *(sa.CheckConstraint(check, name=op.f(f"inputs_{name}_check")) for name, check in checks.items()),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name=op.f("inputs_batch_id_fkey"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("inputs_pkey")),
        sa.UniqueConstraint("batch_id", "digest", name=op.f("inputs_batch_id_digest_key")),
        comment="one input of a batch that is looked at, or delivered to the provider, before its edits are submitted",
        postgresql_with=CHANGED_OFTEN,
    )
    indexes = {
        "inputs_waiting": (["batch_id", "holds_from", "id"], "state = 'waiting'"),
        "inputs_refused": (["batch_id", "id"], "state = 'refused'"),
        "inputs_objects": (["digest"], "host IS NULL"),
    }
    for name, (names, condition) in indexes.items():
        op.create_index(name, "inputs", names, postgresql_where=sa.text(condition))


def _create_input_files() -> None:
    op.create_table(
        "input_files",
        sa.Column("client", sa.TEXT(), nullable=False),
        sa.Column("sha256", sa.TEXT(), nullable=False, comment="of the bytes, lower-case hex"),
        sa.Column("name", sa.TEXT(), nullable=False, comment="among the client's objects: storage://NAME"),
        sa.Column("storage_key", sa.TEXT(), nullable=False),
        sa.Column("content_type", sa.TEXT(), nullable=False),
        sa.Column("bytes", sa.BIGINT(), nullable=False),
        sa.Column("width", sa.INTEGER(), nullable=False),
        sa.Column("height", sa.INTEGER(), nullable=False),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column(
            "stored_at", TIME, nullable=True, comment="NULL: it is being written, or whoever wrote it was killed"
        ),
        sa.Column("expires_at", TIME, nullable=True, comment="NULL: kept for ever"),
        sa.Column(
            "kept_for",
            postgresql.DOUBLE_PRECISION(),
            nullable=True,
            comment="seconds from when it was last handed in, or named by a batch",
        ),
        sa.PrimaryKeyConstraint("client", "sha256", name=op.f("input_files_pkey")),
        comment="a file that a client handed in as an input",
    )
    op.create_index("input_files_name", "input_files", ["client", "name"])
    op.create_index(
        "input_files_expired", "input_files", ["expires_at"], postgresql_where=sa.text("expires_at IS NOT NULL")
    )


def _replace_kinds(kinds: tuple[str, ...]) -> None:
    name = op.f("retention_kind_check")
    op.drop_constraint(name, "retention", type_="check")
    op.create_check_constraint(name, "retention", f"kind IN ({', '.join(map(repr, kinds))})")


def downgrade() -> None:
    op.execute("DELETE FROM retention WHERE kind = 'input_files'")
    _replace_kinds(KINDS)
    op.drop_table("input_files")
    op.drop_table("inputs")
    op.drop_column("submissions", "sent_urls")
    for name in ("inputs_ready_to", "inputs", "check_inputs", "pause_reason"):
        op.drop_column("batches", name)
