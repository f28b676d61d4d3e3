"""What is known of the provider, and what stands still."""

from sqlalchemy import CheckConstraint, Column, Table, text
from sqlalchemy.dialects.postgresql import INTEGER, NUMERIC, TEXT

from models.tables.schema import NOW, metadata, timestamp

provider_status = Table(
    "provider_status",
    metadata,
    Column("account", TEXT, primary_key=True, server_default=text("'fal'")),
    Column("user_id", TEXT, comment="the provider's name for us, learned from the first matched delivery"),
    timestamp("paused_at"),
    Column("reason", TEXT),
    Column("message", TEXT),
    timestamp("retry_at", comment="when one edit probes a paused account"),
    Column("probes", INTEGER, nullable=False, server_default=text("0")),
    Column("price_per_image", NUMERIC, comment="USD, as the provider says"),
    timestamp("price_read_at"),
    Column(
        "unknown_submits",
        INTEGER,
        nullable=False,
        server_default=text("0"),
        comment="POSTs in a row without a usable reply, and without a sign that the provider accepted one of them",
    ),
    timestamp("unknown_since", comment="when the first of these was POSTed"),
    CheckConstraint("(unknown_submits = 0) = (unknown_since IS NULL)", name="unknown_since"),
    CheckConstraint("(paused_at IS NULL) = (reason IS NULL)", name="reason"),
    CheckConstraint("(paused_at IS NULL) = (retry_at IS NULL)", name="retry_at"),
)

lane_pauses = Table(
    "lane_pauses",
    metadata,
    Column("lane", TEXT, primary_key=True),
    Column("subject", TEXT, primary_key=True, comment="what of the lane is paused: `storage`, an endpoint"),
    timestamp("paused_at", nullable=False, server_default=NOW),
    Column("reason", TEXT, nullable=False),
    Column("message", TEXT, nullable=False),
    timestamp("retry_at", nullable=False, comment="when one item probes whether the trouble is over"),
    Column("probes", INTEGER, nullable=False, server_default=text("0")),
    comment="what stands still for a trouble that is ours or the provider's; a row only while it does",
)
