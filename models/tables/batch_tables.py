"""Batches, what was appended to them, and what is told of them."""

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, Table, text
from sqlalchemy.dialects.postgresql import BIGINT, INTEGER, JSONB, NUMERIC, SMALLINT, TEXT, UUID

from models.states import Criterion, InputCheck, NotificationEvent
from models.tables.schema import EMPTY_OBJECT, NOW, metadata, one_of, timestamp

IMAGES_TO_DELETE = "finished_at IS NOT NULL AND (images_deleted_at IS NULL OR images_deleted_at < finished_at)"
REQUESTS_TO_DELETE = "finished_at IS NOT NULL AND (provider_deleted_at IS NULL OR provider_deleted_at < finished_at)"
"""SQL: a finished batch of which images are in storage, or requests at the provider."""

batches = Table(
    "batches",
    metadata,
    Column("id", UUID, primary_key=True, server_default=text("gen_random_uuid()")),
    Column("name", TEXT),
    Column("client", TEXT, nullable=False, server_default=text("'local'"), comment="who asked for it"),
    Column("endpoint", TEXT, nullable=False),
    Column("priority", SMALLINT, nullable=False, server_default=text("0"), comment="higher goes first"),
    Column("edit_count", INTEGER, nullable=False),
    Column("max_in_flight", INTEGER),
    Column("max_attempts", INTEGER),
    Column("max_cost", NUMERIC, comment="USD"),
    Column("tolerated_failures", INTEGER),
    Column("tolerated_failure_percent", NUMERIC),
    timestamp("deadline"),
    Column("notify_url", TEXT),
    Column("metadata", JSONB, nullable=False, server_default=EMPTY_OBJECT),
    Column("idempotency_key", TEXT),
    Column("content_sha256", TEXT, comment="of header and edits; the same key with other content is refused"),
    Column("traceparent", TEXT, comment="the trace of the request that brought it, as W3C writes it"),
    timestamp("created_at", nullable=False, server_default=NOW),
    timestamp("paused_at"),
    Column("pause_reason", TEXT, comment="where it was not a person who paused it"),
    Column(
        "check_inputs", TEXT, nullable=False, server_default=text("'none'"), comment="which inputs are looked at first"
    ),
    Column("inputs", INTEGER, nullable=False, server_default=text("0"), comment="its rows of `inputs`"),
    Column(
        "inputs_ready_to",
        INTEGER,
        comment="no edit from this position on is submitted yet, for its inputs; NULL: none waits for them",
    ),
    timestamp("cancelled_at"),
    timestamp("finished_at"),
    Column("broken_criterion", TEXT, comment="why the rest was not done: which of its own limits the batch broke"),
    timestamp(
        "audited_at", comment="when its counters were last held against its rows; before finished_at: it is to be"
    ),
    Column("audit_difference", TEXT, comment="what did not agree then; NULL: everything did"),
    timestamp("pruned_at", comment="from then on its edits are not to be had: their rows go, or are gone"),
    timestamp("prune_ended_at", comment="when the last of these rows was gone"),
    Column("output_expires_after", INTEGER, comment="seconds from its end for which its images are stored"),
    Column("images_deleted_to", INTEGER, comment="of the edits up to this position every stored image is gone"),
    timestamp("images_deleted_at", comment="when the last was gone; before finished_at: there are newer ones"),
    Column("images_deleted", INTEGER, nullable=False, server_default=text("0")),
    Column("bytes_deleted", BIGINT, nullable=False, server_default=text("0")),
    Column("provider_deleted_to", INTEGER, comment="of the edits up to this position the provider keeps no request"),
    timestamp("provider_deleted_at", comment="when the last was gone; before finished_at: there are newer ones"),
    one_of("broken_criterion", Criterion),
    CheckConstraint("output_expires_after > 0", name="output_expires_after"),
    one_of("check_inputs", InputCheck),
    CheckConstraint("audit_difference IS NULL OR audited_at IS NOT NULL", name="audit_difference"),
    # whoever opens a finished batch again, and comes too late, is refused whole
    CheckConstraint("pruned_at IS NULL OR finished_at IS NOT NULL", name="pruned_at"),
    CheckConstraint("prune_ended_at IS NULL OR pruned_at IS NOT NULL", name="prune_ended_at"),
    CheckConstraint("edit_count > 0", name="edit_count"),
    CheckConstraint("traceparent ~ '^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$'", name="traceparent"),
    CheckConstraint("max_in_flight > 0", name="max_in_flight"),
    CheckConstraint("max_attempts > 0", name="max_attempts"),
    CheckConstraint("tolerated_failures >= 0", name="tolerated_failures"),
    CheckConstraint("tolerated_failure_percent BETWEEN 0 AND 100", name="tolerated_failure_percent"),
    # claims.py: which batches may still submit, the more urgent first
    Index(
        "batches_active",
        text("priority DESC"),
        "created_at",
        "id",
        postgresql_where=text("finished_at IS NULL"),
    ),
    Index(
        "batches_idempotency",
        "client",
        "idempotency_key",
        unique=True,
        postgresql_where=text("idempotency_key IS NOT NULL"),
    ),
    # `darkroom batches`: newest first
    Index("batches_created", text("created_at DESC")),
    # audits.py: what is to be audited, the first to finish first
    Index(
        "batches_unaudited",
        "finished_at",
        postgresql_where=text("finished_at IS NOT NULL AND (audited_at IS NULL OR audited_at < finished_at)"),
    ),
    # monitoring.py: what did not agree
    Index("batches_differing", "id", postgresql_where=text("audit_difference IS NOT NULL")),
    # retention.py: what has been kept the longest, and whose rows are going
    Index("batches_kept", "finished_at", postgresql_where=text("finished_at IS NOT NULL AND pruned_at IS NULL")),
    # stored_images.py: whose images, and whose requests at the provider, are to be deleted
    Index("batches_images", "finished_at", postgresql_where=text(IMAGES_TO_DELETE)),
    Index(
        "batches_images_expire",
        "finished_at",
        postgresql_where=text(f"{IMAGES_TO_DELETE} AND output_expires_after IS NOT NULL"),
    ),
    Index("batches_provider", "finished_at", postgresql_where=text(REQUESTS_TO_DELETE)),
    Index("batches_pruning", "pruned_at", postgresql_where=text("pruned_at IS NOT NULL AND prune_ended_at IS NULL")),
)

additions = Table(
    "additions",
    metadata,
    Column("batch_id", UUID, ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True),
    Column("idempotency_key", TEXT, primary_key=True),
    Column("content_sha256", TEXT, nullable=False, comment="of its edits; the same key with others is refused"),
    Column("edit_count", INTEGER, nullable=False),
    Column("skipped", INTEGER, nullable=False),
    timestamp("created_at", nullable=False, server_default=NOW),
    comment="edits appended to a batch under an idempotency key",
)

notifications = Table(
    "notifications",
    metadata,
    Column("id", UUID, primary_key=True, server_default=text("gen_random_uuid()")),
    Column("batch_id", UUID, ForeignKey("batches.id", ondelete="CASCADE"), nullable=False),
    Column("event", TEXT, nullable=False),
    Column("url", TEXT, nullable=False),
    Column("payload", JSONB, nullable=False),
    timestamp("due_at", server_default=NOW),
    Column("attempt", INTEGER, nullable=False, server_default=text("0")),
    timestamp("created_at", nullable=False, server_default=NOW),
    timestamp("attempted_at"),
    timestamp("delivered_at"),
    Column("last_status", INTEGER, comment="the receiver's last HTTP status"),
    Column("last_error", TEXT),
    one_of("event", NotificationEvent),
    CheckConstraint("delivered_at IS NULL OR due_at IS NULL", name="delivered_at"),
    Index("notifications_batch", "batch_id"),
    Index("notifications_due", "due_at", postgresql_where=text("due_at IS NOT NULL")),
)
