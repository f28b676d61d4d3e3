"""`--dry-run --check-inputs`: the images behind a manifest's URLs, fetched and judged before anything is paid for.

As a worker would fetch them, from public addresses only; an input of several edits once. Local files are judged at any
rate (`local_files.py`).
"""

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import cached_property
from heapq import nsmallest
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from cli.output import gather_warnings
from core.errors import DownloadError, FetchAgain, NotFound, StorageUnavailable, UnfitInput, UserError
from core.input_images import INPUT_MAX_BYTES, inspect_input
from core.settings import MediaSettings, StorageSettings, load
from http_client.fetch import Fetcher
from intake.api_keys import LOCAL
from intake.insert_inputs import SAMPLE, digest_input
from intake.manifest import Entry, NewEdit
from models.image_inputs import OBJECT, is_object
from storage.input_objects import input_key
from storage.store import Storage

Check = Literal["none", "sample", "all"]
FETCHED = ("http:", "https:", "data:", OBJECT)
"""How the inputs begin that are looked at."""
AT_ONCE, WAITING = 16, 64
"""Inputs that are fetched at one time, and that wait for it: a manifest's data URIs are not all held at once."""
TRIES = 2
PAUSE = 1.0
"""Seconds between them."""
HOST_TRIES = 3
"""Inputs in a row that a host did not answer for, after which it is asked for no other."""


class Input(NamedTuple):
    """An entry of `image_urls`, where it stands first."""

    line: int
    custom_id: str | None
    entry: str

    @property
    def name(self) -> str:
        """What a person knows it by."""
        return "the data URI" if self.entry.startswith("data:") else self.entry

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {"line": self.line, "custom_id": self.custom_id, "input": self.name}


class CheckedInput(NamedTuple):
    """What came of looking at it: why it cannot be an input (None: it can), and what may come of it."""

    input: Input
    reason: str | None
    warnings: tuple[str, ...] = ()


class CheckedInputs(NamedTuple):
    """Of `distinct` inputs so many were `looked_at`; `refused` in the order of their lines."""

    distinct: int
    looked_at: int
    refused: list[CheckedInput]
    warnings: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        refused = [{**found.input.as_json(), "reason": found.reason} for found in self.refused]
        return {"distinct": self.distinct, "looked_at": self.looked_at, "refused": refused}


def check_urls(entries: Iterable[Entry], check: Check) -> CheckedInputs:
    """Look at the web URLs and data URIs of the sound lines, or at a sample of them.

    Raises:
        UserError: this machine has no room for them.
    """
    looker = _Looker(Fetcher(("*", *load(MediaSettings).fal_media_hosts), max_bytes=INPUT_MAX_BYTES, plain_http=True))
    seen: set[bytes] = set()
    inputs = _distinct(entries, seen)
    chosen = inputs if check == "all" else (found for _, found in nsmallest(SAMPLE, _with_digests(inputs)))
    checked = list(_look_side_by_side(looker, chosen))
    refused = sorted((found for found in checked if found.reason), key=_place)
    warnings = ((found.input.name, warning) for found in sorted(checked, key=_place) for warning in found.warnings)
    return CheckedInputs(len(seen), len(checked), refused, gather_warnings(warnings))


def _distinct(entries: Iterable[Entry], seen: set[bytes]) -> Iterator[Input]:
    for edit in entries:
        for entry in edit.arguments["image_urls"] if isinstance(edit, NewEdit) else ():
            if entry[: len(OBJECT)].lower().startswith(FETCHED) and (digest := digest_input(entry)) not in seen:
                seen.add(digest)
                yield Input(edit.line, edit.custom_id, entry)


def _place(found: CheckedInput) -> tuple[int, str]:
    return found.input.line, found.input.entry


def _with_digests(inputs: Iterable[Input]) -> Iterator[tuple[bytes, Input]]:
    return ((digest_input(found.entry), found) for found in inputs)


def _look_side_by_side(looker: "_Looker", inputs: Iterable[Input]) -> Iterator[CheckedInput]:
    waiting: set[Future[CheckedInput]] = set()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            for found in inputs:
                waiting.add(pool.submit(looker.look_at, found))
                if len(waiting) >= WAITING:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        finally:  # of Ctrl-C: what has not begun is not waited for
            pool.shutdown(cancel_futures=True)


class _Looker:
    """Fetches and judges inputs; a host that does not answer is left alone. Safe for threads."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self._silent: Counter[str] = Counter()
        self._lock = threading.Lock()

    @cached_property
    def _storage(self) -> Storage:
        return Storage(load(StorageSettings).storage_url)

    def _look_in_store(self, found: Input) -> CheckedInput:
        """An object of the command line's client, as the prepare lane finds it."""
        try:
            key = input_key(self._storage, LOCAL, found.entry.removeprefix(OBJECT))
            with self._storage.get(key, max_bytes=INPUT_MAX_BYTES) as file:
                return CheckedInput(found, None, inspect_input(file, name=found.name).warnings)
        except NotFound:
            return CheckedInput(found, f"there is no {found.name} in the store")
        except UnfitInput as error:
            return CheckedInput(found, str(error).rstrip("."))
        except DownloadError as error:
            raise UserError(f"The store gives nothing now: {error.message}.") from None

    def look_at(self, found: Input) -> CheckedInput:
        """Fetch one input, again where that may help, and judge it."""
        if is_object(found.entry):
            return self._look_in_store(found)
        host = urlsplit(found.entry).netloc if not found.entry.startswith("data:") else ""
        for tried in range(1, TRIES + 1):
            if self._silent[host] >= HOST_TRIES:
                return CheckedInput(found, f"{found.name} was not fetched: its host did not answer before")
            try:
                with self._fetcher.fetch(found.entry) as file:
                    image = inspect_input(file, name=found.name)
            except UnfitInput as error:
                return CheckedInput(found, str(error).rstrip("."))
            except StorageUnavailable as error:
                raise UserError(f"This machine cannot hold an input: {error.message}.") from None
            except DownloadError as error:
                self._note(host, silent=error.type == "unreachable")
                if isinstance(error, FetchAgain) and tried < TRIES and not error.type.startswith("http_4"):
                    time.sleep(PAUSE)
                    continue
                return CheckedInput(found, f"{found.name} cannot be fetched: {error.message.rstrip('.')}")
            self._note(host, silent=False)
            return CheckedInput(found, None, image.warnings)
        raise AssertionError("unreachable")

    def _note(self, host: str, *, silent: bool) -> None:
        with self._lock:
            self._silent[host] = self._silent[host] + 1 if silent else 0
