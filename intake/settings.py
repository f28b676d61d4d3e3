"""What the intake API is told through the environment.

The descriptions are the source of the settings table in the documentation. It needs no broker and no key of the
provider, so it does not even read them.
"""

from pydantic import Field, SecretStr, field_validator

from core.settings import (
    DAY,
    DatabaseSettings,
    KeptFor,
    LinkSettings,
    MediaSettings,
    NetworkSettings,
    PriceSettings,
    TracingSettings,
)
from intake.priorities import read_bounds


class IntakeSettings(DatabaseSettings, PriceSettings, LinkSettings, MediaSettings, NetworkSettings, TracingSettings):
    """Everything the intake API needs to know."""

    bind_host: str = Field("127.0.0.1", description="the address on which the Flask applications listen")
    intake_port: int = Field(8001, ge=1, le=65535, description="the intake API's port")
    darkroom_api_keys: SecretStr | None = Field(
        None,
        description="comma list of `name:key`, who may use the intake API, each key 12 characters or more; "
        "required unless `BIND_HOST` is loopback",
    )
    darkroom_operator_keys: SecretStr | None = Field(
        None,
        description="the same, for operators: whoever signs in to the page with one sees, and may steer, the batches "
        "of all clients; to the API such a key is a client like any other",
    )
    intake_priority_max: str = Field(
        "100",
        description="the highest priority that clients of the intake API may give: a number, or a comma list of "
        "`name:number` with a plain number for everyone else",
    )
    intake_max_bytes: int = Field(256 * 1024 * 1024, ge=1, description="bytes one request may have; more: 413")
    keep_input_files: KeptFor = Field(
        30 * DAY,
        description="files handed in by `POST /v1/files`, from when they were last handed in or named by a batch; "
        "`forever`, or seconds",
    )
    intake_rate: str = Field("600/minute", description="requests of one client to the intake API; more: 429")

    @field_validator("intake_priority_max")
    @classmethod
    def _check_priorities(cls, text: str) -> str:
        read_bounds(text)
        return text

    @field_validator("intake_rate")
    @classmethod
    def _check_rate(cls, rate: str) -> str:
        from limits import parse  # here, because it brings much along, and not everyone reads these settings

        try:
            parse(rate)
        except ValueError:
            raise ValueError("it must be like 600/minute") from None
        return rate
