"""What the client of the provider is told through the environment. It opens no connection."""

from pydantic import Field, SecretStr

from core.errors import SettingsError
from core.settings import BaseURL, NetworkSettings, OutputSettings, Seconds
from provider.preferences import Preferences, Priority


class ProviderSettings(OutputSettings, NetworkSettings):
    """Where the provider is, who we are there, and how it should treat our requests."""

    fal_key: SecretStr | None = Field(None, description="the provider's key; required for the real provider")
    fal_queue_url: BaseURL = Field("https://queue.fal.run", description="the provider's queue")
    fal_rest_url: BaseURL = Field("https://rest.fal.ai", description="the provider's storage tokens and signing keys")
    fal_cdn_url: BaseURL = Field("https://v3.fal.media", description="where input files are uploaded to")
    fal_api_url: BaseURL = Field("https://api.fal.ai", description="the provider's platform API (listings, prices)")
    submit_start_timeout: Seconds = Field(
        600, gt=1, description="how long an accepted edit may wait for its start, sent as `X-Fal-Request-Timeout`"
    )
    run_allowance: Seconds = Field(300, description="the longest an edit runs once it has started")
    fal_queue_priority: Priority = Field(
        "normal",
        description="`low`: the provider lets every other request go first; an edit that does not start within "
        "`SUBMIT_START_TIMEOUT` is tried again",
    )
    fal_no_retry: bool = Field(
        False, description="the provider may not run a request again by itself after a fault of its own machines"
    )
    fal_store_io: bool = Field(
        True,
        description="whether the provider keeps requests and answers in the account's history; without them a lost "
        "submit cannot be found there, and is resubmitted or parked by `ON_UNKNOWN`",
    )

    @property
    def preferences(self) -> Preferences:
        """What is asked of the provider beside the edit itself."""
        return Preferences(
            priority=self.fal_queue_priority,
            no_retry=self.fal_no_retry,
            store_io=self.fal_store_io,
            output_expires_after=self.fal_output_expires_after,
        )

    def required_key(self) -> str:
        """The provider's key, for those who are about to call the provider.

        Raises:
            SettingsError: there is none.
        """
        key = self.fal_key.get_secret_value().strip() if self.fal_key else ""  # pasted keys come with a newline
        if not key:
            raise SettingsError("FAL_KEY is not set; the provider needs it, `darkroom up --emulator` does not.")
        return key
