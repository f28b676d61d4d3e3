"""What became of submits that nobody heard of: past the unknown deadline, looked up until that proves something.

Part of the poll lane. Only the provider's listing can still name the request. It is matched by the whole input as sent,
because most manifests repeat one prompt and one seed; what is found is asked for like any other request. Not found in a
listing that was read to its end, the POST is proven dead, and the policy decides: resubmitted, counted, or parked.

No answer, half an answer, or one that may be about another request of ours proves nothing: the submit stays unknown,
with the reason in `submissions.note`, and is looked up again. Only where the listing keeps refusing (401, 403, 404), or
keeps hiding the inputs, `PERSISTS` times as long as a submit may take, the deadline alone has to do.
"""

import time
from collections.abc import Iterable, Sequence, Set
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import IntegrityError

from core.errors import Gone, TryLater
from models.claims import DueUnknown, claim_unknown
from models.decisions import READY_OVERDUE_AFTER
from models.provider import is_paused, note_accepted
from models.seedream import as_sent, identify_input
from models.transitions import NextPoll, attach_request_id, lock_edits, resolve_unknown, schedule_poll
from provider.listing import SAME_MOMENT, Listed, Listing
from worker.settings import WorkerSettings

log = structlog.get_logger()

WAVE = 100
SLICE_SECONDS = 10.0
"""Seconds for which the listing is read at one time; then it is the others' turn, and reading goes on from there."""
CLOCKS_DIFFER_BY = timedelta(minutes=15)
"""Between the provider's machines and our database, at most; and how late a request may be listed."""
DENIALS, PERSISTS = 3, 2.5
"""How many lookups in a row must prove nothing, over how many times the unknown deadline (by default an hour)."""
FIRST_PAUSE, LONGEST_PAUSE = 1 / 25, 1 / 2
"""Of the unknown deadline: the pause before the next lookup, doubling (by default from a minute to 12)."""
NEVER = datetime.max.replace(tzinfo=UTC)
LOOKUP_LOCK = 7364
"""Key of the advisory lock under which listed requests are given to submissions."""
CANCELLED = 499
IN_NO_LISTING = "not in the provider's listing, which was read to its end"
UNREADABLE = "the provider's listing could not be read for long; the deadline alone has decided"
"""By what a POST was proven dead, as `submissions.note` tells."""


class Search(NamedTuple):
    """What one turn of reading brought for submissions of one endpoint."""

    listed: list[Listed]
    """Those that may matter: of the wanted inputs, or with an input that is not shown."""
    down_to: datetime | None
    """Everything later is read; None: everything is."""
    newest: datetime | None = None
    """When the latest listed request had ended as reading began; None: it has not begun."""
    trouble: str | None = None
    """Why it could not be read on."""
    refused: bool = False
    """The key may not read it: not a page came."""


def run(engine: Engine, listing: Listing, settings: WorkerSettings) -> int:
    """Settle one set of them, as far as that is possible now; returns its size.

    Where a page takes longer than the claim holds, two may read the same; whoever records second finds it settled.
    """
    with engine.begin() as connection:
        lost = claim_unknown(connection, limit=WAVE, lease=settings.claim_lease + SLICE_SECONDS)
    stop = time.monotonic() + SLICE_SECONDS
    for number, mine in enumerate(_group_by_progress(lost, settings)):
        if number and time.monotonic() > stop:  # not looked up at all; the tick starts the next turn at once
            with engine.begin() as connection:
                schedule_poll(
                    connection,
                    [NextPoll(due.id, 0.0, None, None, due.searched_to, due.searched_from) for due in mine],
                )
            continue
        with engine.connect() as connection:
            identities = {due.id: _identify(connection, due.id) for due in mine}
        search = search_listing(listing, mine, set(identities.values()), settings, stop)
        try:
            with engine.begin() as connection:
                record_search(connection, mine, identities, search, settings)
        except IntegrityError:
            # a callback has just given one of these requests to its own submission; the lease brings the rest back
            log.info("lookup_overtaken", count=len(mine))
    return len(lost)


def _group_by_progress(lost: Sequence[DueUnknown], settings: WorkerSettings) -> list[list[DueUnknown]]:
    """Sets of one endpoint that go on from one place and whose times overlap: what has least left to read first.

    Read together with newcomers, who begin at the latest end, those that are half through would begin there again.
    """
    sets: list[list[DueUnknown]] = []
    for due in sorted(lost, key=lambda due: (due.endpoint, due.searched_to or NEVER, due.posted_at)):
        before = sets[-1][-1] if sets else None
        if (
            before
            and (before.endpoint, before.searched_to) == (due.endpoint, due.searched_to)
            and _ended_after(due) <= _ended_before(before, settings)
        ):
            sets[-1].append(due)
        else:
            sets.append([due])
    return sets


def _identify(connection: Connection, submission_id: UUID) -> str:
    """One at a time: an input may hold megabytes of data URIs."""
    row = connection.exec_driver_sql(
        "SELECT e.arguments, e.seed FROM submissions s JOIN edits e ON e.id = s.edit_id WHERE s.id = %s",
        (submission_id,),
    ).one()
    return identify_input(as_sent(row.arguments, row.seed))


def _ended_after(due: DueUnknown) -> datetime:
    return due.posted_at - CLOCKS_DIFFER_BY


def _ended_before(due: DueUnknown, settings: WorkerSettings) -> datetime:
    """When its request has ended, and is listed, at the latest."""
    return due.posted_at + timedelta(seconds=settings.unknown_deadline) + CLOCKS_DIFFER_BY


def search_listing(
    listing: Listing, lost: Sequence[DueUnknown], wanted: set[str], settings: WorkerSettings, stop: float
) -> Search:
    """Read the listing down from where these submissions have not read it yet, until `stop` (`time.monotonic`).

    At its end what has ended since reading began is read too: a request may run past its allowance.
    """
    start = min(_ended_after(due) for due in lost)
    latest = max(_ended_before(due, settings) for due in lost)
    end = down_to = max(due.searched_to or latest for due in lost)
    newest = min((due.searched_from for due in lost if due.searched_from), default=None)
    found: list[Listed] = []
    try:
        for page in listing.pages(lost[0].endpoint, start, end):
            newest = newest or max((item.ended_at for item in page.items if item.ended_at), default=start)
            found += _wanted(page.items, wanted)
            if page.last:
                for ended_since in listing.pages(lost[0].endpoint, newest - SAME_MOMENT, latest):
                    found += _wanted(ended_since.items, wanted)
                    if not ended_since.last and time.monotonic() > stop + SLICE_SECONDS:
                        raise TryLater("more has ended since the listing was begun than can be read in one turn")
                return Search(found, None, newest)
            down_to = page.down_to
            if time.monotonic() > stop:
                return Search(found, down_to, newest)
    except Gone as error:
        # where some pages came, it is no key that may not read
        return Search(found, down_to, newest, str(error), refused=down_to == end)
    except TryLater as error:
        return Search(found, down_to, newest, str(error))
    raise AssertionError("a listing ends with its last page")


def _wanted(items: Iterable[Listed], wanted: set[str]) -> list[Listed]:
    return [item for item in items if item.identity is None or item.identity in wanted]


def record_search(
    connection: Connection,
    lost: Sequence[DueUnknown],
    identities: dict[UUID, str],
    search: Search,
    settings: WorkerSettings,
) -> None:
    """One transaction for what a turn brought: revealed, given up, or put off with the reason."""
    # the edits first, as in every other transition; then one after the other gives requests away
    lock_edits(connection, [due.id for due in lost])
    connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (LOOKUP_LOCK,))
    lost = _still_unknown(connection, lost)
    free = _free(connection, search.listed)
    hidden = {due.id for due in lost if _hidden(due, free, identities[due.id], settings)}
    complete = {due.id for due in lost if _is_complete(due, search, due.id in hidden)}
    found, blocked = _match_requests(connection, lost, identities, free, complete, settings)
    for submission_id, request_id in found.items():
        attach_request_id(connection, submission_id, request_id, overdue_after=READY_OVERDUE_AFTER)
    if found:
        note_accepted(connection, max(due.posted_at for due in lost if due.id in found))
    paused = is_paused(connection)
    dead: dict[str, list[UUID]] = {IN_NO_LISTING: [], UNREADABLE: []}
    postponed: list[NextPoll] = []
    for due in lost:
        if due.id in found:
            continue
        if due.id in blocked:
            delay = (blocked[due.id] - datetime.now(UTC)).total_seconds()
            note = "a submit of the same input is not past its own deadline; either may own the request that was found"
            postponed.append(NextPoll(due.id, max(delay, 0.0), note))
        elif (put_off := decide_lookup(due, search, due.id in hidden, paused, settings)) is None:
            dead[IN_NO_LISTING if due.id in complete else UNREADABLE].append(due.id)
        else:
            postponed.append(put_off)
    resubmit = settings.on_unknown == "resubmit"
    for note, ids in dead.items():
        resolve_unknown(connection, ids, resubmit=resubmit, max_attempts=settings.max_attempts, note=note)
    schedule_poll(connection, postponed)
    counts = {"not_listed": len(dead[IN_NO_LISTING]), "listing_unreadable": len(dead[UNREADABLE])}
    log.warning("submits_unheard_of", count=len(lost), found=len(found), put_off=len(postponed), **counts)


def decide_lookup(
    due: DueUnknown, search: Search, hidden: bool, paused: bool, settings: WorkerSettings
) -> NextPoll | None:
    """When a submission that was not found is looked up again, and why; None: it is proven dead."""
    pause = min(FIRST_PAUSE * 2 ** (due.lookups - 1), LONGEST_PAUSE) * settings.unknown_deadline
    if _is_complete(due, search, hidden):
        return None
    if not (search.refused or _is_read_to_its_end(due, search)):
        return _continue_later(due, search, hidden, pause, settings)
    if paused:  # refusals of a paused account are about the account
        return NextPoll(due.id, pause, search.trouble or "the account is paused", None)
    if due.denials + 1 >= DENIALS and due.denied_for >= PERSISTS * settings.unknown_deadline:
        return None
    note = search.trouble or "the listing shows requests of that time without their inputs"
    return NextPoll(due.id, pause, note, denied=True)


def _continue_later(due: DueUnknown, search: Search, hidden: bool, pause: float, settings: WorkerSettings) -> NextPoll:
    """What was read stays read, and what was hidden in it stays noted."""
    before = due.searched_to or _ended_before(due, settings)
    reached = min(search.down_to or _ended_after(due), before)
    if reached == before:
        denied = True if hidden else None
        return NextPoll(due.id, pause, search.trouble, denied, due.searched_to, due.searched_from)
    denied = True if hidden else False if due.searched_to is None else None
    if search.trouble:
        return NextPoll(due.id, FIRST_PAUSE * settings.unknown_deadline, search.trouble, denied, reached, search.newest)
    note = f"the listing is being read; what ended after {reached:%Y-%m-%d %H:%M:%S %Z} is done"
    return NextPoll(due.id, 0.0, note, denied, reached, search.newest)


def _is_read_to_its_end(due: DueUnknown, search: Search) -> bool:
    return search.down_to is None or search.down_to <= _ended_after(due)


def _is_complete(due: DueUnknown, search: Search, hidden: bool) -> bool:
    """Whether the whole of its time was read, in this turn or with those before, and every input of it was shown."""
    return _is_read_to_its_end(due, search) and not hidden and (due.searched_to is None or not due.denials)


def _still_unknown(connection: Connection, lost: Sequence[DueUnknown]) -> list[DueUnknown]:
    """Without those of which a callback told while the listing was read."""
    unknown = set(
        connection.exec_driver_sql(
            "SELECT id FROM submissions WHERE id = ANY(%s) AND outcome IS NULL AND request_id IS NULL",
            ([due.id for due in lost],),
        ).scalars()
    )
    return [due for due in lost if due.id in unknown]


def _free(connection: Connection, listed: Sequence[Listed]) -> list[Listed]:
    """Each once, without those that a submission of ours holds, whatever became of it."""
    listed = list({item.request_id: item for item in listed}.values())
    held = set(
        connection.exec_driver_sql(
            "SELECT request_id FROM submissions WHERE request_id = ANY(%s)", ([item.request_id for item in listed],)
        ).scalars()
    )
    return [item for item in listed if item.request_id and item.request_id not in held]


def _in_time(due: DueUnknown, item: Listed, settings: WorkerSettings) -> bool:
    return item.ended_at is None or _ended_after(due) <= item.ended_at <= _ended_before(due, settings)


def _hidden(due: DueUnknown, free: Iterable[Listed], identity: str, settings: WorkerSettings) -> bool:
    """Whether a listed request may be this submission's, and the listing does not show whether it is."""
    return any(
        not item.certain
        and item.identity in (None, identity)
        and _in_time(due, item, settings)
        and (item.sent_at is None or abs(item.sent_at - due.posted_at) <= CLOCKS_DIFFER_BY)
        for item in free
    )


def _match_requests(
    connection: Connection,
    lost: Sequence[DueUnknown],
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
    matches: dict[str, list[Listed]] = {}
    for item in free:
        if item.certain and item.identity and item.status != CANCELLED:
            matches.setdefault(item.identity, []).append(item)
    wanted = [due for due in lost if identities[due.id] in matches]
    live = _in_flight(connection, wanted) if wanted else {}
    found: dict[UUID, str] = {}
    blocked: dict[UUID, datetime] = {}
    for due in wanted:
        identity = identities[due.id]
        candidates = [
            item
            for item in matches[identity]
            if _in_time(due, item, settings) and (item.status == 200 or due.id in complete)
        ]
        owners = [
            twin.due_at for twin in live.get(identity, ()) if any(_may_own(twin.posted_at, item) for item in candidates)
        ]
        if candidates and owners:
            blocked[due.id] = max(owners)
        elif candidates:
            nearest = min(candidates, key=lambda item: (item.status != 200, _distance(due, item)))
            found[due.id] = nearest.request_id
            matches[identity].remove(nearest)
    return found, blocked


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


def _in_flight(connection: Connection, lost: Sequence[DueUnknown]) -> dict[str, list[Twin]]:
    """By input: who else may own a request that is listed.

    Asked after the listing was read: whoever was written down later has POSTed later than that.
    """
    rows = connection.exec_driver_sql(
        """
        SELECT s.id, s.posted_at, s.due_at
        FROM submissions s JOIN edits e ON e.id = s.edit_id JOIN batches b ON b.id = e.batch_id
        WHERE s.due_at > now() AND s.request_id IS NULL AND s.polls = 0 AND b.endpoint = %s
          AND e.seed IN (SELECT o.seed FROM submissions l JOIN edits o ON o.id = l.edit_id WHERE l.id = ANY(%s))
        """,
        (lost[0].endpoint, [due.id for due in lost]),
    ).all()
    twins: dict[str, list[Twin]] = {}
    for row in rows:
        twins.setdefault(_identify(connection, row.id), []).append(Twin(*row))
    return twins
