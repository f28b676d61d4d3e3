"""The same POST again and again, to one URL with one set of headers: built once, only query and body are new.

`requests` builds, merges and copies for each request what never changes here; that took more than half the time of a
POST. Connections, TLS settings and checks are those of the thread's session (`sessions.py`), and so is what is
promised: sent once, or `NotConnected`.
"""

from collections.abc import Mapping

import requests
import urllib3

from http_client.sessions import CONNECT_TIMEOUT, HttpResponse, ThreadSessions, exchange, prepare, read_whole


class RepeatedPost:
    """One URL, and what is said to it each time. Safe for threads, as the sessions are."""

    def __init__(
        self, sessions: ThreadSessions, url: str, headers: Mapping[str, str], *, timeout: float, limit: int
    ) -> None:
        """`url` has no query. An answer begins within `timeout` seconds and is `limit` bytes long, at most.

        Raises:
            NotConnected: such a request cannot be built.
        """
        self._request = prepare("POST", url, headers, None)
        self._sessions, self._url, self._headers = sessions, url, dict(headers)
        self._timeout, self._limit = timeout, limit
        self._timeouts = urllib3.Timeout(connect=CONNECT_TIMEOUT, read=timeout)

    def send(self, query: str, body: bytes) -> HttpResponse:
        """Send one, once; `query` is encoded, and may be empty.

        Raises:
            NotConnected: nothing was sent.
            requests.RequestException, ValueError: no whole answer came.
        """
        rest = f"?{query}" if query else ""
        session = self._sessions.get()
        pool = self._sessions.direct_pool(self._request)
        if pool is None:  # what a proxy is to be told is known there
            return exchange(
                session,
                "POST",
                self._url + rest,
                headers=self._headers,
                body=body,
                timeout=self._timeout,
                limit=self._limit,
            )
        return self._send(pool, self._request.path_url + rest, body)

    def _send(self, pool: urllib3.HTTPConnectionPool, target: str, body: bytes) -> HttpResponse:
        try:
            answer = pool.urlopen(
                "POST",
                target,
                body,
                self._headers,
                retries=False,
                redirect=False,
                timeout=self._timeouts,
                preload_content=False,
                decode_content=False,
            )
        except urllib3.exceptions.ReadTimeoutError as error:
            raise requests.ReadTimeout(error) from error
        except urllib3.exceptions.HTTPError as error:
            raise requests.ConnectionError(error) from error
        try:
            return read_whole(answer, limit=self._limit)
        finally:
            answer.close()  # a connection whose answer was read whole is back in the pool by now
            answer.release_conn()
