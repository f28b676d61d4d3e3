"""Settings shared by more than one process, and the manner in which every process reads its own.

Only files named `settings.py` read the environment. A process builds its settings once, when it starts,
with `load`; a wrong value becomes one sentence (SettingsError), never a traceback. `NAME_FILE` may name
a file that holds the value of any secret.
"""

import os
import ssl
from datetime import timedelta
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic.functional_validators import AfterValidator, BeforeValidator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from core.broker_url import read_broker_url
from core.database_url import read_database_url
from core.errors import SettingsError
from core.network import Network
from core.storage_url import expand_home, read_storage_url

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""A duration in seconds; fractions are allowed, so that a test can shrink the clock."""


def _strip_slash(value: object) -> object:
    return value.rstrip("/") if isinstance(value, str) else value


def _known_host(url: str) -> str:
    """What a pattern does not tell: an address in brackets that is none, a port that is no number."""
    parts = urlsplit(url)
    if not parts.hostname or parts.port == 0:
        raise ValueError("it names no host")
    return url


BaseURL = Annotated[
    str,
    BeforeValidator(_strip_slash),
    Field(pattern=r"^https?://[^/\s?#]+[^\s?#]*$"),
    AfterValidator(_known_host),
]
"""An http(s) address to which paths are appended; kept without its last slash."""


def _database_url(url: str) -> str:
    read_database_url(url)
    return url.strip()


DatabaseURL = Annotated[str, AfterValidator(_database_url)]
"""An address that PostgreSQL's own client can read."""


def _broker_url(url: str) -> str:
    read_broker_url(url)
    return url.strip()


BrokerURL = Annotated[str, AfterValidator(_broker_url)]
"""An address of Redis that every library of ours can be led to."""


class _FileSecrets(PydanticBaseSettingsSource):
    """Reads `NAME_FILE` where `NAME` is a secret; an unreadable file is an error, never an empty secret."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        path = os.environ.get(f"{field_name.upper()}_FILE")
        if not path or field.annotation not in (SecretStr, SecretStr | None):
            return None, field_name, False
        try:
            return Path(path).read_text().strip(), field_name, False
        except OSError as error:
            message = f"{field_name.upper()}_FILE names {path}, which cannot be read: {error.strerror}."
            raise SettingsError(message) from None

    def __call__(self) -> dict[str, Any]:
        found = {name: self.get_field_value(field, name)[0] for name, field in self.fields.items()}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def fields(self) -> dict[str, Any]:
        return dict(self.settings_cls.model_fields)


class Settings(BaseSettings):
    """The base of every settings class: environment names are the field names in capitals."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Where a setting comes from: the environment, else the file that its name with `_FILE` names."""
        return init_settings, env_settings, _FileSecrets(settings_cls)


Loaded = TypeVar("Loaded", bound=Settings)


def load(cls: type[Loaded], **overrides: Any) -> Loaded:
    """Read `cls` from the environment; `overrides` win.

    Raises:
        SettingsError: naming every variable that is missing or wrong, in one sentence.
    """
    try:
        return cls(**overrides)
    except ValidationError as error:
        raise SettingsError("; ".join(_faults(error)) + ".") from None


def find_wrong_settings(cls: type[Settings]) -> list[str]:
    """What is missing or wrong of `cls` in the environment, one at a time.

    Raises:
        SettingsError: a file that a setting names cannot be read.
    """
    try:
        cls()
    except ValidationError as error:
        return _faults(error)
    return []


def _faults(error: ValidationError) -> list[str]:
    faults = []
    for fault in error.errors():
        if fault["type"] == "default_factory_not_called":
            continue  # only says that another one is wrong
        name = str(fault["loc"][0]).upper() if fault["loc"] else "settings"
        if fault["type"] == "missing":
            faults.append(f"{name} is not set")
        else:
            faults.append(f"{name} is wrong ({fault['msg'].removeprefix('Value error, ')})")
    return faults


def _proxy(url: str | None) -> str | None:
    """With its scheme, which many leave out; None where it is empty."""
    if url is None or not url.strip():
        return None
    url = url.strip() if "://" in url else f"http://{url.strip()}"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = None
    if not usable or parts.path.strip("/") or parts.query or "#" in url:
        raise ValueError("it must be like http://user:password@proxy:3128")
    return url


def _certificates(path: Path | None) -> Path | None:
    if path is None:
        return None
    path = expand_home(path)
    try:
        ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        raise ValueError(f"{path} holds no certificates in PEM form") from None
    except OSError as error:
        raise ValueError(f"it names {path}, which cannot be read: {error.strerror}") from None
    return path


Proxy = Annotated[str | None, AfterValidator(_proxy)]
"""The address of an HTTP proxy."""
Certificates = Annotated[Path | None, AfterValidator(_certificates)]
"""A file of authorities whose certificates are believed."""


class NetworkSettings(Settings):
    """The way out of this machine: to the provider, its keys and images, to callers, and to the store."""

    https_proxy: Proxy = Field(None, description="the proxy for https addresses, `http://user:password@proxy:3128`")
    http_proxy: Proxy = Field(None, description="the proxy for http addresses")
    no_proxy: str = Field(
        "", description="comma list: names (with all beneath them), addresses and networks that need no proxy"
    )
    requests_ca_bundle: Certificates = Field(
        None, description="a file (PEM) of the authorities that are trusted, in the place of the usual ones"
    )
    ssl_cert_file: Certificates = Field(None, description="the same, where `REQUESTS_CA_BUNDLE` is not set")

    @property
    def network(self) -> Network:
        """All of it in one value."""
        excepted = tuple(entry for entry in self.no_proxy.replace(",", " ").split() if entry)
        authorities = self.requests_ca_bundle or self.ssl_cert_file
        return Network(self.https_proxy, self.http_proxy, excepted, str(authorities) if authorities else None)


def read_network() -> Network:
    """The way out, from the environment.

    Raises:
        SettingsError: a setting of it is wrong.
    """
    return load(NetworkSettings).network


class DatabaseSettings(Settings):
    """Where the truth is kept."""

    database_url: DatabaseURL = Field(
        description="PostgreSQL, `postgresql://user:password@host/name`; see docs/deploy.md for TLS, poolers and others"
    )


Folder = Annotated[Path, AfterValidator(expand_home)]
"""A path that may begin with `~`."""


def _images_folder(data: dict[str, Any]) -> str:
    home: Path = data["darkroom_home"]
    return (home.resolve() / "images").as_uri()


class StorageSettings(Settings):
    """Where the images are kept."""

    darkroom_home: Folder = Field(Path(".darkroom"), description="the folder of everything that is kept locally")
    storage_url: str = Field(
        default_factory=_images_folder,
        description="where images go: a folder, `file://`, `s3://bucket/prefix`, `gs://`, `az://`; "
        "unless set, the folder `images` in `DARKROOM_HOME`",
    )

    @field_validator("storage_url")
    @classmethod
    def _known_store(cls, url: str) -> str:
        return read_storage_url(url)


INTAKE_URL = "where callers reach the intake API; without it a notification names only the path of results"
LONGEST_LINK = 7 * 86_400.0
"""Seconds; S3 and GCS sign for no longer."""


class LinkSettings(StorageSettings):
    """How callers get at stored images."""

    intake_url: BaseURL | None = Field(None, description=INTAKE_URL)
    link_lifetime: Annotated[Seconds, Field(le=LONGEST_LINK)] = Field(
        86_400,
        description="how long a signed link to a stored image can be read, seven days at the most; stores that sign "
        "none are read through the API",
    )


class EndpointSettings(Settings):
    """Where an S3 is that is not Amazon's; the store's client reads these variables, and all its others, by itself."""

    aws_endpoint_url: BaseURL | None = None
    aws_endpoint_url_s3: BaseURL | None = None


REQUEST_TIMEOUT = timedelta(seconds=60)
"""For one request to an object store with its answer: an object in one put, a part of one."""


class AmazonSettings(Settings):
    """Where Amazon's own tools find their credentials; what is not said here the store's client reads by itself."""

    aws_access_key_id: str | None = None
    aws_profile: str | None = None
    aws_shared_credentials_file: Folder = Field(Path("~/.aws/credentials"), validate_default=True)

    @property
    def has_profile_file(self) -> bool:
        """Whether there are profiles."""
        return self.aws_shared_credentials_file.is_file()


def store_options(url: str) -> dict[str, Any]:
    """How an object store's client goes out: its own proxy and authorities, and http where the endpoint says so.

    The endpoints of `az://` and `gs://` are `https` unless somebody wrote `http` on purpose.

    Raises:
        SettingsError: a setting of it is wrong.
    """
    network, endpoints = read_network(), load(EndpointSettings)
    endpoint = endpoints.aws_endpoint_url_s3 or endpoints.aws_endpoint_url
    options: dict[str, Any] = {"timeout": REQUEST_TIMEOUT}
    if not url.startswith("s3://") or (endpoint and endpoint.startswith("http://")):
        options["allow_http"] = True
    if network.ca_file:
        options["root_certificate"] = Path(network.ca_file).read_bytes()
    proxy = network.proxy_for(endpoint or "https://store")
    if proxy:
        options |= {"proxy_url": proxy, "proxy_excludes": ",".join(("localhost", "127.0.0.1", *network.no_proxy))}
    return options


MEDIA_HOSTS = ("v3.fal.media", "v3b.fal.media", "*.fal.media", "storage.googleapis.com")
"""Where the provider's images are known to live."""


def split_commas(value: object) -> object:
    """A comma list, as the environment has it, in parts."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class MediaSettings(Settings):
    """Where images come from, and how large one may be; who fetches them and who shows them share it."""

    fal_media_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_commas), Field(min_length=1)] = Field(
        MEDIA_HOSTS,
        description="comma list: where images may be fetched from; a private address only if it is named here",
    )
    picture_max_bytes: int = Field(100 * 1024 * 1024, ge=1, description="bytes one returned image may have")


class PriceSettings(Settings):
    """What the work is calculated to cost; whoever submits and whoever estimates share it."""

    price_per_image: Decimal | None = Field(
        None,
        gt=0,
        description="what one returned image costs, in USD; more than 0, because every `max_cost` is "
        "calculated with it; unless set, as the provider's price list says, else 0.03",
    )


class OutputSettings(Settings):
    """How long the provider keeps what it makes; who submits asks for it, who notes images counts with it."""

    fal_output_expires_after: Seconds | None = Field(
        None,
        description="the provider deletes every image so long after it made it, whether or not it was fetched: "
        "leave hours for an outage of yours; unless set, the account's own rule",
    )


class PolicySettings(OutputSettings):
    """How often an edit may be paid for, and who may say what became of it; callbacks and polls share it."""

    max_attempts: int = Field(3, ge=1, le=100, description="paid attempts per edit on transient errors")
    retry_delay: Seconds = Field(10, description="first delay between attempts, doubling with jitter")
    provider_retry_after: Seconds = Field(
        60, description="until a paused account, or an endpoint whose model is down, is tried again, by itself"
    )
    fal_user_id: str | None = Field(None, description="the account whose callbacks count; learned if not set")


def _forever(value: object) -> object:
    return None if isinstance(value, str) and value.strip().lower() == "forever" else value


KeptFor = Annotated[Seconds | None, BeforeValidator(_forever)]
"""A duration, or `forever`, which is None."""
DAY = 86_400.0


class TracingSettings(Settings):
    """Where traces go, in OpenTelemetry's own variables; whatever else its SDK reads, it reads by itself."""

    otel_traces_exporter: Literal["none", "otlp", "console"] = Field(
        "none",
        description="where traces go: `otlp`, to a collector over HTTP; `console`, to standard output; docs/tracing.md",
    )
    otel_exporter_otlp_endpoint: BaseURL = Field(
        "http://localhost:4318", description="the collector, to which `/v1/traces` is appended"
    )
    otel_exporter_otlp_headers: SecretStr | None = Field(
        None, description="comma list of `name=value`: headers that the collector asks for, as a key"
    )
    otel_traces_sampler_arg: float = Field(
        1, ge=0, le=1, description="the share of the batches that are traced; a caller that says so itself is followed"
    )

    @field_validator("otel_traces_exporter")
    @classmethod
    def _is_installed(cls, exporter: str) -> str:
        if exporter != "none" and not _has_opentelemetry():
            raise ValueError("it needs OpenTelemetry: pip install 'darkroom[tracing]'")
        return exporter

    @field_validator("otel_exporter_otlp_endpoint", "otel_traces_sampler_arg", mode="before")
    @classmethod
    def _of_another_program(cls, given: Any, info: ValidationInfo) -> Any:
        """These are everybody's variables: where we do not trace, what others make of them is no mistake of ours."""
        off = info.data.get("otel_traces_exporter", "none") == "none"
        return cls.model_fields[info.field_name or ""].default if off else given


def _has_opentelemetry() -> bool:
    try:
        return all(map(find_spec, ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")))
    except ModuleNotFoundError:  # what it would be a part of
        return False
