"""One input, looked at: had from where it is, judged by its bytes, delivered where it is an object of the store.

Every failure becomes a value: what is wrong with the input, or a trouble that is ours or the provider's and says
nothing about it.
"""

import re
from typing import NamedTuple
from urllib.parse import urlsplit

import structlog

from core.errors import (
    AccountPaused,
    DownloadError,
    FetchAgain,
    NotFound,
    ProviderError,
    Refused,
    SettingsError,
    StorageUnavailable,
    UnfitInput,
    UserError,
)
from core.input_images import INPUT_MAX_BYTES, inspect_input
from core.resource_errors import find_exhaustion
from models.image_inputs import OBJECT
from models.input_claims import DueInput
from models.transitions.inputs import InputFault, ReadyInput
from storage.input_objects import input_key
from worker.dependencies import Dependencies
from worker.input_delivery import deliver_input

log = structlog.get_logger()

REFUSED, UNREACHABLE = "input_refused", "input_unreachable"
"""The error types of an edit whose input is none that the model takes, and of one whose input cannot be had."""
TRIES = 3
"""Times an input is tried that does not come."""
FOR_GOOD = re.compile(r"http_4(?!08|25|29)\d\d")
"""Error types of an answer that will be the same next time."""
SHOWN = 200
"""Characters of a name in a message."""


class DeliveryTrouble(NamedTuple):
    """An object that could not be had or delivered for a trouble that is not its own."""

    id: int
    type: str
    message: str


Result = ReadyInput | InputFault | DeliveryTrouble


def check_input(dependencies: Dependencies, due: DueInput, text: str) -> Result:
    """Look at one input; `text` is its entry of `image_urls`."""
    name = name_of(text)
    try:
        return _check_object(dependencies, due, text) if due.host is None else _check_web(dependencies, due, text)
    except UnfitInput as error:
        return InputFault(due.id, REFUSED, str(error))
    except StorageUnavailable as error:
        return DeliveryTrouble(due.id, error.type, error.message)
    except SettingsError as error:  # the store cannot be opened, or there is no key
        return DeliveryTrouble(due.id, "cannot_be_opened", str(error))
    except DownloadError as error:
        return _judge_download(due, name, error, dependencies.settings.retry_delay)
    except UserError as error:
        return InputFault(due.id, REFUSED, str(error))
    except (OSError, MemoryError) as error:
        if (trouble := find_exhaustion(error)) is None:
            raise
        return DeliveryTrouble(due.id, trouble.type, trouble.message)


def _check_web(dependencies: Dependencies, due: DueInput, url: str) -> Result:
    silent, host = dependencies.silent_hosts, due.host or ""
    if host and silent.is_silent(host):
        return InputFault(due.id, UNREACHABLE, f"{name_of(url)} cannot be had: its host has answered nobody for long.")
    try:
        with dependencies.input_fetcher.fetch(url) as file:
            silent.note(host, answered=True)
            found = inspect_input(file, name=name_of(url))
    except FetchAgain as error:
        silent.note(host, answered=error.type not in ("unreachable", "fetch_error"))
        if error.retry_after:
            dependencies.input_fetcher.waits.leave_alone(host, error.retry_after)
        raise
    return ReadyInput(due.id, found.sha256, found.content_type, found.bytes, found.width, found.height)


def _check_object(dependencies: Dependencies, due: DueInput, text: str) -> Result:
    storage, name = dependencies.storage, name_of(text)
    key = input_key(storage, due.client, text.removeprefix(OBJECT))
    try:
        with storage.get(key, max_bytes=INPUT_MAX_BYTES) as file:
            found = inspect_input(file, name=name)
            if due.sha256 not in (None, found.sha256):
                return InputFault(due.id, REFUSED, f"{name} was replaced by another object since the batch began.")
            delivered = deliver_input(dependencies, key, file, found)
    except NotFound:
        return InputFault(due.id, UNREACHABLE, f"There is no {name}.")
    except AccountPaused as error:
        return DeliveryTrouble(due.id, error.reason, f"The provider's storage refuses the account: {error.message}")
    except Refused as error:
        return InputFault(due.id, REFUSED, f"{name} was refused by the provider's storage ({error.status}).")
    except ProviderError as error:
        return DeliveryTrouble(due.id, "upload_failed", f"The provider's storage did not take a file: {error}")
    measured = (found.sha256, found.content_type, found.bytes, found.width, found.height)
    return ReadyInput(due.id, *measured, delivered.url, delivered.lasts)


def _judge_download(due: DueInput, name: str, error: DownloadError, retry_delay: float) -> InputFault:
    message = f"{name} cannot be had: {error.message}"
    if not isinstance(error, FetchAgain):
        return InputFault(due.id, REFUSED, message)
    if FOR_GOOD.fullmatch(error.type) or due.attempt >= TRIES:
        return InputFault(due.id, UNREACHABLE, message)
    return InputFault(due.id, UNREACHABLE, message, max(retry_delay * 2.0 ** (due.attempt - 1), error.retry_after))


def name_of(text: str) -> str:
    """What an input is called in a message: without what may be a password in it."""
    if text[:5].lower() == "data:":
        return "The data URI"
    if not text.startswith(OBJECT):
        parts = urlsplit(text)
        text = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    text = "".join(character if character.isprintable() else "\ufffd" for character in text)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"
