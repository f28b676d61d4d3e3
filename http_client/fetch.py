"""Fetch one file from an allowed host, bounded in every way, into a temporary file.

The address is checked when connected, not when looked up, so a name that resolves differently a moment later
gains nothing. Redirects are followed by hand, each hop under the same rules. The key is never sent.
"""

import base64
import binascii
import fnmatch
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

import requests

from core.errors import FetchAgain, Unusable
from core.resource_errors import find_exhaustion, storage_trouble
from http_client.bodies import TooSlow, enforce_rate, read_pieces
from http_client.host_backoff import HostBackoff
from http_client.resume import NO_VERSION, Version, read_version
from http_client.retry_after import read_retry_after
from http_client.sessions import CONNECT_TIMEOUT, NotConnected, ThreadSessions, is_private

READ_TIMEOUT = 20.0
"""Seconds without a byte, and in which the head of an answer must have come."""
WHOLE_TIMEOUT = 120.0
"""Seconds for one file."""
LEAST_RATE = (128 * 1024, 10.0)
"""Bytes that must come in so many seconds: an image that comes more slowly would not come in time anyway."""
MAX_REDIRECTS = 3
RESUMES = 5
"""Times that a file which breaks off is gone on with before it counts as a try."""
HEADERS = {"Accept": "image/*", "Accept-Encoding": "identity"}
IN_MEMORY = 4 * 1024 * 1024
"""Bytes of a file that stay in memory; the rest goes to disk."""
ASKS_TO_WAIT = frozenset({429, 503})
"""Statuses whose `Retry-After` counts."""
LONGEST_WAIT = 900.0
"""Seconds that a host may ask for."""


class Fetcher:
    """Fetches from `media_hosts`: names, or `*.name` for every name beneath. Safe for threads.

    Over http only from hosts that are named themselves, unless `plain_http` is allowed from all of them.
    """

    def __init__(self, media_hosts: Sequence[str], *, max_bytes: int, plain_http: bool = False) -> None:
        self._hosts = [host.lower() for host in media_hosts]
        self._max_bytes, self._plain_http = max_bytes, plain_http
        self.waits = HostBackoff()
        self._sessions = ThreadSessions(self._check_peer, head_timeout=READ_TIMEOUT)

    def fetch(self, url: str) -> IO[bytes]:
        """The file behind a URL (or a data URI); the caller closes it.

        Raises:
            FetchAgain: it did not come, or not whole.
            Unusable: from there, or that large, it is never taken.
            StorageUnavailable: this machine cannot hold it: its temporary folder is full, say.
        """
        try:
            return self._decode(url) if url.startswith("data:") else self._follow(url)
        except NotConnected as error:
            raise find_exhaustion(error) or FetchAgain("unreachable", str(error)[:500]) from error
        except TooSlow as error:
            raise FetchAgain("too_slow", str(error)) from error
        except (OSError, MemoryError) as error:
            reason = f"{type(error).__name__}: {error}"[:500]
            raise find_exhaustion(error) or FetchAgain("fetch_error", reason) from error

    def _follow(self, url: str) -> IO[bytes]:
        """What broke off goes on where it was, a few times, as long as it gets on."""
        deadline, version = time.monotonic() + WHOLE_TIMEOUT, NO_VERSION
        file = DownloadFile(max_size=IN_MEMORY)
        try:
            for resumes_left in reversed(range(RESUMES + 1)):
                came = file.tell()
                with self._ask(url, version.ask_from(came)) as response:
                    version = self._begin(response, file, version)
                    url = response.request.url or url
                    try:
                        self._copy(response, file, deadline)
                        if version.length is not None and file.tell() != version.length:
                            raise FetchAgain("truncated", f"{file.tell()} of {version.length} bytes came.")
                        return file
                    except (requests.RequestException, FetchAgain):
                        gets_on = file.tell() > came and time.monotonic() < deadline
                        if not (version.validator and resumes_left and gets_on):
                            raise
            raise AssertionError("the last try raises")
        except BaseException:
            file.close()
            raise

    def _ask(self, url: str, headers: Mapping[str, str]) -> requests.Response:
        """The answer behind all redirects; the caller closes it."""
        for _ in range(MAX_REDIRECTS + 1):
            request = self._request(url, headers)
            response = self._sessions.get().send(
                request, timeout=(CONNECT_TIMEOUT, READ_TIMEOUT), allow_redirects=False, stream=True
            )
            if not response.is_redirect:
                return response
            with response:
                url = _target(url, response.headers["Location"])
        raise Unusable("too_many_redirects", f"The file is behind more than {MAX_REDIRECTS} redirects.")

    def _begin(self, response: requests.Response, file: IO[bytes], version: Version) -> Version:
        """Of which version the body is, and where in the file it goes on: at its end, or from its beginning."""
        if version.validator and response.status_code == 206:
            return version._replace(length=version.check_part(response.headers, file.tell()))
        if response.status_code != 200:
            raise _explain_status(response)
        declared = _length(response)
        if declared is not None and declared > self._max_bytes:
            raise Unusable("too_large", f"The file has {declared} bytes, {self._max_bytes} are allowed.")
        file.seek(0)
        file.truncate()
        return read_version(response.headers, declared)

    def _copy(self, response: requests.Response, file: IO[bytes], deadline: float) -> None:
        least, window = LEAST_RATE
        for part in enforce_rate(read_pieces(response.raw), least=least, window=window):
            file.write(part)
            if file.tell() > self._max_bytes:
                raise Unusable("too_large", f"The file is longer than the {self._max_bytes} bytes allowed.")
            if time.monotonic() > deadline:
                raise FetchAgain("too_slow", f"The file took longer than {WHOLE_TIMEOUT:g} seconds.")

    def _request(self, url: str, headers: Mapping[str, str]) -> requests.PreparedRequest:
        """The request for a URL, judged in the form in which it is sent: parsers differ over odd ones."""
        try:
            request = requests.Request("GET", url, headers={**HEADERS, **headers}).prepare()
            self._check_url(request.url or "")
        except (requests.RequestException, ValueError) as error:
            raise Unusable("host_refused", f"The file's address is no URL: {type(error).__name__}.") from error
        return request

    def _check_url(self, url: str) -> None:
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
        if parts.scheme not in ("http", "https") or parts.username or not self._allowed(host):
            raise Unusable("host_refused", f"Images are not fetched from {parts.scheme}://{host}.")
        if parts.scheme == "http" and host not in self._hosts and not self._plain_http:
            raise Unusable("host_refused", f"{host} is only trusted over https.")

    def _allowed(self, host: str) -> bool:
        return any(fnmatch.fnmatchcase(host, pattern) for pattern in self._hosts)

    def _check_peer(self, host: str, address: str) -> None:
        # a pattern is not enough for a private address: its host must be named itself
        if is_private(address) and host.lower() not in self._hosts:
            raise Unusable("host_refused", f"{host} resolves to {address}, a private address.")

    def _decode(self, url: str) -> IO[bytes]:
        """RFC 2397, as `sync_mode` delivers images."""
        head, _, data = url.partition(",")
        if len(data) > 4 * self._max_bytes + 12:  # not worth decoding: base64, all of it escaped, takes four a byte
            raise Unusable("too_large", "The data URI is larger than an image may be.")
        try:
            raw = unquote_to_bytes(data)
            content = base64.b64decode(raw, validate=True) if head.endswith(";base64") else raw
        except (binascii.Error, ValueError) as error:
            raise Unusable("undecodable", "The data URI is not valid base64.") from error
        if len(content) > self._max_bytes:
            raise Unusable("too_large", f"The data URI holds {len(content)} bytes, {self._max_bytes} are allowed.")
        file = DownloadFile(max_size=IN_MEMORY)
        try:
            file.write(content)
        except BaseException:
            file.close()
            raise
        return file


class DownloadFile(tempfile.SpooledTemporaryFile[bytes]):
    """A temporary file whose trouble is told from that of the image's host."""

    def write(self, content: Any) -> int:
        """As always.

        Raises:
            StorageUnavailable: the temporary folder takes no more.
        """
        try:
            return super().write(content)
        except OSError as error:
            if trouble := storage_trouble(error, f"The temporary folder {tempfile.gettempdir()}"):
                raise trouble from error
            raise


def _target(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise Unusable("host_refused", "The file's host redirects to what is no URL.") from error


def _explain_status(response: requests.Response) -> FetchAgain:
    """404 may be a CDN that is not ready yet, 401 and 403 one that changes its mind: fetched again a few times."""
    status = response.status_code
    wait = read_retry_after(response.headers.get("Retry-After", "")) if status in ASKS_TO_WAIT else 0.0
    return FetchAgain(f"http_{status}", f"The file's host answered {status}.", retry_after=min(wait, LONGEST_WAIT))


def _length(response: requests.Response) -> int | None:
    """The declared length; None where there is none, or nonsense."""
    declared = response.headers.get("Content-Length", "")
    return int(declared) if declared.isascii() and declared.isdigit() and len(declared) < 19 else None
