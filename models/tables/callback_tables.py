"""What came in at the receiver."""

from sqlalchemy import CheckConstraint, Column, ForeignKey, Identity, Index, Table
from sqlalchemy.dialects.postgresql import BIGINT, BYTEA, JSONB, TEXT, UUID

from models.states import Effect
from models.tables.schema import NOW, ONLY_INSERTED, metadata, one_of, timestamp

callbacks = Table(
    "callbacks",
    metadata,
    Column("id", BIGINT, Identity(always=True), primary_key=True),
    Column("effect", TEXT, nullable=False),
    Column("submission_id", UUID, ForeignKey("submissions.id", ondelete="CASCADE")),
    Column("token", TEXT, nullable=False, comment="as it stood in the path"),
    Column("request_id", TEXT, comment="from the signed header"),
    timestamp("received_at", nullable=False, server_default=NOW),
    timestamp("signed_at", nullable=False),
    Column("headers", JSONB, nullable=False),
    Column("body", BYTEA, nullable=False, comment="verbatim"),
    Column("sha256", TEXT, nullable=False, comment="of the body, lower-case hex"),
    one_of("effect", Effect),
    # people: which deliveries concerned this submission; which came lately
    Index("callbacks_submission", "submission_id"),
    Index("callbacks_received", "received_at"),
    postgresql_with=ONLY_INSERTED,
)

rejected_callbacks = Table(
    "rejected_callbacks",
    metadata,
    timestamp("hour", primary_key=True),
    Column("reason", TEXT, primary_key=True),
    Column("count", BIGINT, nullable=False),
    CheckConstraint("count > 0", name="count"),
)
