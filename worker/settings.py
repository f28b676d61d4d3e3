"""What the workers are told through the environment: the provider, the broker, the store, and every clock.

The descriptions are the source of the settings table in the documentation. It refuses to reach for anything:
it opens no connection and creates no folder.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from core.settings import (
    DAY,
    INTAKE_URL,
    BaseURL,
    BrokerURL,
    DatabaseSettings,
    KeptFor,
    MediaSettings,
    PolicySettings,
    PriceSettings,
    Seconds,
    Settings,
    StorageSettings,
    TracingSettings,
    split_commas,
)
from provider.settings import ProviderSettings
from worker.webhook_signing import read_secrets

POLL_AFTER, POLL_EVERY = 60.0, 15.0
"""Seconds; callbacks come first, polling catches what they lose."""
POLL_ALONE = 2.0
"""Seconds; without a public URL no callback can come and polling carries everything."""


def _poll_after(data: dict[str, Any]) -> float:
    return POLL_AFTER if data["public_url"] else POLL_ALONE


def _poll_every(data: dict[str, Any]) -> float:
    return POLL_EVERY if data["public_url"] else POLL_ALONE


class RetentionSettings(Settings):
    """How long what is over and done is kept."""

    keep_callback_bodies: KeptFor = Field(
        30 * DAY,
        description="bodies and headers of callbacks, from when they came; `forever`, or seconds. Afterwards "
        "`darkroom replay` cannot take them again",
    )
    keep_batches: KeptFor = Field(
        None,
        description="edits, submissions, callbacks and image rows of finished batches, and callbacks of no batch; "
        "unless set, for ever. The batch keeps its row, counters and costs; stored images have `KEEP_IMAGES`",
    )
    keep_images: KeptFor = Field(
        None,
        description="stored images, from the end of their batch, which may say otherwise (`output_expires_after`); "
        "unless set, for ever. Rows of a batch are kept until its images are gone",
    )
    fal_keep_requests: KeptFor = Field(
        None,
        description="what the provider keeps of our requests, from the end of their batch: inputs, results, images; it "
        "is told to delete them then, which wants an admin key; unless set, its own rule holds",
    )
    keep_uploads: KeptFor = Field(
        DAY, description="what is known of an uploaded input file after the provider has deleted it; or `forever`"
    )
    keep_moments: KeptFor = Field(
        90 * DAY,
        description="what happened by minute, and latencies by hour; older ones are added up. `forever`, or seconds",
    )
    keep_quarantine: KeptFor = Field(
        None, description="refused files under `quarantine/`, which are deleted then; unless set, for ever"
    )


class BrokerSettings(Settings):
    """Where the nudges go."""

    redis_url: BrokerURL = Field(
        description="the broker, `redis://host:port/0`; see docs/deploy.md for TLS, users and sockets"
    )


class BeatSettings(DatabaseSettings, BrokerSettings):
    """What the clock needs to know: where due work stands, and whom to tell."""


class WorkerSettings(
    ProviderSettings,
    StorageSettings,
    MediaSettings,
    DatabaseSettings,
    PolicySettings,
    PriceSettings,
    BrokerSettings,
    RetentionSettings,
    TracingSettings,
):
    """Everything a worker needs to know."""

    public_url: BaseURL | None = Field(
        None, description="where the provider reaches the receiver; without it polling alone carries everything"
    )
    intake_url: BaseURL | None = Field(None, description=INTAKE_URL)
    max_in_flight: int = Field(40, ge=1, description="the account's window: edits at the provider at one time")
    delivery_allowance: Seconds = Field(600, description="how long a callback may take to arrive")
    on_unknown: Literal["resubmit", "park"] = Field(
        "resubmit", description="what becomes of a submit whose outcome stayed unknown until it was proven dead"
    )
    poll_after: Seconds = Field(
        default_factory=_poll_after,
        description="from submission to the first poll; unless set, 60, or 2 where there is no `PUBLIC_URL`",
    )
    poll_every: Seconds = Field(
        default_factory=_poll_every,
        description="between polls; unless set, 15, or 2 where there is no `PUBLIC_URL`",
    )
    result_retention: Seconds = Field(
        360,
        description="the shortest time the provider keeps a result; it is held to be gone once the queue has answered "
        "404 for so long, counted from when it must have ended",
    )
    claim_lease: Seconds = Field(
        45, description="how long a claim holds unless it is renewed; work of a worker that died waits so long"
    )

    submit_threads: int = Field(64, ge=1, le=512, description="POSTs under way at one time, per submit process")
    download_threads: int = Field(16, ge=1, le=256, description="images under way at one time, per download process")

    input_delivery: Literal["upload", "presign"] = Field(
        "upload",
        description="how the provider gets inputs that are objects of the store: `upload`, to its own storage; "
        "`presign`, by a URL into the store that needs no key, where `STORAGE_URL` is `s3://`, `gs://` or `az://`",
    )
    input_link_lifetime: Seconds = Field(DAY, description="how long such a URL leads there; at most 7 days", le=7 * DAY)

    notify_secret: SecretStr | None = Field(
        None,
        description="comma list of `client:whsec_…`: what each client's notifications are signed with, the newest "
        "first; a plain `whsec_…` is for every client that has none; without one they wait; `darkroom up` makes one",
    )
    notify_private_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_commas)] = Field(
        (), description="comma list: hosts that may be notified although their address is a private one"
    )

    darkroom_crash_at: str | None = Field(
        None, description="for tests only, `point:file,…`: the worker that reaches a point kills itself, once"
    )

    @field_validator("input_delivery")
    @classmethod
    def _can_be_delivered(cls, delivery: str, info: ValidationInfo) -> str:
        if delivery == "presign" and str(info.data.get("storage_url", "")).startswith("file://"):
            raise ValueError("a folder has no URLs that the provider could fetch: set upload, or another STORAGE_URL")
        return delivery

    @field_validator("input_link_lifetime")
    @classmethod
    def _lasts_long_enough(cls, lifetime: float, info: ValidationInfo) -> float:
        least = info.data.get("submit_start_timeout", 0.0) + info.data.get("run_allowance", 0.0)
        if info.data.get("input_delivery") == "presign" and lifetime < 2 * least:
            raise ValueError(f"it must be at least {2 * least:g}: twice SUBMIT_START_TIMEOUT and RUN_ALLOWANCE")
        return lifetime

    @field_validator("notify_secret")
    @classmethod
    def _well_formed(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None:
            read_secrets(secret.get_secret_value())
        return secret

    @property
    def notify_secrets(self) -> dict[str, tuple[bytes, ...]]:
        """What notifications are signed with, by client, the first one first; none where there is none."""
        return read_secrets(self.notify_secret.get_secret_value()) if self.notify_secret else {}

    @property
    def input_needed_for(self) -> float:
        """Seconds from a POST until the provider has certainly fetched its inputs."""
        return self.submit_start_timeout + self.run_allowance

    @property
    def unknown_deadline(self) -> float:
        """The deadline of an unknown submit, in seconds: by then an accepted one has been heard of."""
        return self.submit_start_timeout + self.run_allowance + self.delivery_allowance
