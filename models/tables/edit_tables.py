"""Edits and their submissions to the provider."""

from sqlalchemy import CheckConstraint, Column, Computed, ForeignKey, Identity, Index, Table, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import BIGINT, BOOLEAN, DOUBLE_PRECISION, INTEGER, JSONB, NUMERIC, TEXT, UUID

from models.states import FINAL, EditState, LearnedBy, Outcome
from models.tables.schema import CHANGED_OFTEN, EMPTY_LIST, NOW, listed, metadata, one_of, timestamp

# A submission commits its worst case until it is known to have cost something else; what became of one that
# nobody heard of, or whose result was gone, or which was refused after a run, is never known.
COMMITTED = """CASE
    WHEN outcome IS NULL OR outcome = 'unknown' OR error_type = 'result_expired' OR may_be_charged THEN reserved
    ELSE coalesce(cost, 0) END"""

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
    timestamp(
        "due_at",
        server_default=NOW,
        comment="pending: not submitted before; other states: overdue after; NULL exactly when final",
    ),
    Column("arguments", JSONB, nullable=False, comment="the model's input as the caller gave it"),
    Column("seed", BIGINT, nullable=False, comment="the caller's, else ours; sent with every submission"),
    Column("errors", JSONB, nullable=False, server_default=EMPTY_LIST, comment="[{at, attempt, type, message}]"),
    timestamp("created_at", nullable=False, server_default=NOW),
    timestamp("cancel_requested_at", comment="the wish; an edit in flight ends as the provider decides"),
    timestamp("finished_at"),
    one_of("state", EditState),
    CheckConstraint(f"(due_at IS NULL) = (state IN ({listed(sorted(FINAL))}))", name="due_at"),
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
    Column("id", UUID, primary_key=True, comment="its time and 74 random bits; the token in the webhook URL"),
    Column("edit_id", BIGINT, ForeignKey("edits.id", ondelete="CASCADE"), nullable=False),
    Column("attempt", INTEGER, nullable=False),
    Column("request_id", TEXT, unique=True),
    Column("outcome", TEXT, comment="NULL while in flight"),
    timestamp("due_at", comment="next poll, or the unknown deadline while no request id is known"),
    Column("polls", INTEGER, nullable=False, server_default=text("0")),
    timestamp("posted_at", nullable=False, server_default=NOW),
    timestamp("accepted_at"),
    timestamp("completed_at"),
    timestamp("result_lost_after", comment="the provider may forget the result after this"),
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
    timestamp("cancel_sent_at", comment="the provider took or refused the wish to cancel"),
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
    Column("sent_urls", JSONB, comment="what was sent in the place of entries of image_urls: {place from 0: URL}"),
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
    timestamp("denied_since", comment="the first of these"),
    timestamp("searched_to", comment="the provider's listing is read from the end of its time down to here"),
    timestamp("searched_from", comment="the latest end in that listing when reading it began"),
    Column("note", TEXT, comment="why its outcome is still unknown, or its result still unread"),
    one_of("outcome", Outcome),
    one_of("learned_by", LearnedBy),
    CheckConstraint("(due_at IS NULL) = (outcome IS NOT NULL)", name="due_at"),
    CheckConstraint("(outcome IS NULL OR outcome = 'unknown') = (learned_by IS NULL)", name="learned_by_whom"),
    CheckConstraint("(accepted_at IS NULL) = (request_id IS NULL)", name="accepted_at"),
    CheckConstraint("outcome IS DISTINCT FROM 'succeeded' OR images_returned > 0", name="images_returned"),
    CheckConstraint("NOT excused OR outcome IS NOT DISTINCT FROM 'failed'", name="excused"),
    CheckConstraint("NOT doubled OR outcome IS NOT DISTINCT FROM 'succeeded'", name="doubled"),
    CheckConstraint("NOT may_be_charged OR outcome IS NOT DISTINCT FROM 'failed'", name="may_be_charged"),
    CheckConstraint("(denied_since IS NULL) = (denials = 0)", name="denied_since"),
    CheckConstraint("set_number > 0", name="set_number"),
    # transitions: the submissions of an edit; one set of images after the other, never two with one number
    Index("submissions_edit", "edit_id", "set_number", unique=True),
    # incidents.py: how the latest ended
    Index("submissions_completed", "completed_at", postgresql_where=text("completed_at IS NOT NULL")),
    # claims.py, guards.py: whether a submission of the edit is in flight
    Index("submissions_open", "edit_id", postgresql_where=text("outcome IS NULL")),
    # claims.py: what the poll lane owes, the nearest first
    Index("submissions_due", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    postgresql_with=CHANGED_OFTEN,
)
