"""What the triggers of `models/counters.py` count."""

from sqlalchemy import Column, ForeignKey, Identity, Index, Table, text
from sqlalchemy.dialects.postgresql import BIGINT, BOOLEAN, DOUBLE_PRECISION, INTEGER, NUMERIC, TEXT, UUID

from models.counters import BATCH_COUNTERS, MOMENTS
from models.day_counters import AMOUNTS
from models.tables.schema import FEW_ROWS, metadata, timestamp

COUNTER_TYPES = {**dict.fromkeys(("cost", "committed", *AMOUNTS), NUMERIC), "bytes_stored": BIGINT}

spending = Table(
    "spending",
    metadata,
    Column("batch_id", UUID, ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True),
    Column("committed", NUMERIC, nullable=False, server_default=text("0"), comment="USD, over its submissions"),
    comment="of batches with a max_cost; kept by the triggers of models/counters.py",
    postgresql_with=FEW_ROWS,
)

batch_counters = Table(
    "batch_counters",
    metadata,
    Column("id", BIGINT, Identity(always=True), primary_key=True),
    Column("batch_id", UUID, nullable=False),
    *(
        Column(name, COUNTER_TYPES.get(name, INTEGER), nullable=False, server_default=text("0"))
        for name in BATCH_COUNTERS
    ),
    *(timestamp(name) for name in MOMENTS),
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
    # views: what there is to know of a finished batch
    Index("batch_counters_folded", "batch_id", unique=True, postgresql_where=text("folded")),
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
    timestamp("hour", nullable=False, server_default=text("'-infinity'")),
    Column("effect", TEXT, nullable=False),
    Column("callbacks", BIGINT, nullable=False),
    Index("callback_counters_hour", "hour", "effect", "id"),
    comment="the same by what a callback brought about",
    postgresql_with={"fillfactor": 50, **FEW_ROWS},
)
