"""The provider's own list of finished requests: the last place where an unheard-of submit can be found.

It shows ended requests only, and only what the account keeps (fal-protocol 7.2), so "not listed" proves nothing
before the proven deadline. The key may not be allowed to read it; then it is simply no help.
"""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

from models.verdict import Kind, Verdict, read_result
from worker.platform import PlatformAPI

PAGE = 100
PAGES_MAX = 50
"""Pages read for one question: five thousand requests around the time of a submit are more than an account makes."""


class Listed(NamedTuple):
    """One finished request."""

    request_id: str
    seed: int | None
    prompt: str | None
    verdict: Verdict


class Listing:
    """A client of the by-endpoint listing for one account."""

    def __init__(self, api_url: str, key: str) -> None:
        self._platform = PlatformAPI(api_url, key)

    def since(self, endpoint: str, start: datetime) -> Iterator[Listed]:
        """Everything finished since `start`, the latest first.

        Raises:
            Gone: the key may not read the listing.
            TryLater: no usable answer came.
        """
        cursor: str | None = None
        for _ in range(PAGES_MAX):
            page = self._page(endpoint, {"start": start.isoformat(), **({"cursor": cursor} if cursor else {})})
            yield from map(_listed, page.get("items") or ())
            cursor = page.get("next_cursor")
            if not cursor:
                return

    def one(self, endpoint: str, request_id: str) -> Verdict | None:
        """The verdict of one request, or None where the list does not tell.

        Raises:
            Gone, TryLater: as for `since`.
        """
        page = self._page(endpoint, {"request_id": request_id})
        found = [item for item in map(_listed, page.get("items") or ()) if item.request_id == request_id]
        return found[0].verdict if found and found[0].verdict.kind is not Kind.UNFETCHED else None

    def _page(self, endpoint: str, question: dict[str, str]) -> dict[str, Any]:
        query = {"endpoint_id": endpoint, "expand": "payloads", "limit": str(PAGE), **question}
        return self._platform.get("/v1/models/requests/by-endpoint", query, items="items")


def _listed(item: Any) -> Listed:
    """One entry; what is missing or odd in it only makes it match nothing."""
    entry = item if isinstance(item, dict) else {}
    given = entry.get("json_input")
    arguments = given if isinstance(given, dict) else {}
    seed, prompt, status = arguments.get("seed"), arguments.get("prompt"), entry.get("status_code")
    output = json.dumps(entry.get("json_output")).encode()
    return Listed(
        request_id=str(entry.get("request_id") or ""),
        seed=seed if isinstance(seed, int) else None,
        prompt=prompt if isinstance(prompt, str) else None,
        verdict=read_result(status, output) if isinstance(status, int) else Verdict(Kind.UNFETCHED),
    )
