"""Which listed request is which unknown submission's: matched by the whole input as it was sent."""

from collections.abc import Iterable, Sequence, Set
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from models.claims import DueUnknown
from models.queries.submissions import INPUT_OF_SUBMISSION, REQUESTS_OF_OURS, TWINS_IN_FLIGHT
from models.seedream import as_sent, identify_input
from models.sent_inputs import with_sent_urls
from provider.listing import Listed
from worker.settings import WorkerSettings
from worker.unknown_search import CLOCKS_DIFFER_BY, ended_after, ended_before

STATUS_CANCELLED = 499


def identify_submission(connection: Connection, submission_id: UUID) -> str:
    """The identity of the input that was sent; one at a time, for an input may hold megabytes of data URIs."""
    row = connection.exec_driver_sql(
        INPUT_OF_SUBMISSION,
        (submission_id,),
    ).one()
    return identify_input(as_sent(with_sent_urls(row.arguments, row.sent_urls), row.seed))


def select_free(connection: Connection, listed: Sequence[Listed]) -> list[Listed]:
    """Each once, without those that a submission of ours holds, whatever became of it."""
    named = {item.request_id: item for item in listed if item.request_id}
    held = set(connection.exec_driver_sql(REQUESTS_OF_OURS, (list(named),)).scalars())
    nameless = [item for item in listed if not item.request_id]
    return [item for request_id, item in named.items() if request_id not in held] + nameless


def _ended_in_window(due: DueUnknown, item: Listed, settings: WorkerSettings) -> bool:
    return item.ended_at is None or ended_after(due) <= item.ended_at <= ended_before(due, settings)


def may_hide_request_of(due: DueUnknown, free: Iterable[Listed], identity: str, settings: WorkerSettings) -> bool:
    """Whether a listed request may be this submission's, and the listing does not show whether it is."""
    return any(
        not item.certain
        and item.identity in (None, identity)
        and _ended_in_window(due, item, settings)
        and (item.sent_at is None or abs(item.sent_at - due.posted_at) <= CLOCKS_DIFFER_BY)
        for item in free
    )


def match_requests(
    connection: Connection,
    unknown: Sequence[DueUnknown],
    identities: dict[UUID, str],
    free: Sequence[Listed],
    complete: Set[UUID],
    settings: WorkerSettings,
) -> tuple[dict[UUID, str], dict[UUID, datetime]]:
    """Requests by submission, and until when those must wait that a submission in flight may own as well.

    Requests of the same input bring the same: any submission may have any of them, each once; one that succeeded is
    taken first, and of those the one sent nearest to its POST, which is most likely its own. Somebody else's cancelled
    request brings nothing. Another program's request of the very same input is taken as well: it has what this edit
    asked for, and that program keeps its own. But one that failed is taken only by those whose listing is read
    `complete`: else their own may stand further down, paid for, while its failure has the edit paid for again.
    """
    matches = _group_by_input(free)
    wanted = [due for due in unknown if identities[due.id] in matches]
    twins = find_twins(connection, wanted) if wanted else {}
    found: dict[UUID, str] = {}
    blocked: dict[UUID, datetime] = {}
    for due in wanted:
        identity = identities[due.id]
        candidates = [
            item
            for item in matches[identity]
            if _ended_in_window(due, item, settings) and (item.status == 200 or due.id in complete)
        ]
        owners = [
            twin.due_at
            for twin in twins.get(identity, ())
            if any(_may_own(twin.posted_at, item) for item in candidates)
        ]
        if candidates and owners:
            blocked[due.id] = max(owners)
        elif candidates:
            nearest = min(candidates, key=lambda item: (item.status != 200, _distance(due, item)))
            found[due.id] = nearest.request_id
            matches[identity].remove(nearest)
    return found, blocked


def _group_by_input(free: Iterable[Listed]) -> dict[str, list[Listed]]:
    groups: dict[str, list[Listed]] = {}
    for item in free:
        if item.certain and item.identity and item.status != STATUS_CANCELLED:
            groups.setdefault(item.identity, []).append(item)
    return groups


def _distance(due: DueUnknown, item: Listed) -> timedelta:
    sent_at = item.sent_at or item.ended_at
    return timedelta.max if sent_at is None else abs(sent_at - due.posted_at)


def _may_own(posted_at: datetime, item: Listed) -> bool:
    return item.ended_at is None or posted_at - CLOCKS_DIFFER_BY <= item.ended_at


class Twin(NamedTuple):
    """A submission in flight without request id, not past its own deadline."""

    id: UUID
    posted_at: datetime
    due_at: datetime


def find_twins(connection: Connection, unknown: Sequence[DueUnknown]) -> dict[str, list[Twin]]:
    """By input: who else may own a request that is listed.

    Asked after the listing was read: whoever was written down later has POSTed later than that.
    """
    rows = connection.exec_driver_sql(
        TWINS_IN_FLIGHT,
        (unknown[0].endpoint, [due.id for due in unknown]),
    ).all()
    twins: dict[str, list[Twin]] = {}
    for row in rows:
        twins.setdefault(identify_submission(connection, row.id), []).append(Twin(*row))
    return twins
