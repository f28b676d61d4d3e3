"""Which trace a submission, an image, an input or a notification belongs to: that of the request that brought it."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from models.statements import Statement


class TraceOrigin(NamedTuple):
    """What a call or a callback is about, and the trace in which it is seen."""

    id: UUID | int
    """Of the submission, the image or the notification."""
    traceparent: str
    batch_id: UUID
    edit_id: int | None
    attempt: int

    def attributes(self) -> dict[str, str | int]:
        """What a span says of it. Never the submission's id, which is the token in the address of its callback."""
        edit = {} if self.edit_id is None else {"darkroom.edit": self.edit_id}
        return {"darkroom.batch": str(self.batch_id), "darkroom.attempt": self.attempt, **edit}


TRACES_OF_SUBMISSIONS = Statement(
    """
    SELECT s.id, b.traceparent, b.id AS batch_id, e.id AS edit_id, s.attempt
    FROM submissions s JOIN edits e ON e.id = s.edit_id JOIN batches b ON b.id = e.batch_id
    WHERE s.id = ANY(%s::uuid[]) AND b.traceparent IS NOT NULL
    """,
    index="submissions_pkey edits_pkey",
)
TRACES_OF_IMAGES = Statement(
    """
    SELECT i.id, b.traceparent, b.id AS batch_id, e.id AS edit_id, s.attempt
    FROM images i JOIN submissions s ON s.id = i.submission_id JOIN edits e ON e.id = s.edit_id
    JOIN batches b ON b.id = e.batch_id
    WHERE i.id = ANY(%s::bigint[]) AND b.traceparent IS NOT NULL
    """,
    index="images_pkey submissions_pkey edits_pkey",
)
TRACES_OF_NOTIFICATIONS = Statement("""
    SELECT n.id, b.traceparent, b.id AS batch_id, NULL::bigint AS edit_id, n.attempt
    FROM notifications n JOIN batches b ON b.id = n.batch_id
    WHERE n.id = ANY(%s::uuid[]) AND b.traceparent IS NOT NULL
""")

TRACES_OF_INPUTS = Statement(
    """
    SELECT i.id, b.traceparent, b.id AS batch_id, NULL::bigint AS edit_id, i.attempt
    FROM inputs i JOIN batches b ON b.id = i.batch_id
    WHERE i.id = ANY(%s::bigint[]) AND b.traceparent IS NOT NULL
    """,
    index="inputs_pkey",
)


def find_origins(connection: Connection, statement: Statement, ids: Sequence[object]) -> list[TraceOrigin]:
    """The origins of those whose batch belongs to a trace."""
    return [TraceOrigin(*row) for row in connection.exec_driver_sql(statement, (list(ids),))]
