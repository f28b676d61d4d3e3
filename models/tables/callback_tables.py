"""What came in at the receiver."""

from sqlalchemy import CheckConstraint, Column, ForeignKey, Identity, Index, Table, text
from sqlalchemy.dialects.postgresql import BIGINT, BYTEA, JSONB, TEXT, UUID

from models.states import Effect
from models.tables.schema import INSERTED_AND_PRUNED, NOW, metadata, one_of, timestamp

callbacks = Table(
    "callbacks",
    metadata,
    Column("id", BIGINT, Identity(always=True), primary_key=True),
    Column("effect", TEXT, nullable=False),
    Column("submission_id", UUID, ForeignKey("submissions.id", ondelete="CASCADE")),
    Column("token", TEXT, comment="as it stood in the path; NULL: the submission's id"),
    Column("request_id", TEXT, comment="from the signed header"),
    timestamp("received_at", nullable=False, server_default=NOW),
    timestamp("signed_at", nullable=False),
    Column("delivery", BYTEA, comment="body and signature headers, packed (models/deliveries.py); NULL once pruned"),
    Column("headers", JSONB, comment="of releases that did not pack them"),
    Column("body", BYTEA, comment="the same, verbatim"),
    Column("sha256", TEXT, nullable=False, comment="of the body, lower-case hex"),
    one_of("effect", Effect),
    # people: which deliveries concerned this submission; which came lately (rows lie in the order in which they came)
    Index("callbacks_submission", "submission_id", postgresql_where=text("submission_id IS NOT NULL")),
    Index("callbacks_received", "received_at", postgresql_using="brin"),
    # retention.py: what belongs to nobody
    Index("callbacks_orphans", "received_at", postgresql_where=text("submission_id IS NULL")),
    postgresql_with=INSERTED_AND_PRUNED,
)

rejected_callbacks = Table(
    "rejected_callbacks",
    metadata,
    timestamp("hour", primary_key=True),
    Column("reason", TEXT, primary_key=True),
    Column("count", BIGINT, nullable=False),
    CheckConstraint("count > 0", name="count"),
)
