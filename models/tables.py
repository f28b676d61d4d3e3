"""The tables: one row is one thing that a person may ask about.

Rules that hold throughout: all times are `timestamptz` from the database clock; `due_at` is the moment at
which a row next needs attention and is NULL exactly when nothing more will happen by itself; every CHECK
says "exactly when", in both directions. Indexes carry the query they serve.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Column,
    Computed,
    ForeignKey,
    Identity,
    Index,
    MetaData,
    Table,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import (
    BIGINT,
    BOOLEAN,
    BYTEA,
    DOUBLE_PRECISION,
    INTEGER,
    JSONB,
    NUMERIC,
    SMALLINT,
    TEXT,
    TIMESTAMP,
    UUID,
)

from models.counters import BATCH_COUNTERS, MOMENTS
from models.day_counters import AMOUNTS
from models.states import FINAL, Criterion, EditState, Effect, ImageState, LearnedBy, NotificationEvent, Outcome

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)

NOW = text("now()")
EMPTY_LIST = text("'[]'::jsonb")
EMPTY_OBJECT = text("'{}'::jsonb")


# A submission commits its worst case until it is known to have cost something else; what became of one that
# nobody heard of, or whose result was gone, or which was refused after a run, is never known.
COMMITTED = """CASE
    WHEN outcome IS NULL OR outcome = 'unknown' OR error_type = 'result_expired' OR may_be_charged THEN reserved
    ELSE coalesce(cost, 0) END"""


def _time(name: str, **options: Any) -> Column[datetime]:
    return Column(name, TIMESTAMP(timezone=True), **options)


def _one_of(column: str, words: Iterable[str]) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({_listed(words)})", name=column)


def _listed(words: Iterable[str]) -> str:
    return ", ".join(f"'{word}'" for word in words)


# What autovacuum waits for (docs/deploy.md). Its own default is a fifth of a table: of five million rows, a million
# dead ones, which every claim steps over.
CHANGED_OFTEN = {
    "autovacuum_vacuum_scale_factor": "0.01",
    "autovacuum_vacuum_threshold": "1000",
    "autovacuum_analyze_scale_factor": "0.02",
}
ONLY_INSERTED = {"autovacuum_vacuum_insert_scale_factor": "0.02", "autovacuum_analyze_scale_factor": "0.02"}
FEW_ROWS = {"autovacuum_vacuum_scale_factor": "0", "autovacuum_vacuum_threshold": "500"}

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
    _time("deadline"),
    Column("notify_url", TEXT),
    Column("metadata", JSONB, nullable=False, server_default=EMPTY_OBJECT),
    Column("idempotency_key", TEXT),
    Column("content_sha256", TEXT, comment="of header and edits; the same key with other content is refused"),
    _time("created_at", nullable=False, server_default=NOW),
    _time("paused_at"),
    _time("cancelled_at"),
    _time("finished_at"),
    Column("broken_criterion", TEXT, comment="why the rest was not done: which of its own limits the batch broke"),
    _one_of("broken_criterion", Criterion),
    CheckConstraint("edit_count > 0", name="edit_count"),
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
)

edits = Table(
    "edits",
    metadata,
    Column("id", BIGINT, Identity(always=True), primary_key=True),
    Column("state", TEXT, nullable=False, server_default=text("'pending'")),
    Column("batch_id", UUID, ForeignKey("batches.id", ondelete="CASCADE"), nullable=False),
    Column("position", INTEGER, nullable=False, comment="0-based place in the manifest"),
    Column("custom_id", TEXT),
    Column("attempt", INTEGER, nullable=False, server_default=text("0"), comment="POSTs that may have been paid"),
    Column(
        "attempts_before",
        INTEGER,
        nullable=False,
        server_default=text("0"),
        comment="of these, before the last retry, or while the model was down",
    ),
    _time(
        "due_at",
        server_default=NOW,
        comment="pending: not submitted before; other states: overdue after; NULL exactly when final",
    ),
    Column("arguments", JSONB, nullable=False, comment="the model's input as the caller gave it"),
    Column("seed", BIGINT, nullable=False, comment="the caller's, else ours; sent with every submission"),
    Column("errors", JSONB, nullable=False, server_default=EMPTY_LIST, comment="[{at, attempt, type, message}]"),
    _time("created_at", nullable=False, server_default=NOW),
    _time("cancel_requested_at", comment="the wish; an edit in flight ends as the provider decides"),
    _time("finished_at"),
    _one_of("state", EditState),
    CheckConstraint(f"(due_at IS NULL) = (state IN ({_listed(sorted(FINAL))}))", name="due_at"),
    CheckConstraint("(finished_at IS NULL) = (due_at IS NOT NULL)", name="finished_at"),
    CheckConstraint("attempt >= 0", name="attempt"),
    CheckConstraint("attempts_before BETWEEN 0 AND attempt", name="attempts_before"),
    CheckConstraint("jsonb_typeof(errors) = 'array'", name="errors"),
    UniqueConstraint("batch_id", "position"),
    # claims.py: pending edits of one batch in their order; edits in flight; what keeps a batch unfinished
    Index("edits_open", "state", "batch_id", "position", postgresql_where=text("due_at IS NOT NULL")),
    # transitions: what a retry takes, and how many failures a batch has
    Index("edits_failed", "batch_id", "id", postgresql_where=text("state = 'failed'")),
    Index(
        "edits_custom_id",
        "batch_id",
        "custom_id",
        unique=True,
        postgresql_where=text("custom_id IS NOT NULL"),
    ),
    postgresql_with=CHANGED_OFTEN,
)

submissions = Table(
    "submissions",
    metadata,
    Column("id", UUID, primary_key=True, comment="random; the token in the webhook URL"),
    Column("edit_id", BIGINT, ForeignKey("edits.id", ondelete="CASCADE"), nullable=False),
    Column("attempt", INTEGER, nullable=False),
    Column("request_id", TEXT, unique=True),
    Column("outcome", TEXT, comment="NULL while in flight"),
    _time("due_at", comment="next poll, or the unknown deadline while no request id is known"),
    Column("polls", INTEGER, nullable=False, server_default=text("0")),
    _time("posted_at", nullable=False, server_default=NOW),
    _time("accepted_at"),
    _time("completed_at"),
    _time("result_lost_after", comment="the provider may forget the result after this"),
    Column("learned_by", TEXT),
    Column("error_type", TEXT),
    Column("inference_time", DOUBLE_PRECISION, comment="seconds, as the provider reports"),
    Column("images_returned", INTEGER),
    Column("price", NUMERIC, nullable=False, server_default=text("0.03"), comment="USD per image, when POSTed"),
    Column("reserved", NUMERIC, nullable=False, server_default=text("0"), comment="USD, if it brings all it may"),
    Column("billable_units", NUMERIC, comment="as the provider reports on a result; a callback does not tell"),
    Column("cost", NUMERIC, comment="USD"),
    Column(
        "may_be_charged",
        BOOLEAN,
        nullable=False,
        server_default=text("false"),
        comment="refused after a run, and the provider did not say whether it charges for it",
    ),
    Column("committed", NUMERIC, Computed(COMMITTED, persisted=True), comment="USD that it costs, or may have cost"),
    _time("cancel_sent_at", comment="the provider took or refused the wish to cancel"),
    Column(
        "doubled",
        BOOLEAN,
        nullable=False,
        server_default=text("false"),
        comment="succeeded, but the images of another submission of its edit are the ones that are kept",
    ),
    Column(
        "excused",
        BOOLEAN,
        nullable=False,
        server_default=text("false"),
        comment="it failed because the model was down, and used up no attempt of its edit",
    ),
    Column("seed", BIGINT, comment="the one that the provider says it used"),
    Column(
        "set_number",
        INTEGER,
        comment="1: its images were the first to be taken for the edit; 2: in the place of these; NULL: never taken",
    ),
    Column(
        "denials",
        INTEGER,
        nullable=False,
        server_default=text("0"),
        comment="in a row: 404s on the result; while no request id is known, lookups that could prove nothing",
    ),
    _time("denied_since", comment="the first of these"),
    _time("searched_to", comment="the provider's listing is read from the end of its time down to here"),
    _time("searched_from", comment="the latest end in that listing when reading it began"),
    Column("note", TEXT, comment="why its outcome is still unknown, or its result still unread"),
    _one_of("outcome", Outcome),
    _one_of("learned_by", LearnedBy),
    CheckConstraint("(due_at IS NULL) = (outcome IS NOT NULL)", name="due_at"),
    CheckConstraint("(outcome IS NULL OR outcome = 'unknown') = (learned_by IS NULL)", name="learned_by_whom"),
    CheckConstraint("(accepted_at IS NULL) = (request_id IS NULL)", name="accepted_at"),
    CheckConstraint("outcome IS DISTINCT FROM 'succeeded' OR images_returned > 0", name="images_returned"),
    CheckConstraint("NOT excused OR outcome IS NOT DISTINCT FROM 'failed'", name="excused"),
    CheckConstraint("NOT doubled OR outcome IS NOT DISTINCT FROM 'succeeded'", name="doubled"),
    CheckConstraint("NOT may_be_charged OR outcome IS NOT DISTINCT FROM 'failed'", name="may_be_charged"),
    CheckConstraint("(denied_since IS NULL) = (denials = 0)", name="denied_since"),
    CheckConstraint("set_number > 0", name="set_number"),
    # transitions: the submissions of an edit
    Index("submissions_edit", "edit_id"),
    # incidents.py: how the latest ended
    Index("submissions_completed", "completed_at", postgresql_where=text("completed_at IS NOT NULL")),
    # claims.py, guards.py: whether a submission of the edit is in flight
    Index("submissions_open", "edit_id", postgresql_where=text("outcome IS NULL")),
    # transitions: one set of images after the other, never two with one number
    Index("submissions_set", "edit_id", "set_number", unique=True, postgresql_where=text("set_number IS NOT NULL")),
    # claims.py: what the poll lane owes, the nearest first
    Index("submissions_due", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    postgresql_with=CHANGED_OFTEN,
)

spending = Table(
    "spending",
    metadata,
    Column("batch_id", UUID, ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True),
    Column("committed", NUMERIC, nullable=False, server_default=text("0"), comment="USD, over its submissions"),
    comment="of batches with a max_cost; kept by the triggers of models/counters.py",
    postgresql_with=FEW_ROWS,
)

COUNTER_TYPES = {**dict.fromkeys(("cost", "committed", *AMOUNTS), NUMERIC), "bytes_stored": BIGINT}

batch_counters = Table(
    "batch_counters",
    metadata,
    Column("id", BIGINT, Identity(always=True), primary_key=True),
    Column("batch_id", UUID, nullable=False),
    *(
        Column(name, COUNTER_TYPES.get(name, INTEGER), nullable=False, server_default=text("0"))
        for name in BATCH_COUNTERS
    ),
    *(_time(name) for name in MOMENTS),
    Column(
        "ended_lately",
        DOUBLE_PRECISION,
        nullable=False,
        server_default=text("0"),
        comment="edits stored or failed, those of long before ended_at faded",
    ),
    Column(
        "folded",
        BOOLEAN,
        nullable=False,
        server_default=text("false"),
        comment="the only row of a finished batch that adds up; false again with the next change",
    ),
    Index("batch_counters_batch", "batch_id", "id"),
    # accounting: the batches of which something changed
    Index("batch_counters_unfolded", "batch_id", postgresql_where=text("NOT folded")),
    comment="several rows a batch, to be summed; kept by the triggers of models/counters.py",
    postgresql_with={"fillfactor": 50, **FEW_ROWS},
)

error_counters = Table(
    "error_counters",
    metadata,
    Column("id", BIGINT, Identity(always=True), primary_key=True),
    Column("batch_id", UUID, nullable=False),
    Column("type", TEXT, nullable=False),
    Column("edits", INTEGER, nullable=False, comment="not stored, whose latest error is of this type"),
    Column("failed", INTEGER, nullable=False, comment="of these"),
    Column("example", TEXT, comment="a message"),
    Index("error_counters_batch", "batch_id", "type", "id"),
    comment="the same by the type of an edit's latest error",
    postgresql_with={"fillfactor": 50, **FEW_ROWS},
)

callback_counters = Table(
    "callback_counters",
    metadata,
    Column("id", BIGINT, Identity(always=True), primary_key=True),
    _time("hour", nullable=False, server_default=text("'-infinity'")),
    Column("effect", TEXT, nullable=False),
    Column("callbacks", BIGINT, nullable=False),
    Index("callback_counters_hour", "hour", "effect", "id"),
    comment="the same by what a callback brought about",
    postgresql_with={"fillfactor": 50, **FEW_ROWS},
)

additions = Table(
    "additions",
    metadata,
    Column("batch_id", UUID, ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True),
    Column("idempotency_key", TEXT, primary_key=True),
    Column("content_sha256", TEXT, nullable=False, comment="of its edits; the same key with others is refused"),
    Column("edit_count", INTEGER, nullable=False),
    Column("skipped", INTEGER, nullable=False),
    _time("created_at", nullable=False, server_default=NOW),
    comment="edits appended to a batch under an idempotency key",
)

callbacks = Table(
    "callbacks",
    metadata,
    Column("id", BIGINT, Identity(always=True), primary_key=True),
    Column("effect", TEXT, nullable=False),
    Column("submission_id", UUID, ForeignKey("submissions.id", ondelete="CASCADE")),
    Column("token", TEXT, nullable=False, comment="as it stood in the path"),
    Column("request_id", TEXT, comment="from the signed header"),
    _time("received_at", nullable=False, server_default=NOW),
    _time("signed_at", nullable=False),
    Column("headers", JSONB, nullable=False),
    Column("body", BYTEA, nullable=False, comment="verbatim"),
    Column("sha256", TEXT, nullable=False, comment="of the body, lower-case hex"),
    _one_of("effect", Effect),
    # people: which deliveries concerned this submission; which came lately
    Index("callbacks_submission", "submission_id"),
    Index("callbacks_received", "received_at"),
    postgresql_with=ONLY_INSERTED,
)

rejected_callbacks = Table(
    "rejected_callbacks",
    metadata,
    _time("hour", primary_key=True),
    Column("reason", TEXT, primary_key=True),
    Column("count", BIGINT, nullable=False),
    CheckConstraint("count > 0", name="count"),
)

images = Table(
    "images",
    metadata,
    Column("id", BIGINT, Identity(always=True), primary_key=True),
    Column("state", TEXT, nullable=False, server_default=text("'waiting'")),
    Column("submission_id", UUID, ForeignKey("submissions.id", ondelete="CASCADE"), nullable=False),
    Column("index", INTEGER, nullable=False, comment="0-based place in the provider's list"),
    _time("due_at", server_default=NOW),
    Column("attempt", INTEGER, nullable=False, server_default=text("0")),
    Column("url", TEXT, nullable=False),
    Column("content_type", TEXT),
    Column("file_name", TEXT),
    Column("file_size", BIGINT),
    Column("width", INTEGER),
    Column("height", INTEGER),
    Column("file_data", TEXT, comment="as declared"),
    _time("expires_at", comment="the provider may delete the file after this, where it said so"),
    _time("created_at", nullable=False, server_default=NOW),
    Column("storage_key", TEXT),
    Column("sha256", TEXT, comment="of the stored bytes, lower-case hex"),
    Column("stored_bytes", BIGINT),
    Column("stored_type", TEXT),
    Column("stored_width", INTEGER),
    Column("stored_height", INTEGER),
    _time("stored_at"),
    Column("errors", JSONB, nullable=False, server_default=EMPTY_LIST),
    _one_of("state", ImageState),
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
    _time("uploaded_at", nullable=False, server_default=NOW),
    _time("expires_at", comment="NULL: the provider named no end"),
)

notifications = Table(
    "notifications",
    metadata,
    Column("id", UUID, primary_key=True, server_default=text("gen_random_uuid()")),
    Column("batch_id", UUID, ForeignKey("batches.id", ondelete="CASCADE"), nullable=False),
    Column("event", TEXT, nullable=False),
    Column("url", TEXT, nullable=False),
    Column("payload", JSONB, nullable=False),
    _time("due_at", server_default=NOW),
    Column("attempt", INTEGER, nullable=False, server_default=text("0")),
    _time("created_at", nullable=False, server_default=NOW),
    _time("attempted_at"),
    _time("delivered_at"),
    Column("last_status", INTEGER, comment="the receiver's last HTTP status"),
    Column("last_error", TEXT),
    _one_of("event", NotificationEvent),
    CheckConstraint("delivered_at IS NULL OR due_at IS NULL", name="delivered_at"),
    Index("notifications_batch", "batch_id"),
    Index("notifications_due", "due_at", postgresql_where=text("due_at IS NOT NULL")),
)

provider_status = Table(
    "provider_status",
    metadata,
    Column("account", TEXT, primary_key=True, server_default=text("'fal'")),
    Column("user_id", TEXT, comment="the provider's name for us, learned from the first matched delivery"),
    _time("paused_at"),
    Column("reason", TEXT),
    Column("message", TEXT),
    _time("retry_at", comment="when one edit probes a paused account"),
    Column("probes", INTEGER, nullable=False, server_default=text("0")),
    Column("price_per_image", NUMERIC, comment="USD, as the provider says"),
    _time("price_read_at"),
    Column(
        "unknown_submits",
        INTEGER,
        nullable=False,
        server_default=text("0"),
        comment="POSTs in a row without a usable reply, and without a sign that the provider accepted one of them",
    ),
    _time("unknown_since", comment="when the first of these was POSTed"),
    CheckConstraint("(unknown_submits = 0) = (unknown_since IS NULL)", name="unknown_since"),
    CheckConstraint("(paused_at IS NULL) = (reason IS NULL)", name="reason"),
    CheckConstraint("(paused_at IS NULL) = (retry_at IS NULL)", name="retry_at"),
)

lane_pauses = Table(
    "lane_pauses",
    metadata,
    Column("lane", TEXT, primary_key=True),
    Column("subject", TEXT, primary_key=True, comment="what of the lane is paused: `storage`, an endpoint"),
    _time("paused_at", nullable=False, server_default=NOW),
    Column("reason", TEXT, nullable=False),
    Column("message", TEXT, nullable=False),
    _time("retry_at", nullable=False, comment="when one item probes whether the trouble is over"),
    Column("probes", INTEGER, nullable=False, server_default=text("0")),
    comment="what stands still for a trouble that is ours or the provider's; a row only while it does",
)
