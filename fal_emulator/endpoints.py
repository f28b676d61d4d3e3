"""Endpoint ids and the URLs that name a request (provider-protocol 1.3)."""

import re
from dataclasses import dataclass

NAMESPACES = frozenset({"workflows", "comfy"})
_LEGACY = re.compile(r"^(\d+)-([A-Za-z0-9_-]+)$")

QUEUE_HOST = "queue.fal.run"
MEDIA_HOST = "v3b.fal.media"
REAL = "fal"  # origin of requests that came in under fal's own host names


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`owner/app[/sub/path]`: submit uses all of it, status, result and cancel only the application."""

    app_id: str
    path: str

    @property
    def id(self) -> str:
        """As it stands in a URL."""
        return f"{self.app_id}/{self.path}" if self.path else self.app_id


def parse(text: str) -> Endpoint | None:
    """Split an endpoint id; None when there is no owner and application in it."""
    parts = [part for part in text.split("/") if part]
    if parts and (legacy := _LEGACY.match(parts[0])):
        parts[:1] = [legacy[1], legacy[2]]
    size = 3 if parts and parts[0] in NAMESPACES else 2
    if len(parts) < size:
        return None
    return Endpoint("/".join(parts[:size]), "/".join(parts[size:]))


def queue_base(origin: str) -> str:
    """Where the queue's URLs point for a client that came from `origin`."""
    return f"https://{QUEUE_HOST}" if origin == REAL else origin


def media_base(origin: str) -> str:
    """Where the URLs of files point for a client that came from `origin`."""
    return f"https://{MEDIA_HOST}" if origin == REAL else origin


def request_urls(origin: str, app_id: str, request_id: str) -> dict[str, str]:
    """The three URLs of a request, in the short form that both official clients build themselves."""
    base = f"{queue_base(origin)}/{app_id}/requests/{request_id}"
    return {"response_url": base, "status_url": f"{base}/status", "cancel_url": f"{base}/cancel"}
