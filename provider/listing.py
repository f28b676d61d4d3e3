"""The provider's own list of finished requests: the last place where an unheard-of submit can be found.

It shows ended requests only, and only what the account keeps (provider-protocol 7.2), so "not listed" proves nothing
before the unknown deadline. The key may not be allowed to read it; then it is simply no help. It is read from the
latest end downwards, so that whoever has to stop can go on from there another time.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from core.errors import TooLarge, TryLater
from models.seedream import has_unknown_fields, identify_input
from models.verdict import Kind, Verdict, read_result
from provider.platform import PAGE_MAX_BYTES, PlatformAPI

PAGE = 100
"""Requests a page, as many as the provider gives; fewer where their inputs are large."""
SEVERAL_MAX_BYTES = 16 * 1024 * 1024
"""Of a page of more than one request: inputs may be data URIs of megabytes, and a page is held in memory."""
SAME_MOMENT = timedelta(seconds=1)
"""By how much two neighbours may be out of order: rounding."""


class Listed(NamedTuple):
    """One finished request."""

    request_id: str
    """Empty where it is not shown as the provider documents it."""
    identity: str | None
    """Of its input (`seedream.identify_input`); None where the account did not keep it."""
    certain: bool
    """Id and input are shown, and nothing in the input that we would not have sent."""
    status: int | None
    sent_at: datetime | None
    ended_at: datetime | None


class Page(NamedTuple):
    """A part of the list."""

    items: list[Listed]
    down_to: datetime
    """Whatever ended later than this, up to the end of the time asked about, has been listed by now."""
    last: bool


class Listing:
    """A client of the by-endpoint listing for one account."""

    def __init__(self, api_url: str, key: str) -> None:
        self._platform = PlatformAPI(api_url, key)

    def pages(self, endpoint: str, start: datetime, end: datetime) -> Iterator[Page]:
        """Everything that ended from `start` to `end`, the latest first; to the last page, or it raises.

        Raises:
            Gone: the key may not read the listing.
            TryLater: no usable answer came, or not in the promised order.
        """
        question = {"start": start.isoformat(), "end": end.isoformat(), "sort_by": "ended_at"}
        cursor: str | None = None
        limit, down_to = PAGE, end
        while True:
            try:
                page = self._page(endpoint, {**question, **({"cursor": cursor} if cursor else {})}, limit)
            except TooLarge:
                if limit == 1:
                    raise
                limit = max(1, limit // 4)
                continue
            items = [_listed(item) for item in page["items"]]
            down_to = _lowest(items, down_to)
            following = page.get("next_cursor")
            if page.get("has_more") is not False and (not following or following == cursor):
                raise TryLater("the listing has more, or does not say that it has not, and no way on")
            yield Page(items, down_to, not following)
            if not following:
                return
            cursor = str(following)

    def one(self, endpoint: str, request_id: str) -> Verdict | None:
        """The verdict of one request, or None where the list does not tell.

        Raises:
            Gone, TryLater: as for `pages`.
        """
        page = self._page(endpoint, {"request_id": request_id}, 1)
        for item in page["items"]:
            if isinstance(item, dict) and item.get("request_id") == request_id:
                verdict = _verdict(item)
                return None if verdict.kind is Kind.UNFETCHED else verdict
        return None

    def _page(self, endpoint: str, question: dict[str, str], items: int) -> dict[str, Any]:
        query = {"endpoint_id": endpoint, "expand": "payloads", "limit": str(items), **question}
        limit = PAGE_MAX_BYTES if items == 1 else SEVERAL_MAX_BYTES
        return self._platform.get("/v1/models/requests/by-endpoint", query, items="items", limit=limit)


def _lowest(items: list[Listed], down_to: datetime) -> datetime:
    """How far down these go; out of order, they would prove nothing about what lies between."""
    for item in items:
        if item.ended_at is not None:
            if item.ended_at > down_to + SAME_MOMENT:
                raise TryLater("the listing is not in the order of end times")
            down_to = min(down_to, item.ended_at)
    return down_to


def _listed(item: Any) -> Listed:
    """One entry; what is missing or odd in it makes it match nothing, and prove nothing either."""
    entry = item if isinstance(item, dict) else {}
    shown, status, request_id = entry.get("json_input"), entry.get("status_code"), entry.get("request_id")
    given = shown if isinstance(shown, dict) and shown else None
    named = isinstance(request_id, str) and bool(request_id)
    return Listed(
        request_id=str(request_id) if named else "",
        identity=identify_input(given) if given else None,
        certain=named and given is not None and not has_unknown_fields(given),
        status=status if isinstance(status, int) else None,
        sent_at=_time(entry.get("sent_at")),
        ended_at=_time(entry.get("ended_at")),
    )


def _verdict(entry: dict[str, Any]) -> Verdict:
    status = entry.get("status_code")
    if not isinstance(status, int):
        return Verdict(Kind.UNFETCHED)
    return read_result(status, json.dumps(entry.get("json_output")).encode())


def _time(text: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
