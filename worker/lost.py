"""What became of submits that nobody heard of: past the proven deadline, looked up once more, then given up.

Part of the poll lane. Only the provider's listing can still name the request: it is matched by the seed, which
darkroom assigns to every edit that has none, and by the prompt. A request found is simply asked for like any
other; without one the POST is proven dead, and the policy decides: resubmitted, counted, or parked.
"""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from uuid import UUID

import structlog
from sqlalchemy import Connection, Engine

from models.claims import DueUnknown, claim_unknown
from models.errors import Gone, TryLater
from models.provider import note_accepted
from models.rulings import WATCHDOG
from models.transitions import give_up_unknown, reveal_request
from worker.listing import Listing
from worker.settings import WorkerSettings

log = structlog.get_logger()

WAVE = 100
LEASE = 60.0
"""Seconds; also the pause before a listing that did not answer is asked again."""
LOOKUPS = 5
"""Times the listing is asked while it does not answer; then the deadline alone must do."""
CLOCKS_DIFFER_BY = timedelta(minutes=15)


def run(engine: Engine, listing: Listing, settings: WorkerSettings) -> int:
    """Settle one set of them; returns its size."""
    with engine.begin() as connection:
        lost = claim_unknown(connection, limit=WAVE, lease=LEASE)
    if not lost:
        return 0
    found, unanswered = look_up(engine, listing, lost)
    with engine.begin() as connection:
        for submission_id, request_id in found.items():
            reveal_request(connection, submission_id, request_id, patience=WATCHDOG)
        if found:
            note_accepted(connection, max(due.posted_at for due in lost if due.id in found))
        give_up_unknown(
            connection,
            [due.id for due in lost if due.id not in found and due.id not in unanswered],
            resubmit=settings.on_unknown == "resubmit",
            max_attempts=settings.max_attempts,
        )
    log.warning("submits_unheard_of", count=len(lost), found=len(found), asked_again_later=len(unanswered))
    return len(lost)


def look_up(engine: Engine, listing: Listing, lost: Sequence[DueUnknown]) -> tuple[dict[UUID, str], set[UUID]]:
    """Request ids by submission, and the submissions about which the listing should be asked again later."""
    found: dict[UUID, str] = {}
    unanswered: set[UUID] = set()
    for endpoint in {due.endpoint for due in lost}:
        mine = [due for due in lost if due.endpoint == endpoint]
        try:
            candidates = _candidates(listing, endpoint, mine)
        except Gone:
            continue  # the key may not read it: the deadline alone must do
        except TryLater as error:
            log.warning("listing_unanswered", reason=str(error))
            unanswered |= {due.id for due in mine if due.polls < LOOKUPS}
            continue
        with engine.connect() as connection:
            taken = _taken(connection, [request_id for ids in candidates.values() for request_id in ids])
        for due in mine:
            free = [request_id for request_id in candidates.get((due.seed, due.prompt), ()) if request_id not in taken]
            if free:
                found[due.id] = free[0]
                taken.add(free[0])
    return found, unanswered


def _candidates(listing: Listing, endpoint: str, lost: Sequence[DueUnknown]) -> dict[tuple[int, str], list[str]]:
    wanted = {(due.seed, due.prompt) for due in lost}
    start = min(due.posted_at for due in lost) - CLOCKS_DIFFER_BY
    candidates: dict[tuple[int, str], list[str]] = {}
    for listed in listing.since(endpoint, start):
        if listed.seed is not None and listed.prompt is not None and (listed.seed, listed.prompt) in wanted:
            candidates.setdefault((listed.seed, listed.prompt), []).append(listed.request_id)
    return candidates


def _taken(connection: Connection, request_ids: Iterable[str]) -> set[str]:
    rows = connection.exec_driver_sql(
        "SELECT request_id FROM submissions WHERE request_id = ANY(%s)", (list(request_ids),)
    )
    return {row[0] for row in rows}
