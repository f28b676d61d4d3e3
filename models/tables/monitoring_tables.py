"""The tables beneath the views of how things go: counters by time, signs of life, and what no other row tells."""

from sqlalchemy import Column, ForeignKey, Identity, Index, Table, text
from sqlalchemy.dialects.postgresql import BIGINT, DATE, DOUBLE_PRECISION, INTEGER, NUMERIC, TEXT, TIMESTAMP, UUID

from models.day_counters import AMOUNTS, STORED
from models.moments import BUCKETS, MINUTE_COUNTERS
from models.states import EditState
from models.tables.schema import FEW_ROWS, metadata, one_of, timestamp

COUNTED = {"fillfactor": 50, **FEW_ROWS}
NONE = text("0")

day_counters = Table(
    "day_counters",
    metadata,
    Column("id", BIGINT, Identity(always=True), primary_key=True),
    Column("day", DATE, nullable=False, comment="UTC"),
    Column("client", TEXT, nullable=False),
    *(Column(name, NUMERIC, nullable=False, server_default=NONE) for name in AMOUNTS),
    *(Column(name, BIGINT, nullable=False, server_default=NONE) for name in STORED),
    Index("day_counters_day", "day", "client", "id"),
    comment="money and storage by day and client; several rows each, to be summed; kept by triggers",
    postgresql_with=COUNTED,
)

minute_counters = Table(
    "minute_counters",
    metadata,
    Column("id", BIGINT, Identity(always=True), primary_key=True),
    Column("minute", TIMESTAMP(timezone=True), nullable=False),
    *(Column(name, BIGINT, nullable=False, server_default=NONE) for name in MINUTE_COUNTERS),
    Index("minute_counters_minute", "minute", "id"),
    comment="what happened in a minute; several rows each, to be summed; kept by triggers",
    postgresql_with=COUNTED,
)

latency_counters = Table(
    "latency_counters",
    metadata,
    Column("id", BIGINT, Identity(always=True), primary_key=True),
    Column("hour", TIMESTAMP(timezone=True), nullable=False),
    Column("step", TEXT, nullable=False),
    Column("events", BIGINT, nullable=False),
    Column("seconds", DOUBLE_PRECISION, nullable=False, comment="sum over the events"),
    *(
        Column(name, BIGINT, nullable=False, comment=f"events that took {bound} s at most")
        for name, bound in BUCKETS.items()
    ),
    Index("latency_counters_hour", "hour", "step", "id"),
    comment="how long things took that ended in an hour; several rows each, to be summed; kept by triggers",
    postgresql_with=COUNTED,
)

past_minutes = Table(
    "past_minutes",
    metadata,
    Column("minute", TIMESTAMP(timezone=True), primary_key=True),
    *(Column(name, BIGINT, nullable=False) for name in MINUTE_COUNTERS),
    comment="minutes that are over (models/past_counters.py)",
)

past_latencies = Table(
    "past_latencies",
    metadata,
    Column("hour", TIMESTAMP(timezone=True), primary_key=True),
    Column("step", TEXT, primary_key=True),
    Column("events", BIGINT, nullable=False),
    Column("seconds", DOUBLE_PRECISION, nullable=False),
    *(Column(name, BIGINT, nullable=False) for name in BUCKETS),
    comment="the same of hours and steps",
)

past_days = Table(
    "past_days",
    metadata,
    Column("day", DATE, primary_key=True),
    Column("client", TEXT, primary_key=True),
    *(Column(name, NUMERIC, nullable=False) for name in AMOUNTS),
    *(Column(name, BIGINT, nullable=False) for name in STORED),
    comment="the same of days and clients",
)

past_callbacks = Table(
    "past_callbacks",
    metadata,
    Column("hour", TIMESTAMP(timezone=True), primary_key=True),
    Column("effect", TEXT, primary_key=True),
    Column("callbacks", BIGINT, nullable=False),
    comment="the same of hours and what callbacks brought about",
)

heartbeats = Table(
    "heartbeats",
    metadata,
    Column("name", TEXT, primary_key=True, comment="a lane, or `tick`"),
    timestamp("at", nullable=False, comment="the last turn or look"),
    timestamp("worked_at", comment="the last in which something was done"),
    Column("places", INTEGER, comment="of the submit lane: edits that may be in flight"),
    comment="when each part last said that it is alive; written every few seconds at the most",
    postgresql_with=FEW_ROWS,
)

edit_events = Table(
    "edit_events",
    metadata,
    Column("id", BIGINT, Identity(always=True), primary_key=True),
    Column("edit_id", BIGINT, ForeignKey("edits.id", ondelete="CASCADE"), nullable=False),
    timestamp("at", nullable=False, server_default=text("clock_timestamp()")),
    Column("was", TEXT, nullable=False),
    Column("state", TEXT, nullable=False),
    timestamp("final_since", comment="of a final state that it leaves"),
    Column("attempt", INTEGER, nullable=False),
    Column("program", TEXT, nullable=False, comment="the one that moved it, by its name at the database"),
    one_of("was", EditState),
    one_of("state", EditState),
    Index("edit_events_edit", "edit_id", "id"),
    comment="arrows back, and all after the first of them: what the other rows of an edit do not tell",
)

batch_events = Table(
    "batch_events",
    metadata,
    Column("id", BIGINT, Identity(always=True), primary_key=True),
    Column("batch_id", UUID, ForeignKey("batches.id", ondelete="CASCADE"), nullable=False),
    timestamp("at", nullable=False, server_default=text("clock_timestamp()")),
    Column("what", TEXT, nullable=False),
    Column("program", TEXT, nullable=False, comment="the one that changed it, by its name at the database"),
    Index("batch_events_batch", "batch_id", "id"),
    comment="paused, resumed, cancelled, finished, reopened",
)
