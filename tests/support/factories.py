"""Rows for tests: functions that build on each other, through the same entry points as the product."""

import hashlib
import json
from datetime import UTC, datetime
from decimal import Decimal
from io import BytesIO
from uuid import UUID

from sqlalchemy import Connection

from core.settings import PolicySettings
from intake.batches import BatchHeader, create
from intake.manifest import read_jsonl
from models.claims import claim_edits
from models.decisions import ProviderReport
from models.deliveries import pack
from models.queries.callbacks import CALLBACKS, KEEP_CALLBACKS
from models.states import Effect, LearnedBy
from models.transitions import Submission, record_accepted, start_submissions
from models.verdict import DeclaredImage, Kind, Retry, Verdict

UNKNOWN_DEADLINE = 1500.0
PRICE = Decimal("0.03")
POLICY = PolicySettings(retry_delay=10, max_attempts=3)


def make_batch(connection: Connection, edits: int = 1, **header: object) -> UUID:
    """A batch of so many pending edits."""
    lines = [{"prompt": f"edit {n}", "image_urls": ["https://example.com/a.png"]} for n in range(edits)]
    stream = BytesIO("\n".join(map(json.dumps, lines)).encode())
    return create(connection, BatchHeader(**header), read_jsonl(stream)).batch_id


def claim(connection: Connection, limit: int = 100, window: int = 100) -> list[Submission]:
    """What the submit lane does before its POSTs."""
    ids = claim_edits(connection, limit=limit, window=window, probe_after=60, price=PRICE)
    return start_submissions(connection, ids, unknown_deadline=UNKNOWN_DEADLINE, price=PRICE)


def make_submitted(connection: Connection, edits: int = 1, **header: object) -> list[Submission]:
    """Edits in flight."""
    make_batch(connection, edits, **header)
    submissions = claim(connection)
    accept(connection, submissions)
    return submissions


def accept(connection: Connection, submissions: list[Submission]) -> None:
    """The provider's replies to these POSTs."""
    replies = [(submission.id, request_id(submission)) for submission in submissions]
    record_accepted(connection, replies, poll_after=60, unknown_deadline=UNKNOWN_DEADLINE)


def request_id(submission: Submission) -> str:
    """The request id that `accept` gives."""
    return f"request-{submission.id}"


def success(images: int = 1) -> Verdict:
    """A verdict with images."""
    return Verdict(Kind.SUCCEEDED, tuple(DeclaredImage(f"https://v3.fal.media/{n}.png") for n in range(images)))


def failure(type_: str = "internal_server_error", retry: Retry = Retry.TRANSIENT) -> Verdict:
    """A verdict without."""
    return Verdict(Kind.FAILED, error_type=type_, message="no", retry=retry)


def answer(submission: Submission, verdict: Verdict, by: LearnedBy = LearnedBy.CALLBACK) -> ProviderReport:
    """What a callback or a poll says about a submission."""
    return ProviderReport(submission.id, request_id(submission), verdict, by)


def keep_callback(
    connection: Connection, token: str, request: str, *, body: str = "{}", headers: dict[str, str] | None = None
) -> None:
    """A delivery as the receiver keeps it, that was applied."""
    content = body.encode()
    digest, packed = hashlib.sha256(content).hexdigest(), pack(request, headers or {}, content)
    rows = [(Effect.APPLIED.value, token, token, request, datetime.now(UTC), packed, digest)]
    connection.exec_driver_sql(KEEP_CALLBACKS, CALLBACKS.arrays(rows))


def fall_due(connection: Connection) -> None:
    """Let every clock of open rows run out."""
    for table in ("edits", "submissions", "images"):
        connection.exec_driver_sql(f"UPDATE {table} SET due_at = now() - interval '1 s' WHERE due_at IS NOT NULL")


def states(connection: Connection) -> dict[str, int]:
    """How many edits stand where."""
    rows = connection.exec_driver_sql("SELECT state, count(*) FROM edits GROUP BY state")
    return {row[0]: row[1] for row in rows}


def unbalanced(connection: Connection) -> list[tuple[str, int]]:
    """The identities of the accounts that do not hold."""
    rows = connection.exec_driver_sql("SELECT identity, difference FROM audit WHERE difference <> 0")
    return [(row[0], row[1]) for row in rows]
