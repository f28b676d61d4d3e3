"""Which faults a run injects, how often and when, and whom it kills; all of it follows from the seed."""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from cli.stack.processes import LOCAL_WORKERS

FAULTS: dict[str, float] = {
    # submit: 37 % in all
    "refuse_500": 0.02,
    "nginx_502_before": 0.02,
    "reset_before_accept": 0.03,
    "busy_429": 0.003,
    "locked_403": 0.003,
    "reset_after_accept": 0.10,
    "hang_after_accept": 0.01,
    "nginx_502_after": 0.05,
    "broken_json": 0.03,
    "missing_fields": 0.03,
    "webhook_before_reply": 0.07,
    # callbacks: 34 % in all
    "drop_webhook": 0.12,
    "duplicate_webhook": 0.06,
    "delay_webhook": 0.04,
    "reorder_webhook": 0.02,
    "wrong_key": 0.02,
    "stale_timestamp": 0.02,
    "tampered_body": 0.02,
    "other_user": 0.01,
    "null_payload": 0.02,
    "null_error": 0.01,
    "mismatched_id": 0.01,
    # questions
    "status_500": 0.05,
    "status_404": 0.02,
    "result_500": 0.05,
    "result_404": 0.02,
    # per page of the listing, of which one answer takes dozens
    "listing_401": 0.003,
    "listing_403": 0.002,
    "listing_404": 0.002,
    "listing_500": 0.003,
    "slow_listing": 0.003,
    # what becomes of the job
    "content_policy_violation": 0.02,
    "internal_server_error": 0.03,
    "downstream_service_error": 0.02,
    "generation_timeout": 0.01,
    "file_download_error": 0.01,
    "internal_retry": 0.02,
    "no_images": 0.005,
    "fewer_images": 0.02,
    "bare_images": 0.02,
    "wrong_size": 0.003,
    "one_wrong_size": 0.01,
    # files
    "cdn_404": 0.03,
    "cdn_403": 0.02,
    "cdn_truncated": 0.03,
    "cdn_html": 0.02,
    "cdn_corrupt": 0.02,
    "cdn_wrong_type": 0.02,
    "cdn_redirect": 0.03,
}
"""Kind of the emulator -> how often, between 0 and 1."""

SUBMIT_FAULTS = tuple(FAULTS)[:11]
CALLBACK_FAULTS = tuple(FAULTS)[11:22]


class Phase(NamedTuple):
    """A while in which something is worse than at other times; a wave of batches is handed in at its beginning."""

    name: str
    seconds: float
    """How long it is worse, in a long run; `SHORTER` times that in a short one."""
    faults: Mapping[str, float | str] = {}
    """Beside and instead of the usual ones."""
    storage_fails: bool = False
    """It fails from the first of such phases in a row to the end of the last."""
    flood: bool = False
    """Another program makes the listing long meanwhile."""


PHASES = (
    Phase("everything a little", 8),
    Phase("replies and callbacks lost", 10, {"reset_after_accept": 0.9, "drop_webhook": 1.0}, flood=True),
    Phase("replies lost", 15, {"reset_after_accept": 0.95, "drop_webhook": 0.0}, storage_fails=True),
    Phase("model incident", 15, {"downstream_service_unavailable": 1.0}, storage_fails=True),
    Phase(
        "calls hang",
        20,
        {
            "hang_after_accept": "0.05@12",
            "slow_status": "0.05@12",
            "slow_result": "0.05@12",
            "slow_listing": "0.05@12",
            "cdn_slow": "0.05@20",
        },
        storage_fails=True,
    ),
    Phase("everything a little, again", 8),
)
SHORTER = 0.32
"""A short run's share of those seconds: 16 s without storage are still longer than eight tries of an image."""

_WEIGHTS: dict[str, int] = {
    "submit": 8,
    "download": 5,
    "poll": 4,
    "upkeep": 6,
    "intake": 3,
    "intake_worker": 3,
    "beat": 2,
    "receiver": 5,
    "redis": 1,
    "flush": 2,
    "postgres": 1,
    "supervisor": 0,
}
VICTIMS = _WEIGHTS | {worker: 3 for worker in LOCAL_WORKERS if worker not in _WEIGHTS}
"""Who is killed, and how often relative to the others; `flush` empties Redis instead. A test holds it against what the
local stack starts."""


@dataclass(frozen=True)
class Plan:
    """Everything a seed decides."""

    seed: int
    random: Random

    def dice(self, purpose: str) -> Random:
        """Chance of its own for one purpose, so that threads do not draw from one another's."""
        return Random(f"{self.seed}:{purpose}")

    def victim(self) -> str:
        """Who is next."""
        return self.random.choices(list(VICTIMS), weights=list(VICTIMS.values()))[0]

    def pause(self) -> float:
        """Seconds until then."""
        return self.random.uniform(0.3, 3.5)


def make_plan(seed: int) -> Plan:
    """The plan of a seed."""
    return Plan(seed, Random(seed))
