"""The command line's settings, and the environment that it makes for every process of a stack.

The only file of `cli` that reads or changes the environment. Whatever is set explicitly wins; the rest is
filled in for the local stack, or taken from the stack that runs in the same home. It opens no connection.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, SecretStr

from cli.stack.home import Home
from core.database_url import hide_password
from core.errors import SettingsError
from core.settings import BaseURL, BrokerURL, DatabaseURL, Folder, Settings, StorageSettings, load

EMULATOR_KEY = "emulator:emulator"
MASK = "***"
ANY_ADDRESS = ("0.0.0.0", "::", "")  # noqa: S104 - compared with, never bound to


class CLISettings(Settings):
    """What decides how the local stack is made."""

    darkroom_home: Folder = Field(Path(".darkroom"), description="the folder of everything that is kept locally")
    database_url: DatabaseURL | None = Field(None, description="unless set, an embedded PostgreSQL in `DARKROOM_HOME`")
    redis_url: BrokerURL | None = Field(None, description="unless set, an embedded Redis in `DARKROOM_HOME`")
    fal_key: SecretStr | None = Field(None, description="the provider's key; required for the real provider")
    public_url: BaseURL | None = Field(None, description="where the provider reaches the receiver")
    bind_host: str = Field("127.0.0.1", description="the address on which the Flask applications listen")
    receiver_port: int = Field(8000, ge=1, le=65535, description="the receiver's port")
    intake_port: int = Field(8001, ge=1, le=65535, description="the intake API's port")

    @property
    def home(self) -> Home:
        """The folder of what is kept locally, by its whole path."""
        return Home(self.darkroom_home.resolve())

    @property
    def local_receiver(self) -> str:
        """How the receiver is reached from this machine."""
        return f"http://{self._local_host}:{self.receiver_port}"

    @property
    def local_intake(self) -> str:
        """How the intake API is reached from this machine."""
        return f"http://{self._local_host}:{self.intake_port}"

    @property
    def _local_host(self) -> str:
        host = "127.0.0.1" if self.bind_host in ANY_ADDRESS else self.bind_host
        return f"[{host}]" if ":" in host else host


def processes() -> tuple[type[Settings], ...]:
    """The settings classes whose variables a stack hands to its processes."""
    from intake.settings import IntakeSettings  # here: a command that looks at a batch needs none of them
    from webhook_receiver.settings import ReceiverSettings
    from worker.settings import WorkerSettings

    return WorkerSettings, ReceiverSettings, IntakeSettings


def environment() -> dict[str, str]:
    """A copy of the environment, to start a process with."""
    return dict(os.environ)


def set_variables(variables: Mapping[str, str]) -> None:
    """Make `variables` part of this process's own environment, so that every part reads the same."""
    os.environ.update(variables)


def unset_variables(*names: str) -> None:
    """Take variables out of this process's own environment."""
    for name in names:
        os.environ.pop(name, None)


def load_from_stack() -> CLISettings:
    """Take what is not set explicitly from the stack that runs in the home, if one does."""
    settings = load(CLISettings)
    for name, value in settings.home.read_published().items():
        if not os.environ.get(name) and not os.environ.get(f"{name}_FILE"):
            os.environ[name] = value
    return load(CLISettings)


def load_with_database() -> CLISettings:
    """The same, and check that there is a database.

    Raises:
        SettingsError: no database is known.
    """
    settings = load_from_stack()
    if settings.database_url is None:
        home = settings.darkroom_home
        raise SettingsError(f"No stack runs in {home} and DATABASE_URL is not set; start one with `darkroom up`.")
    return settings


def stack_variables(
    settings: CLISettings, *, database_url: str, redis_url: str, emulator_url: str | None
) -> dict[str, str]:
    """The environment that every process of the stack gets on top of this one.

    Raises:
        SettingsError: the real provider is meant, and there is no key for it.
    """
    home = settings.home
    variables = {name: os.environ[name] for name in _known() if os.environ.get(name)}
    variables |= {"DARKROOM_HOME": str(home.folder), "DATABASE_URL": database_url, "REDIS_URL": redis_url}
    variables |= {name: str(Path(variables[name]).resolve()) for name in variables if name.endswith("_FILE")}
    variables["STORAGE_URL"] = load(StorageSettings, darkroom_home=home.folder).storage_url
    variables |= {"BIND_HOST": settings.bind_host}
    variables |= {"RECEIVER_PORT": str(settings.receiver_port), "INTAKE_PORT": str(settings.intake_port)}
    if emulator_url:
        variables |= _emulated(settings, emulator_url)
    elif settings.fal_key is None:
        raise SettingsError("FAL_KEY is not set; set it, or add --emulator to work with the emulator, without a key.")
    if "NOTIFY_SECRET" not in variables and "NOTIFY_SECRET_FILE" not in variables:
        from worker.webhook_signing import new_secret

        home.keep_notify_secret(new_secret())
        variables["NOTIFY_SECRET_FILE"] = str(home.notify_secret)
    return variables


def _emulated(settings: CLISettings, emulator_url: str) -> dict[str, str]:
    names = ("FAL_QUEUE_URL", "FAL_REST_URL", "FAL_CDN_URL", "FAL_API_URL")
    variables = dict.fromkeys(names, emulator_url)
    variables["FAL_JWKS_URL"] = f"{emulator_url}/.well-known/jwks.json"
    variables["FAL_MEDIA_HOSTS"] = str(urlsplit(emulator_url).hostname)
    variables["PUBLIC_URL"] = settings.public_url or settings.local_receiver
    if settings.fal_key is None:
        variables["FAL_KEY"] = EMULATOR_KEY
    return variables


def _known() -> list[str]:
    names = {name.upper() for cls in processes() for name in cls.model_fields}
    return sorted(names | {f"{name}_FILE" for name in names})


def effective() -> dict[str, str]:
    """Every setting as the processes would read it now; secrets masked."""
    shown: dict[str, str] = {}
    for cls in processes():
        loaded = load(cls)
        shown |= {name.upper(): _as_text(value) for name, value in loaded}
    for name in ("DATABASE_URL", "REDIS_URL", "HTTPS_PROXY", "HTTP_PROXY"):
        shown[name] = hide_password(shown[name])
    return dict(sorted(shown.items()))


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, Path):
        return str(value.resolve())
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, float):
        return f"{value:.15g}"
    return str(value)
