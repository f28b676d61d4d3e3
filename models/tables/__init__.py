"""The tables: one row is one thing that a person may ask about.

Rules that hold throughout: all times are `timestamptz` from the database clock; `due_at` is the moment at
which a row next needs attention and is NULL exactly when nothing more will happen by itself; every CHECK
says "exactly when", in both directions. Indexes carry the query they serve.
"""

from models.tables.batch_tables import additions, batches, notifications
from models.tables.callback_tables import callbacks, rejected_callbacks
from models.tables.counter_tables import batch_counters, callback_counters, error_counters, spending
from models.tables.edit_tables import edits, submissions
from models.tables.image_tables import images, uploads
from models.tables.input_tables import input_files, inputs
from models.tables.monitoring_tables import (
    batch_events,
    day_counters,
    edit_events,
    heartbeats,
    latency_counters,
    minute_counters,
    past_callbacks,
    past_days,
    past_latencies,
    past_minutes,
)
from models.tables.provider_tables import lane_pauses, provider_status
from models.tables.retention_tables import pruned_callbacks, pruned_days, retention
from models.tables.schema import metadata

__all__ = [
    "additions",
    "batch_counters",
    "batch_events",
    "batches",
    "callback_counters",
    "callbacks",
    "day_counters",
    "edit_events",
    "edits",
    "error_counters",
    "heartbeats",
    "images",
    "input_files",
    "inputs",
    "lane_pauses",
    "latency_counters",
    "metadata",
    "minute_counters",
    "notifications",
    "past_callbacks",
    "past_days",
    "past_latencies",
    "past_minutes",
    "provider_status",
    "pruned_callbacks",
    "pruned_days",
    "rejected_callbacks",
    "retention",
    "spending",
    "submissions",
    "uploads",
]
