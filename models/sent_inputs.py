"""What the provider is given in the place of an object of the store, written down before the POST.

Whoever compares requests with submissions later compares what was sent (`worker/unknown_matching.py`).
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from models.image_inputs import is_object
from models.statements import RowSet, Statement
from models.transitions import Submission, revert_unsent
from models.transitions.inputs import NeededInput, look_again

_GIVEN = RowSet("m", submission="uuid", number="integer", digest="bytea")
DELIVERED_INPUTS = Statement(
    """
    SELECT m.submission, m.number, m.digest, e.batch_id, e.position, i.url
    FROM {given} JOIN submissions s ON s.id = m.submission JOIN edits e ON e.id = s.edit_id
    LEFT JOIN inputs i ON i.batch_id = e.batch_id AND i.digest = m.digest AND i.state = 'ready'
        AND (i.url_expires_at IS NULL OR i.url_expires_at > now() + %(needed_for)s * interval '1 s')
    """,
    given=_GIVEN,
    index="submissions_pkey edits_pkey inputs_batch_id_digest_key",
)
_SENT = RowSet("m", submission="uuid", urls="jsonb")
RECORD_SENT_URLS = Statement(
    "UPDATE submissions s SET sent_urls = m.urls FROM {sent} WHERE s.id = m.submission",
    sent=_SENT,
    index="submissions_pkey",
)


class _Delivered(NamedTuple):
    submission: UUID
    number: int
    digest: bytes
    batch_id: UUID
    position: int
    url: str | None


def put_delivered_inputs(
    connection: Connection, submissions: Sequence[Submission], *, needed_for: float
) -> list[Submission]:
    """Those of the submissions that can be POSTed, each object of the store in them replaced by its URL there.

    Where what was delivered would not last for `needed_for` seconds the edit goes back, and its input is looked at
    again. Belongs into the transaction that wrote the submissions down. Asks nothing where no edit names an object.
    """
    given = [
        (submission.id, number, hashlib.sha256(entry.encode()).digest())
        for submission in submissions
        for number, entry in enumerate(_entries(submission.arguments))
        if is_object(entry)
    ]
    if not given:
        return list(submissions)
    values = {**_GIVEN.arrays(given), "needed_for": needed_for}
    found = [_Delivered(*row) for row in connection.exec_driver_sql(DELIVERED_INPUTS, values)]
    missing = [entry for entry in found if entry.url is None]
    unready = {entry.submission for entry in missing}
    sent: dict[UUID, dict[str, str]] = {}
    for entry in found:
        if entry.url is not None and entry.submission not in unready:
            sent.setdefault(entry.submission, {})[str(entry.number)] = entry.url
    if sent:
        rows = [(submission, json.dumps(urls)) for submission, urls in sent.items()]
        connection.exec_driver_sql(RECORD_SENT_URLS, _SENT.arrays(rows))
    if missing:
        revert_unsent(connection, list(unready), reason="input_not_ready", delay=0)
        needed = [NeededInput(entry.batch_id, entry.digest, entry.position, entry.number) for entry in missing]
        look_again(connection, needed, needed_for=needed_for)
    for submission in submissions:
        submission.arguments.update(with_sent_urls(submission.arguments, sent.get(submission.id)))
    return [submission for submission in submissions if submission.id not in unready]


def with_sent_urls(arguments: dict[str, Any], sent_urls: dict[str, str] | None) -> dict[str, Any]:
    """The arguments as they were sent."""
    if not sent_urls:
        return arguments
    urls = [sent_urls.get(str(number), entry) for number, entry in enumerate(_entries(arguments))]
    return {**arguments, "image_urls": urls}


def _entries(arguments: dict[str, Any]) -> list[str]:
    entries: list[str] = arguments.get("image_urls") or []
    return entries
