"""What is kept for a time only, and what remains of what is gone."""

from sqlalchemy import Column, ForeignKey, Table, text
from sqlalchemy.dialects.postgresql import BIGINT, DATE, NUMERIC, TEXT, UUID

from models.states import Kept
from models.tables.schema import FEW_ROWS, NOW, metadata, one_of, timestamp

retention = Table(
    "retention",
    metadata,
    Column("kind", TEXT, primary_key=True),
    timestamp("due_at", nullable=False, server_default=NOW, comment="when it is next looked at"),
    Column("reached", BIGINT, nullable=False, server_default=text("0"), comment="the last id that was looked at"),
    Column("removed", BIGINT, nullable=False, server_default=text("0"), comment="so far: rows, bodies or files"),
    timestamp("removed_at", comment="when last something was"),
    one_of("kind", Kept),
    comment="what is kept for a time only; a row for each kind",
    postgresql_with=FEW_ROWS,
)

pruned_days = Table(
    "pruned_days",
    metadata,
    Column("batch_id", UUID, ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True),
    Column("day", DATE, primary_key=True),
    *(Column(name, NUMERIC, nullable=False, comment="USD") for name in ("paid", "wasted", "uncertain")),
    *(Column(name, BIGINT, nullable=False) for name in ("images_stored", "bytes_stored")),
    comment="what the edits of pruned batches cost and stored, by batch and day (UTC)",
)

pruned_callbacks = Table(
    "pruned_callbacks",
    metadata,
    Column("effect", TEXT, primary_key=True),
    Column("callbacks", BIGINT, nullable=False),
    comment="rows of callbacks that are gone, by effect",
    postgresql_with=FEW_ROWS,
)
