"""Which faults a run injects, and how often; all of it follows from the seed."""

import base64
import io
import random
from dataclasses import dataclass

from PIL import Image

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

VICTIMS: dict[str, int] = {
    "submit": 8,
    "download": 5,
    "poll": 4,
    "settle": 4,
    "beat": 2,
    "receiver": 5,
    "redis": 1,
    "flush": 2,
    "postgres": 1,
}
"""Who is killed, and how often relative to the others; `flush` empties Redis instead."""


@dataclass(frozen=True)
class Plan:
    """Everything a seed decides."""

    seed: int
    random: random.Random

    def images(self, number: int) -> int:
        """How many pictures an edit asks for: mostly one."""
        return 1 + (number * 7919 + self.seed) % 5 // 4

    def picture(self) -> str:
        """The one input picture, as a data URI."""
        buffer = io.BytesIO()
        Image.radial_gradient("L").resize((64, 64)).save(buffer, "JPEG")
        return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()

    def victim(self) -> str:
        """Who is next."""
        return self.random.choices(list(VICTIMS), weights=list(VICTIMS.values()))[0]

    def pause(self) -> float:
        """Seconds until then."""
        return self.random.uniform(0.3, 3.5)


def make_plan(seed: int) -> Plan:
    """The plan of a seed."""
    return Plan(seed, random.Random(seed))
