"""What the receiver is told through the environment.

The descriptions are the source of the settings table in the documentation. The receiver needs no broker, no
store and no API key, so it does not even read them.
"""

from typing import Any

from pydantic import Field

from core.settings import BaseURL, DatabaseSettings, NetworkSettings, PolicySettings, TracingSettings


def _key_set(data: dict[str, Any]) -> str:
    return f"{data['fal_rest_url']}/.well-known/jwks.json"


class ReceiverSettings(DatabaseSettings, PolicySettings, NetworkSettings, TracingSettings):
    """Everything the receiver needs to know."""

    fal_rest_url: BaseURL = Field("https://rest.fal.ai", description="the provider's storage tokens and signing keys")
    fal_jwks_url: BaseURL = Field(
        default_factory=_key_set,
        description="the provider's signing keys; unless set, `FAL_REST_URL` + `/.well-known/jwks.json`",
    )
    callback_max_bytes: int = Field(4 * 1024 * 1024, ge=1, description="bytes one callback may have; more: 413")
    bind_host: str = Field("127.0.0.1", description="the address on which the Flask applications listen")
    receiver_port: int = Field(8000, ge=1, le=65535, description="the receiver's port")
