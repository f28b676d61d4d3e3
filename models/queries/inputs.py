"""Inputs of batches as they come in, and how far the look at them is."""

from models.statements import RowSet, Statement

NEW_INPUTS = RowSet(
    "m",
    digest="bytea",
    position="integer",
    number="integer",
    holds_from="integer",
    sampled="boolean",
    host="text",
)
INSERT_INPUTS = Statement(
    """
    INSERT INTO inputs (batch_id, digest, position, number, holds_from, sampled, host)
    SELECT %(batch)s::uuid, m.digest, m.position, m.number, m.holds_from, m.sampled, m.host FROM {new}
    ON CONFLICT (batch_id, digest) DO NOTHING
    """,
    new=NEW_INPUTS,
)
