"""The doctor's checks of what lies around the database: settings, broker, provider, signing keys, our address, store.

Each asks one question, within seconds, and answers in a sentence.
"""

import json
import threading
from collections.abc import Callable, Collection, Iterator
from io import BytesIO
from uuid import uuid4

import redis
import requests
from kombu.exceptions import OperationalError

from cli.doctor.check_result import CheckResult, failure, ok, warning
from cli.output import plural
from cli.settings import processes
from cli.stack.readiness import QUESTION_TIMEOUT
from core.database_url import hide_password
from core.errors import AccountPaused, DownloadError, Gone, ProviderError, SettingsError, UserError
from core.settings import find_wrong_settings
from http_client.sessions import NotConnected, ThreadSessions, exchange
from models.seedream import ENDPOINT
from provider.queue_api import QueueAPI
from storage.store import Storage
from webhook_receiver.jwks import fetch_keys
from worker.broker import celery_client
from worker.settings import WorkerSettings
from worker.webhook_signing import EVERYONE

STORE_WITHIN = 20.0
"""Seconds to put and delete a few bytes; a store's own client would try for minutes."""
HEALTH_TIMEOUT, HEALTH_MAX_BYTES = 5.0, 64 * 1024


def settings() -> Iterator[CheckResult]:
    """Every setting of every process."""
    wrong: dict[str, None] = {}
    for cls in processes():
        try:
            wrong |= dict.fromkeys(find_wrong_settings(cls))
        except SettingsError as error:
            wrong[str(error).rstrip(".")] = None
    for sentence in wrong:
        yield failure("settings", f"{sentence}.", "Set it as docs/settings.md says, and start darkroom again.")
    if not wrong:
        names = {name for cls in processes() for name in cls.model_fields}
        yield ok("settings", f"{len(names)} read")


def notify_secrets(settings: WorkerSettings, clients: Collection[str]) -> CheckResult:
    """Whether every client that is to be told has a secret of its own; `clients` are those to be told."""
    secrets = settings.notify_secrets
    sharing = sorted(client for client in clients if client not in secrets)
    advice = "Give each client its own: NOTIFY_SECRET=name:whsec_…,name:whsec_… (docs/notifications.md)."
    if sharing and EVERYONE not in secrets:
        return warning("notify", f"NOTIFY_SECRET has no secret for {', '.join(sharing)}: their messages wait.", advice)
    if len(sharing) > 1:
        sentence = f"{', '.join(sharing)} share one NOTIFY_SECRET, so each can forge messages to the others."
        return warning("notify", sentence, advice)
    return ok("notify", "no client can sign for another")


def broker(url: str) -> CheckResult:
    """Whether Redis answers Celery, and takes what Celery writes: as broker and as result backend."""
    options = {"socket_timeout": QUESTION_TIMEOUT, "socket_connect_timeout": QUESTION_TIMEOUT, "max_retries": 1}
    app = celery_client(
        url,
        broker_transport_options=options,
        redis_socket_timeout=QUESTION_TIMEOUT,
        redis_socket_connect_timeout=QUESTION_TIMEOUT,
    )
    key, shown = f"darkroom:doctor:{uuid4()}", hide_password(url)
    try:
        with app.connection_for_write() as connection:
            for client in (connection.default_channel.client, app.backend.client):
                client.set(key, "", ex=10)
                client.delete(key)
            role, memory = _describe(connection.default_channel.client)
    except (redis.RedisError, OperationalError, OSError, ValueError) as error:
        sentence, advice = _broken_broker(error.__cause__ if isinstance(error, OperationalError) else error)
        return failure("broker", f"Redis at {shown} {sentence}.", advice)
    if role in ("slave", "replica"):
        advice = "Let REDIS_URL name the primary; nothing is lost, and work goes on by itself."
        return failure("broker", f"Redis at {shown} is a replica: what is written to it does not last.", advice)
    return ok("broker", f"Redis answers{f', {memory} in use' if memory else ''}")


def _describe(client: "redis.Redis") -> tuple[str, str]:
    """The server's role, and the memory in use; nothing where the user may not ask."""
    try:
        return str(client.info("replication")["role"]), str(client.info("memory")["used_memory_human"])
    except (redis.ResponseError, KeyError):
        return "", ""


def _broken_broker(error: BaseException | None) -> tuple[str, str]:
    """What is wrong, and what to do."""
    said = str(error).partition("\n")[0].rstrip(".")
    safe = "nothing is lost, and work goes on by itself."
    if isinstance(error, redis.ReadOnlyError):
        return "is a replica and takes no message", f"Let REDIS_URL name the primary; {safe}"
    if isinstance(error, redis.OutOfMemoryError) or said.startswith("OOM"):
        return (
            f"is full and takes no message: {said}",
            f"Give it more memory (maxmemory), or a server of its own; {safe}",
        )
    if isinstance(error, redis.AuthenticationError):
        return f"refuses the user or password: {said}", f"Mend REDIS_URL; {safe}"
    if isinstance(error, redis.ResponseError):
        return f"refuses a message: {said}", f"See docs/deploy.md for the rights that a Redis user needs; {safe}"
    if "mismatch, certificate" in said:
        advice = "Let REDIS_URL name it as its certificate does, or add ?ssl_check_hostname=false"
        return f"has a certificate of another name: {said}", f"{advice}; {safe}"
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return f"has a certificate that is not trusted: {said}", f"Add ?ssl_ca_certs=FILE to REDIS_URL; {safe}"
    if "certificate required" in said:
        return f"wants a certificate of us: {said}", f"Add ?ssl_certfile=FILE&ssl_keyfile=FILE to REDIS_URL; {safe}"
    if "refused" in said:
        return f"does not answer: {said}", f"Start Redis, or fix REDIS_URL; {safe}"
    forms = "rediss:// is for one with TLS, redis:// for one without, ssl_certfile for one that wants a certificate"
    return f"does not answer: {said}", f"Start Redis, or fix REDIS_URL ({forms}); {safe}"


def provider(settings: WorkerSettings) -> CheckResult:
    """Whether the provider answers and takes the key: the status of a request that does not exist costs nothing."""
    try:
        key = settings.required_key()
    except SettingsError:
        advice = "Set FAL_KEY here to have it checked; the submit worker needs it."
        return warning("provider", "no FAL_KEY is set here, so the provider was not asked.", advice)
    queue = QueueAPI(settings.fal_queue_url, key, start_timeout=settings.submit_start_timeout)
    try:
        queue.status(ENDPOINT, str(uuid4()))
    except Gone:
        pass  # it knows us, and rightly does not know the request
    except AccountPaused as error:
        advice = "Mend the key or the account with the provider, then run `darkroom resume --provider`."
        return failure("provider", f"{settings.fal_queue_url} refuses us: {error}.", advice)
    except ProviderError as error:
        advice = "Edits wait, none fails; submitting goes on by itself once it answers."
        return failure("provider", f"{settings.fal_queue_url} gives no usable answer: {str(error)[:300]}.", advice)
    return ok("provider", f"{settings.fal_queue_url} answers and takes the key")


def signing_keys(url: str) -> CheckResult:
    """Whether the signing keys can be had."""
    try:
        found = fetch_keys(url)
    except (NotConnected, requests.RequestException, ValueError, RecursionError) as error:
        advice = "Callbacks wait at the provider, which delivers again for hours; results are polled meanwhile."
        return failure("keys", f"No signing keys from {url}: {str(error)[:300]}.", advice)
    return ok("keys", f"{plural(len(found), 'signing key')} at {url}")


def public_url(url: str | None) -> CheckResult:
    """Whether our receiver answers where the provider is told to deliver; best effort, as seen from here."""
    if url is None:
        return ok("address", "PUBLIC_URL is not set: the provider is polled, and sends no callbacks")
    advice = "From here it may be otherwise than from the provider; without callbacks results are polled, a bit later."
    try:
        answer = exchange(
            ThreadSessions().get(),
            "GET",
            f"{url}/livez",
            headers={"User-Agent": "darkroom"},
            timeout=HEALTH_TIMEOUT,
            limit=HEALTH_MAX_BYTES,
        )
        status = json.loads(answer.body).get("status") if answer.status == 200 else None
    except (NotConnected, requests.RequestException, ValueError, AttributeError, RecursionError) as error:
        return warning("address", f"{url}/livez does not answer from here: {str(error)[:300]}.", advice)
    if status != "ok":
        return warning("address", f"{url}/livez is not our receiver's: it answers {answer.status}.", advice)
    return ok("address", f"the receiver answers at {url}")


def storage(url: str) -> CheckResult:
    """Whether an object can be put into the store, read back and taken away; it touches no other."""
    key, content = f"doctor-{uuid4()}", b"darkroom doctor\n"

    def put_get_and_delete() -> None:
        store = Storage(url)
        store.put(key, BytesIO(content), "text/plain")
        try:
            with store.get(key, max_bytes=len(content)) as file:
                if file.read() != content:
                    raise UserError("what was put there is not what is read there")
        finally:
            store.delete(key)

    advice = "Mend STORAGE_URL, its disk or its rights; images are fetched again for as long as the provider has them."
    try:
        within(STORE_WITHIN, put_get_and_delete)
    except (UserError, DownloadError, TimeoutError) as error:
        return failure("storage", f"{url} does not take an image: {str(error)[:300].rstrip('.')}.", advice)
    return ok("storage", f"{url} takes, gives and deletes objects")


def within(seconds: float, step: Callable[[], None]) -> None:
    """Run a step that knows no time limit of its own.

    Raises:
        TimeoutError: it is not over; it is left behind, and dies with this process.
    """
    raised: list[BaseException] = []

    def run() -> None:
        try:
            step()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"no answer in {seconds:.0f} s")
    if raised:
        raise raised[0]
