"""Every knob of the emulator, as one frozen value; the command line is built from these fields.

A knob exists either because a test needs to turn it or because fal's own behaviour is unknown there
(provider-protocol, end of section 13); the default is then the reading that is harder on a client.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

DAY = 86_400.0
STATE_DIR = Path(".fal-emulator")


def knob(default: Any, text: str, *, choices: tuple[Any, ...] | None = None, live: bool = False) -> Any:
    """A field with its help text; `live` ones may be changed while the emulator runs."""
    return field(default=default, metadata={"help": text, "choices": choices, "live": live})


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How this emulator behaves. Durations are real seconds unless `time_scale` is named beside them."""

    host: str = knob("127.0.0.1", "address to listen on")
    port: int = knob(8100, "port to listen on; 0 takes any free one")
    state_dir: Path = field(
        default=STATE_DIR, metadata={"help": "folder of the ledger, the keys and the files", "choices": None}
    )
    public_url: str | None = knob(None, "base URL to name in replies, instead of the Host of each request")

    tls_cert: str | None = knob(None, "certificate chain (PEM): listen for https instead of http")
    tls_key: str | None = knob(None, "its private key (PEM)")

    key: str | None = knob(None, "the one accepted FAL_KEY; without it any id:secret is accepted")
    admin_key: str | None = knob(None, "the only key for fal's admin routes; without it any accepted key")
    user_id: str = knob("github|10000001", "account named in X-Fal-Webhook-User-Id")

    credits: float = knob(1e6, "dollars on the account; when they are spent it is locked (403)", live=True)
    concurrency: int = knob(2, "how many requests are IN_PROGRESS at once", live=True)
    latency: float = knob(2.0, "seconds of 'inference' per request", live=True)
    jitter: float = knob(0.25, "share by which the latency varies, 0 to 1", live=True)
    time_scale: float = knob(1.0, "how many times faster retention, file expiry and webhook pauses run")

    image_mode: str = knob("full", "full edits the inputs; plain is for load", choices=("full", "plain"), live=True)
    image_format: str = knob("png", "encoding of the images", choices=("png", "jpeg"), live=True)
    render_threads: int = knob(2, "images drawn at the same time")
    max_input_bytes: int = knob(30 * 2**20, "largest input image; beyond it 422 file_too_large")
    max_side: int = knob(4096, "longest side that image_size may ask for")
    input_timeout: float = knob(20.0, "seconds to fetch one input image")

    allow_private_webhooks: bool = knob(True, "deliver to loopback and private addresses (the real fal never does)")
    webhook_on_cancel: bool = knob(False, "send a webhook for a cancelled request (unknown for fal)")
    webhook_fresh_timestamps: bool = knob(True, "sign every retry with a new timestamp (unknown for fal)")
    webhook_backoff: float = knob(1.0, "pause before the first retry, run through time_scale")
    webhook_backoff_factor: float = knob(2.0, "growth of that pause from retry to retry")
    webhook_max_retries: int = knob(31, "retries after the first attempt")
    webhook_first_timeout: float = knob(15.0, "seconds for the receiver to answer the first attempt")
    webhook_retry_timeout: float = knob(120.0, "seconds for the receiver to answer a retry")
    webhook_max_body: int = knob(0, "larger payloads are replaced by a payload_error; 0 is no limit")
    padded_jwks: bool = knob(True, "publish the key with base64 padding, as the live service does")

    submit_status: int = knob(200, "HTTP status of an accepted submit")
    validate_at_submit: bool = knob(False, "answer invalid input with 422 at submit instead of as the outcome")
    status_error_for_422: bool = knob(False, "status of a model-level failure carries error and error_type")
    cancel_queued_status: int = knob(200, "reply to the cancel of a queued request", choices=(200, 202))
    over_fifteen: str = knob("refuse", "more than 15 inputs and outputs", choices=("refuse", "clamp"))
    charge_422: bool = knob(False, "charge refused inputs too (fal may)")
    retry_after: int = knob(0, "Retry-After of a 429; 0 sends none")
    max_body: int = knob(112 * 2**20, "largest JSON body or upload chunk, in bytes")

    store_io: bool = knob(True, "keep request and response payloads and list them in by-endpoint")
    result_from_storage: bool = knob(False, "results stay readable while their payload is stored (30 days)")
    expired_detail: str = knob("Request not found", "detail of the 404 for an expired result")
    result_retention: float = knob(3600.0, "seconds a result stays readable, run through time_scale")
    large_result_retention: float = knob(360.0, "the same for results of 10 KB or more")
    media_retention: float = knob(7 * DAY, "seconds a file stays readable, run through time_scale; 0 is for ever")
    listing_delay: float = knob(0.0, "seconds until a finished request shows up in by-endpoint")
    listing_page: int = knob(100, "most requests on a page of by-endpoint, whatever limit asks for", live=True)
    listing_status: int = knob(
        200,
        "HTTP status of by-endpoint: 403 is a key that may not read it",
        choices=(200, 401, 403, 404, 503),
        live=True,
    )
    list_in_flight: bool = knob(False, "by-endpoint lists unfinished requests too (unknown for fal)")

    fault: Mapping[str, Any] = field(
        default_factory=dict,
        metadata={"help": "KIND=RATE[*TIMES][@VALUE], may be repeated; --list-faults shows the kinds"},
    )
    fault_seed: int = knob(1, "seed of the fault plan")

    def __post_init__(self) -> None:
        """Refuse what cannot work, with a sentence."""
        for each in fields(self):
            choices = each.metadata.get("choices")
            if choices and getattr(self, each.name) not in choices:
                raise ValueError(f"{each.name} must be one of: {', '.join(map(str, choices))}")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together")
        if self.time_scale <= 0:
            raise ValueError("time_scale must be greater than 0")
        if not 0 <= self.jitter <= 1:
            raise ValueError("jitter must lie between 0 and 1")
        if self.concurrency < 0 or self.latency < 0:
            raise ValueError("concurrency and latency cannot be negative")
        if self.listing_page < 1:
            raise ValueError("listing_page must be at least 1")
        if not 200 <= self.submit_status <= 299:
            raise ValueError("submit_status must be a 2xx code")

    def scaled(self, seconds: float) -> float:
        """Real seconds that `seconds` of the emulator's clock take."""
        return seconds / self.time_scale
