"""What is asked of the provider beside the edit itself: headers of the paid POST (provider-protocol 3.1)."""

import json
from dataclasses import dataclass
from typing import Literal

Priority = Literal["normal", "low"]


@dataclass(frozen=True, slots=True)
class Preferences:
    """How the provider should treat every request of ours; the defaults are the provider's own."""

    priority: Priority = "normal"
    no_retry: bool = False
    """The provider may not run a request again by itself, so that one request is one run."""
    store_io: bool = True
    """The provider may keep request and answer in the account's history."""
    output_expires_after: float | None = None
    """Seconds until the provider deletes the images that it made; None leaves it to the account."""

    def headers(self) -> dict[str, str]:
        """Only what differs from the provider's defaults."""
        headers: dict[str, str] = {}
        if self.priority != "normal":
            headers["X-Fal-Queue-Priority"] = self.priority
        if self.no_retry:
            headers["X-Fal-No-Retry"] = "1"
        if not self.store_io:
            headers["X-Fal-Store-IO"] = "0"
        if self.output_expires_after is not None:
            seconds = self.output_expires_after
            lifecycle = {"expiration_duration_seconds": int(seconds) if seconds == int(seconds) else seconds}
            headers["X-Fal-Object-Lifecycle-Preference"] = json.dumps(lifecycle)
        return headers
