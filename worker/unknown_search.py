"""Reading the provider's listing for unknown submissions: which requests it shows, and how far it was read."""

import time
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from core.errors import Gone, TryLater
from models.claims import DueUnknown
from provider.listing import SAME_MOMENT, Listed, Listing
from worker.settings import WorkerSettings

SLICE_SECONDS = 10.0
"""Seconds for which the listing is read at one time; then it is the others' turn, and reading goes on from there."""
CLOCKS_DIFFER_BY = timedelta(minutes=15)
"""Between the provider's machines and our database, at most; and how late a request may be listed."""


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


def ended_after(due: DueUnknown) -> datetime:
    """When its request can have ended, at the earliest."""
    return due.posted_at - CLOCKS_DIFFER_BY


def ended_before(due: DueUnknown, settings: WorkerSettings) -> datetime:
    """When its request has ended, and is listed, at the latest, also where the settings allowed it more time then."""
    return due.posted_at + timedelta(seconds=max(settings.unknown_deadline, due.allowed)) + CLOCKS_DIFFER_BY


def search_listing(
    listing: Listing, unknown: Sequence[DueUnknown], wanted: set[str], settings: WorkerSettings, stop: float
) -> Search:
    """Read the listing down from where these submissions have not read it yet, until `stop` (`time.monotonic`).

    At its end what has ended since reading began is read too: a request may run past its allowance.
    """
    start = min(ended_after(due) for due in unknown)
    latest = max(ended_before(due, settings) for due in unknown)
    end = down_to = max(due.searched_to or latest for due in unknown)
    newest = min((due.searched_from for due in unknown if due.searched_from), default=None)
    found: list[Listed] = []
    try:
        for page in listing.pages(unknown[0].endpoint, start, end):
            newest = newest or max((item.ended_at for item in page.items if item.ended_at), default=start)
            found += select_inputs(page.items, wanted)
            if page.last:
                for ended_since in listing.pages(unknown[0].endpoint, newest - SAME_MOMENT, latest):
                    found += select_inputs(ended_since.items, wanted)
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


def select_inputs(items: Iterable[Listed], wanted: set[str]) -> list[Listed]:
    """Those that may be wanted: by the identity of their input, or because it is hidden."""
    return [item for item in items if item.identity is None or item.identity in wanted]


def is_read_to_its_end(due: DueUnknown, search: Search) -> bool:
    """Whether the listing was read past all that its request may be."""
    return search.down_to is None or search.down_to <= ended_after(due)


def is_complete(due: DueUnknown, search: Search, hidden: bool) -> bool:
    """Whether the whole of its time was read, in this turn or with those before, and every input of it was shown."""
    return is_read_to_its_end(due, search) and not hidden and (due.searched_to is None or not due.denials)
