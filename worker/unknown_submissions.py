"""What became of unknown submissions: past the unknown deadline, looked up until that proves something.

Part of the poll lane. Only the provider's listing can still name the request. It is matched by the whole input as sent,
because most manifests repeat one prompt and one seed; what is found is asked for like any other request. Not found in a
listing that was read to its end, the POST is proven dead, and the policy decides: resubmitted, counted, or parked.

No answer, half an answer, or one that may be about another request of ours proves nothing: the submit stays unknown,
with the reason in `submissions.note`, and is looked up again. Only where the listing keeps refusing (401, 403, 404), or
keeps hiding the inputs, `PERSISTS` times as long as a submit may take, the deadline alone has to do.
"""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import IntegrityError

from models.claims import DueUnknown, claim_unknown
from models.decisions import READY_OVERDUE_AFTER
from models.provider import is_paused, note_accepted
from models.queries.locks import LOCK_UNTIL_COMMIT
from models.queries.submissions import STILL_UNKNOWN
from models.transitions import DenialCount, NextPoll, attach_request_id, lock_edits, resolve_unknown, schedule_poll
from provider.listing import Listing
from worker import unknown_search
from worker.settings import WorkerSettings
from worker.unknown_matching import identify_submission, match_requests, may_hide_request_of, select_free
from worker.unknown_search import (
    Search,
    ended_after,
    ended_before,
    is_complete,
    is_read_to_its_end,
    search_listing,
)

log = structlog.get_logger()

CLAIM_MAX = 100
NEVER = datetime.max.replace(tzinfo=UTC)
DENIALS, PERSISTS = 3, 2.5
"""How many lookups in a row must prove nothing, over how many times the unknown deadline (by default an hour)."""
FIRST_PAUSE, LONGEST_PAUSE = 1 / 25, 1 / 2
"""Of the unknown deadline: the pause before the next lookup, doubling (by default from a minute to 12)."""
LOOKUP_LOCK = 7364
"""Key of the advisory lock under which listed requests are given to submissions."""
IN_NO_LISTING = "not in the provider's listing, which was read to its end"
UNREADABLE = "the provider's listing could not be read for long; the deadline alone has decided"
"""By what a POST was proven dead, as `submissions.note` tells."""


def look_up_unknown(engine: Engine, listing: Listing, settings: WorkerSettings) -> int:
    """Settle one set of them, as far as that is possible now; returns its size.

    Where a page takes longer than the claim holds, two may read the same; whoever records second finds it settled.
    """
    with engine.begin() as connection:
        unknown = claim_unknown(connection, limit=CLAIM_MAX, lease=settings.claim_lease + unknown_search.SLICE_SECONDS)
    stop = time.monotonic() + unknown_search.SLICE_SECONDS
    for number, together in enumerate(group_by_progress(unknown, settings)):
        if number and time.monotonic() > stop:  # not looked up at all; the tick starts the next turn at once
            with engine.begin() as connection:
                schedule_poll(
                    connection,
                    [
                        NextPoll(due.id, 0.0, None, DenialCount.KEEP, due.searched_to, due.searched_from)
                        for due in together
                    ],
                )
            continue
        with engine.begin() as connection:
            identities = {due.id: identify_submission(connection, due.id) for due in together}
        search = search_listing(listing, together, set(identities.values()), settings, stop)
        try:
            with engine.begin() as connection:
                record_listing_search(connection, together, identities, search, settings)
        except IntegrityError:
            # a callback has just given one of these requests to its own submission; the lease brings the rest back
            log.info("lookup_overtaken", count=len(together))
    return len(unknown)


def group_by_progress(unknown: Sequence[DueUnknown], settings: WorkerSettings) -> list[list[DueUnknown]]:
    """Sets of one endpoint that go on from one place and whose times overlap: what has least left to read first.

    Read together with newcomers, who begin at the latest end, those that are half through would begin there again.
    """
    sets: list[list[DueUnknown]] = []
    for due in sorted(unknown, key=lambda due: (due.endpoint, due.searched_to or NEVER, due.posted_at)):
        before = sets[-1][-1] if sets else None
        if (
            before
            and (before.endpoint, before.searched_to) == (due.endpoint, due.searched_to)
            and ended_after(due) <= ended_before(before, settings)
        ):
            sets[-1].append(due)
        else:
            sets.append([due])
    return sets


def record_listing_search(
    connection: Connection,
    unknown: Sequence[DueUnknown],
    identities: dict[UUID, str],
    search: Search,
    settings: WorkerSettings,
) -> None:
    """One transaction for what a turn brought: revealed, given up, or put off with the reason."""
    # the edits first, as in every other transition; then one after the other gives requests away
    lock_edits(connection, [due.id for due in unknown])
    connection.exec_driver_sql(LOCK_UNTIL_COMMIT, (LOOKUP_LOCK,))
    unknown = select_still_unknown(connection, unknown)
    free = select_free(connection, search.listed)
    hidden = {due.id for due in unknown if may_hide_request_of(due, free, identities[due.id], settings)}
    complete = {due.id for due in unknown if is_complete(due, search, due.id in hidden)}
    request_ids, blocked = match_requests(connection, unknown, identities, free, complete, settings)
    _attach_requests(connection, unknown, request_ids)
    paused = is_paused(connection)
    dead: dict[str, list[UUID]] = {IN_NO_LISTING: [], UNREADABLE: []}
    postponed: list[NextPoll] = []
    for due in (due for due in unknown if due.id not in request_ids):
        if due.id in blocked:
            postponed.append(_wait_for_twin(due, blocked[due.id]))
        elif (put_off := decide_lookup(due, search, due.id in hidden, paused, settings)) is None:
            dead[IN_NO_LISTING if due.id in complete else UNREADABLE].append(due.id)
        else:
            postponed.append(put_off)
    resubmit = settings.on_unknown == "resubmit"
    for note, ids in dead.items():
        resolve_unknown(connection, ids, resubmit=resubmit, max_attempts=settings.max_attempts, note=note)
    schedule_poll(connection, postponed)
    counts = {"not_listed": len(dead[IN_NO_LISTING]), "listing_unreadable": len(dead[UNREADABLE])}
    log.warning(
        "unknown_submissions_looked_up", count=len(unknown), found=len(request_ids), put_off=len(postponed), **counts
    )


def _attach_requests(connection: Connection, unknown: Sequence[DueUnknown], request_ids: Mapping[UUID, str]) -> None:
    for submission_id, request_id in request_ids.items():
        attach_request_id(connection, submission_id, request_id, overdue_after=READY_OVERDUE_AFTER)
    if request_ids:
        note_accepted(connection, max(due.posted_at for due in unknown if due.id in request_ids))


def _wait_for_twin(due: DueUnknown, until: datetime) -> NextPoll:
    note = "a submit of the same input is not past its own deadline; either may own the request that was found"
    return NextPoll(due.id, max((until - datetime.now(UTC)).total_seconds(), 0.0), note)


def decide_lookup(
    due: DueUnknown, search: Search, hidden: bool, paused: bool, settings: WorkerSettings
) -> NextPoll | None:
    """When a submission that was not found is looked up again, and why; None: it is proven dead."""
    pause = min(FIRST_PAUSE * 2 ** (due.lookups - 1), LONGEST_PAUSE) * settings.unknown_deadline
    if is_complete(due, search, hidden):
        return None
    if not (search.refused or is_read_to_its_end(due, search)):
        return _continue_later(due, search, hidden, pause, settings)
    if paused:  # refusals of a paused account are about the account
        return NextPoll(due.id, pause, search.trouble or "the account is paused")
    if due.denials + 1 >= DENIALS and due.denied_for >= PERSISTS * settings.unknown_deadline:
        return None
    note = search.trouble or "the listing shows requests of that time without their inputs, or their ids"
    return NextPoll(due.id, pause, note, DenialCount.ADD)


def _continue_later(due: DueUnknown, search: Search, hidden: bool, pause: float, settings: WorkerSettings) -> NextPoll:
    """Ask again later, and read the listing on from where it was left.

    `hidden`: the listing showed requests of that time without their inputs, which proves nothing. `pause`: seconds.
    """
    before = due.searched_to or ended_before(due, settings)
    reached = min(search.down_to or ended_after(due), before)
    denials = DenialCount.ADD if hidden else DenialCount.KEEP
    if reached == before:  # not a step further than last time
        read = {"searched_to": due.searched_to, "searched_from": due.searched_from}
        return NextPoll(due.id, pause, search.trouble, denials, **read)
    if not hidden and due.searched_to is None:  # the listing answers again, and is read from its beginning
        denials = DenialCount.RESET
    read = {"searched_to": reached, "searched_from": search.newest}
    if search.trouble:
        return NextPoll(due.id, FIRST_PAUSE * settings.unknown_deadline, search.trouble, denials, **read)
    note = f"the listing is being read; what ended after {reached:%Y-%m-%d %H:%M:%S %Z} is done"
    return NextPoll(due.id, 0.0, note, denials, **read)


def select_still_unknown(connection: Connection, unknown: Sequence[DueUnknown]) -> list[DueUnknown]:
    """Without those of which a callback told while the listing was read."""
    ids = set(
        connection.exec_driver_sql(
            STILL_UNKNOWN,
            ([due.id for due in unknown],),
        ).scalars()
    )
    return [due for due in unknown if due.id in ids]
