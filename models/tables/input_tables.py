"""Inputs that are looked at before their edits are submitted, and files that callers handed in."""

from sqlalchemy import BOOLEAN, CheckConstraint, Column, ForeignKey, Identity, Index, Table, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import BIGINT, BYTEA, DOUBLE_PRECISION, INTEGER, JSONB, TEXT, UUID

from models.states import InputState
from models.tables.schema import CHANGED_OFTEN, EMPTY_LIST, NOW, metadata, one_of, timestamp

inputs = Table(
    "inputs",
    metadata,
    Column("id", BIGINT, Identity(always=True), primary_key=True),
    Column("state", TEXT, nullable=False, server_default=text("'waiting'")),
    Column("batch_id", UUID, ForeignKey("batches.id", ondelete="CASCADE"), nullable=False),
    Column("digest", BYTEA, nullable=False, comment="SHA-256 of the entry of image_urls, as it stands there"),
    Column("position", INTEGER, nullable=False, comment="the first edit that has it"),
    Column("number", INTEGER, nullable=False, comment="its place there in image_urls, from 0"),
    Column("holds_from", INTEGER, nullable=False, comment="while it waits no edit from this position on is submitted"),
    Column("sampled", BOOLEAN, nullable=False, server_default=text("false"), comment="it stands for others too"),
    Column("host", TEXT, comment="of a web URL, with its port; empty: a data URI; NULL: an object of the store"),
    timestamp("due_at", server_default=NOW),
    Column("attempt", INTEGER, nullable=False, server_default=text("0")),
    Column("sha256", TEXT, comment="of its bytes when it was last looked at, lower-case hex"),
    Column("content_type", TEXT),
    Column("bytes", BIGINT),
    Column("width", INTEGER),
    Column("height", INTEGER),
    Column("url", TEXT, comment="what the provider is given in the place of an object of the store"),
    timestamp("url_expires_at"),
    Column("errors", JSONB, nullable=False, server_default=EMPTY_LIST, comment="[{at, attempt, type, message}]"),
    one_of("state", InputState),
    CheckConstraint("(due_at IS NOT NULL) = (state = 'waiting')", name="due_at"),
    CheckConstraint("(url IS NOT NULL) = (state = 'ready' AND host IS NULL)", name="url"),
    CheckConstraint("url IS NOT NULL OR url_expires_at IS NULL", name="url_expires_at"),
    CheckConstraint("state <> 'ready' OR sha256 IS NOT NULL", name="sha256"),
    UniqueConstraint("batch_id", "digest"),
    # input_claims.py: what of a batch is to be looked at, and up to where its edits may be submitted
    Index("inputs_waiting", "batch_id", "holds_from", "id", postgresql_where=text("state = 'waiting'")),
    # transitions/inputs.py: what fails edits, and what a retry looks at again
    Index("inputs_refused", "batch_id", "id", postgresql_where=text("state = 'refused'")),
    # input_files.py: which batches have a file
    Index("inputs_objects", "digest", postgresql_where=text("host IS NULL")),
    comment="one input of a batch that is looked at, or delivered to the provider, before its edits are submitted",
    postgresql_with=CHANGED_OFTEN,
)

input_files = Table(
    "input_files",
    metadata,
    Column("client", TEXT, primary_key=True),
    Column("sha256", TEXT, primary_key=True, comment="of the bytes, lower-case hex"),
    Column("name", TEXT, nullable=False, comment="among the client's objects: storage://NAME"),
    Column("storage_key", TEXT, nullable=False),
    Column("content_type", TEXT, nullable=False),
    Column("bytes", BIGINT, nullable=False),
    Column("width", INTEGER, nullable=False),
    Column("height", INTEGER, nullable=False),
    timestamp("created_at", nullable=False, server_default=NOW),
    timestamp("stored_at", comment="NULL: it is being written, or whoever wrote it was killed"),
    timestamp("expires_at", comment="NULL: kept for ever"),
    Column("kept_for", DOUBLE_PRECISION, comment="seconds from when it was last handed in, or named by a batch"),
    Index("input_files_name", "client", "name"),
    # input_files.py: what was kept long enough
    Index("input_files_expired", "expires_at", postgresql_where=text("expires_at IS NOT NULL")),
    comment="a file that a client handed in as an input",
)
