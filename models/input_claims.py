"""What of the inputs is to be looked at next: in turn over the batches, and where it holds the most edits back first.

A claim leases rows as those of `claims.py` do. Inputs of a batch that is cancelled or over are left where they are.
"""

from collections.abc import Sequence, Set
from enum import Enum
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from models.predicates import batch_waits_for_inputs
from models.statements import Statement

LONG = 8192
"""Characters of an entry of `image_urls` from which on it is read by itself: it may hold a whole image."""


class Kind(Enum):
    """What an input is."""

    OBJECT = "object"
    """Of the store."""
    WEB = "web"
    """A web URL, or a data URI."""


ALL_KINDS = frozenset(Kind)


class DueInput(NamedTuple):
    """An input to be looked at."""

    id: int
    batch_id: UUID
    client: str
    host: str | None
    """Of a web URL, with its port; '' for a data URI, None for an object of the store."""
    attempt: int
    sha256: str | None
    """Of what lay there when it was looked at before."""
    text: str | None
    """The entry of `image_urls`; None where it is long (`read_long_input`)."""


CLAIM_INPUTS = Statement(
    """
    WITH due AS (
        SELECT candidate.id FROM batches b CROSS JOIN LATERAL (
            SELECT i.id, row_number() OVER (ORDER BY i.holds_from, i.id) AS turn FROM inputs i
            WHERE i.batch_id = b.id AND i.state = 'waiting' AND i.due_at <= now()
              AND CASE WHEN i.host IS NULL THEN %(objects)s::boolean
                       ELSE %(web)s::boolean AND i.host <> ALL(%(not_from)s::text[]) END
            ORDER BY i.holds_from, i.id LIMIT %(limit)s
        ) candidate
        WHERE {waits}
        ORDER BY b.priority DESC, candidate.turn, b.created_at LIMIT %(limit)s
    ), free AS (
        SELECT i.id FROM inputs i JOIN due ON due.id = i.id
        WHERE i.state = 'waiting' AND i.due_at <= now() FOR UPDATE OF i SKIP LOCKED
    )
    UPDATE inputs i SET due_at = now() + %(lease)s * interval '1 s', attempt = i.attempt + 1
    FROM free, edits e JOIN batches b ON b.id = e.batch_id
    WHERE i.id = free.id AND e.batch_id = i.batch_id AND e.position = i.position
    RETURNING i.id, i.batch_id, b.client, i.host, i.attempt, i.sha256,
              CASE WHEN octet_length(e.arguments -> 'image_urls' ->> i.number) < {long}
                   THEN e.arguments -> 'image_urls' ->> i.number END
    """,
    waits=batch_waits_for_inputs("b"),
    long=str(LONG),
    index="inputs_waiting inputs_pkey edits_batch_id_position_key",
)


def claim_inputs(
    connection: Connection, *, limit: int, lease: float, not_from: Sequence[str] = (), kinds: Set[Kind] = ALL_KINDS
) -> list[DueInput]:
    """Inputs of these kinds to look at; none from the hosts `not_from`."""
    which = {"objects": Kind.OBJECT in kinds, "web": Kind.WEB in kinds}
    values = {"limit": max(0, limit), "lease": lease, "not_from": list(not_from), **which}
    return [DueInput(*row) for row in connection.exec_driver_sql(CLAIM_INPUTS, values)]


INPUT_TEXT = Statement(
    """
    SELECT e.arguments -> 'image_urls' ->> i.number FROM inputs i
    JOIN edits e ON e.batch_id = i.batch_id AND e.position = i.position WHERE i.id = %s
    """,
    index="inputs_pkey edits_batch_id_position_key",
)


def read_long_input(connection: Connection, input_id: int) -> str:
    """The entry of `image_urls` that an input is."""
    return str(connection.exec_driver_sql(INPUT_TEXT, (input_id,)).scalar_one())


RENEW_INPUTS = Statement(
    "UPDATE inputs SET due_at = now() + %s * interval '1 s' WHERE id = ANY(%s) AND due_at IS NOT NULL",
    index="inputs_pkey",
)


def renew_inputs(connection: Connection, input_ids: Sequence[int], *, lease: float) -> None:
    """Keep claimed inputs for as long again."""
    connection.exec_driver_sql(RENEW_INPUTS, (lease, list(input_ids)))
