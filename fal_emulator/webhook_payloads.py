"""Writes what is delivered: the fields of a webhook, their exact bytes and the headers that sign them.

provider-protocol 4.1 and 4.2. The body is made from the ledger for every attempt, so nothing large waits in memory; a
fault that spoils an attempt spoils it here.
"""

import json
import time
import uuid
from collections.abc import Callable

from nacl.signing import SigningKey

from .fault_plan import Injection
from .job import Job
from .ledger import Ledger
from .options import Options
from .signing import sign
from .signing_keys import SigningKeys

SOMEBODY_ELSE = "github|99999999"


class WebhookPayloads:
    """Writes body and headers of each webhook attempt."""

    def __init__(self, ledger: Ledger, keys: SigningKeys, options: Callable[[], Options]) -> None:
        self._ledger = ledger
        self._keys = keys
        self._options = options

    def write(self, job: Job, fault: Injection | None) -> tuple[bytes, dict[str, str]]:
        """Body and headers of one attempt, spoilt as the fault wants it."""
        kind = fault.kind if fault else ""
        content = self._content(job, kind)
        request_id, user_id, key = job.request_id, self._options().user_id, self._key(kind)
        if kind in ("foreign_id", "mismatched_id"):
            content["request_id"] = content["gateway_request_id"] = str(uuid.uuid4())
        if kind == "foreign_id":
            request_id = str(content["request_id"])
        if kind == "other_user":
            user_id = SOMEBODY_ELSE
        if fault and kind == "huge_body":
            content["padding"] = "x" * int(fault.value)
        body = json.dumps(content, sort_keys=True).encode()
        stale = int(fault.value) if fault and kind == "stale_timestamp" else 0
        headers = sign(key, request_id, user_id, self._timestamp(job) - stale, body)
        if kind == "tampered_body":
            body = body.replace(b'"status": "', b'"tampered": 1, "status": "', 1)
        return body, {"Content-Type": "application/json", **headers}

    def _key(self, kind: str) -> SigningKey:
        if kind == "wrong_key":
            return SigningKey.generate()
        if kind == "rotated_key":
            self._keys.rotate(keep_old=False)
        return self._keys.current

    def _timestamp(self, job: Job) -> int:
        """Now, or the moment of the first attempt: it is unknown whether fal signs retries afresh."""
        if job.webhook_signed_at is None or self._options().webhook_fresh_timestamps:
            job.webhook_signed_at = int(time.time())
        return job.webhook_signed_at

    def _content(self, job: Job, kind: str) -> dict[str, object]:
        """The fields of the delivery (provider-protocol 4.1)."""
        payload = json.loads(self._ledger.output(job) or b"null")
        content: dict[str, object] = {
            "error": None,
            "gateway_request_id": job.gateway_request_id,
            "payload": payload,
            "request_id": job.request_id,
            "status": "OK",
        }
        if job.status != 200:
            # both spellings were seen live; neither is a contract
            word = "Unexpected" if job.status == 404 else "Invalid"
            content.update(error=f"{word} status code: {job.status}", status="ERROR")
        too_large = 0 < self._options().webhook_max_body < job.result_bytes
        if kind == "payload_error" or too_large:
            content.update(payload=None, payload_error="Response payload is not JSON serializable. Fetch the result.")
        elif kind == "null_payload":
            content.update(payload=None)
        elif kind == "null_error":
            content.update(payload=None, error="Internal server error", status="ERROR")
        return content
