"""deletion.

Revision 0014, after 0013: stored images that are kept for a time only, and requests that the provider is told to
forget. Programs of the release before write and read none of it, and an empty column rewrites no row.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

TIME = postgresql.TIMESTAMP(timezone=True)
NEW_KINDS = ("images", "provider_copies")
KINDS = ("callback_bodies", "batches", "orphans", "uploads", "quarantine", "moments")
IMAGES, PROVIDER = (
    f"finished_at IS NOT NULL AND ({what}_deleted_at IS NULL OR {what}_deleted_at < finished_at)"
    for what in ("images", "provider")
)


def upgrade() -> None:
    for column in (
        sa.Column("output_expires_after", sa.INTEGER(), comment="seconds from its end for which its images are stored"),
        sa.Column(
            "images_deleted_to",
            sa.INTEGER(),
            comment="of the edits up to this position every stored image is gone",
        ),
        sa.Column(
            "images_deleted_at", TIME, comment="when the last was gone; before finished_at: there are newer ones"
        ),
        sa.Column("images_deleted", sa.INTEGER(), server_default=sa.text("0"), nullable=False),
        sa.Column("bytes_deleted", sa.BIGINT(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "provider_deleted_to",
            sa.INTEGER(),
            comment="of the edits up to this position the provider keeps no request",
        ),
        sa.Column(
            "provider_deleted_at", TIME, comment="when the last was gone; before finished_at: there are newer ones"
        ),
    ):
        op.add_column("batches", column)
    op.create_check_constraint(op.f("batches_output_expires_after_check"), "batches", "output_expires_after > 0")
    for name, condition in (
        ("batches_images", IMAGES),
        ("batches_images_expire", f"{IMAGES} AND output_expires_after IS NOT NULL"),
        ("batches_provider", PROVIDER),
    ):
        op.create_index(name, "batches", ["finished_at"], postgresql_where=sa.text(condition))
    op.add_column(
        "images",
        sa.Column("deleted_at", TIME, comment="its object is no longer in storage, or about to go"),
    )
    op.create_check_constraint(
        op.f("images_deleted_at_check"), "images", "deleted_at IS NULL OR storage_key IS NOT NULL"
    )
    _allow((*KINDS, *NEW_KINDS))
    # whoever upgrades has an hour to think about it
    op.execute(
        "INSERT INTO retention (kind, due_at) VALUES ('images', now() + interval '1 h'),"
        " ('provider_copies', now() + interval '1 h')"
    )


def downgrade() -> None:
    op.execute("DELETE FROM retention WHERE kind IN ('images', 'provider_copies')")
    _allow(KINDS)
    op.drop_column("images", "deleted_at")
    for name in ("batches_provider", "batches_images_expire", "batches_images"):
        op.drop_index(name, table_name="batches")
    for name in (
        *("output_expires_after", "images_deleted_to", "images_deleted_at", "images_deleted", "bytes_deleted"),
        *("provider_deleted_to", "provider_deleted_at"),
    ):
        op.drop_column("batches", name)


def _allow(kinds: tuple[str, ...]) -> None:
    op.drop_constraint(op.f("retention_kind_check"), "retention", type_="check")
    op.create_check_constraint(op.f("retention_kind_check"), "retention", f"kind IN ({', '.join(map(repr, kinds))})")
