"""Images that the provider made, and files that were uploaded to it."""

from sqlalchemy import CheckConstraint, Column, ForeignKey, Identity, Index, Table, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import BIGINT, INTEGER, JSONB, TEXT, UUID

from models.states import ImageState
from models.tables.schema import CHANGED_OFTEN, EMPTY_LIST, NOW, metadata, one_of, timestamp

images = Table(
    "images",
    metadata,
    Column("id", BIGINT, Identity(always=True), primary_key=True),
    Column("state", TEXT, nullable=False, server_default=text("'waiting'")),
    Column("submission_id", UUID, ForeignKey("submissions.id", ondelete="CASCADE"), nullable=False),
    Column("index", INTEGER, nullable=False, comment="0-based place in the provider's list"),
    timestamp("due_at", server_default=NOW),
    Column("attempt", INTEGER, nullable=False, server_default=text("0")),
    Column("url", TEXT, nullable=False),
    Column("content_type", TEXT),
    Column("file_name", TEXT),
    Column("file_size", BIGINT),
    Column("width", INTEGER),
    Column("height", INTEGER),
    Column("file_data", TEXT, comment="as declared"),
    timestamp("expires_at", comment="the provider may delete the file after this, where it said so"),
    timestamp("created_at", nullable=False, server_default=NOW),
    Column("storage_key", TEXT),
    Column("sha256", TEXT, comment="of the stored bytes, lower-case hex"),
    Column("stored_bytes", BIGINT),
    Column("stored_type", TEXT),
    Column("stored_width", INTEGER),
    Column("stored_height", INTEGER),
    timestamp("stored_at"),
    timestamp("deleted_at", comment="its object is no longer in storage, or about to go"),
    Column("errors", JSONB, nullable=False, server_default=EMPTY_LIST),
    one_of("state", ImageState),
    CheckConstraint("(due_at IS NOT NULL) = (state = 'waiting')", name="due_at"),
    # what was stored and is discarded still lies there, and its row says so
    *(
        CheckConstraint(
            f"CASE state WHEN 'stored' THEN {column} IS NOT NULL "
            f"WHEN 'discarded' THEN ({column} IS NULL) = (stored_at IS NULL) ELSE {column} IS NULL END",
            name=column,
        )
        for column in ("storage_key", "sha256", "stored_bytes", "stored_type", "stored_at")
    ),
    CheckConstraint("deleted_at IS NULL OR storage_key IS NOT NULL", name="deleted_at"),
    UniqueConstraint("submission_id", "index"),
    # no two images ever share an object in storage
    Index("images_storage_key", "storage_key", unique=True, postgresql_where=text("storage_key IS NOT NULL")),
    # claims.py: what the download lane owes
    Index("images_due", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    postgresql_with=CHANGED_OFTEN,
)

uploads = Table(
    "uploads",
    metadata,
    Column("sha256", TEXT, primary_key=True, comment="of the file, lower-case hex"),
    Column("cdn_url", TEXT, primary_key=True, comment="where it was uploaded to: another provider knows nothing of it"),
    Column("url", TEXT, nullable=False),
    Column("content_type", TEXT, nullable=False),
    Column("bytes", BIGINT, nullable=False),
    timestamp("uploaded_at", nullable=False, server_default=NOW),
    timestamp("expires_at", comment="NULL: the provider named no end"),
    # retention.py: what the provider has deleted
    Index("uploads_expired", "expires_at", postgresql_where=text("expires_at IS NOT NULL")),
)
