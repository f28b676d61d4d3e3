"""The commands' client of the provider, and its errors as one sentence that says what a person can do."""

from collections.abc import Iterator
from contextlib import contextmanager

from cli.settings import load_from_stack
from core.errors import AccountPaused, Gone, NotFound, ProviderError, TryLater, UserError
from core.settings import load
from provider.queue_api import QueueAPI
from provider.settings import ProviderSettings


def open_provider() -> QueueAPI:
    """A client for the provider of the stack that runs in the home, else of the environment.

    Raises:
        SettingsError: there is no key.
    """
    load_from_stack()
    return QueueAPI.of(load(ProviderSettings))


@contextmanager
def provider_call(request_id: str) -> Iterator[None]:
    """Ask the provider about a request; what goes wrong is told in a sentence.

    Raises:
        UserError: it did not answer, refused the account, or does not know the request.
    """
    try:
        yield
    except ProviderError as error:
        raise (NotFound if isinstance(error, Gone) else UserError)(sentence(error, request_id)) from None


def sentence(error: ProviderError, request_id: str) -> str:
    """What is wrong and what can be done."""
    match error:
        case AccountPaused(reason="invalid_key"):
            return f"The provider refuses the key ({error.message}). {error.advice}"
        case AccountPaused():
            return f"The provider refuses the account ({error}). {error.advice}"
        case Gone():
            return f"The provider does not know the request {request_id}, or no longer."
        case TryLater() if "in progress" in str(error):
            return f"The request {request_id} is still in progress."
        case _:
            return f"The provider gave no usable answer ({error}); try again."
