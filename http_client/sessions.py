"""HTTP sessions that know whether anything was sent, and to whom they are connected.

`requests` alone cannot tell a refused connection from a cut one, nor which address a host name resolved to.
Both are decided here, at the moment of connecting, before a byte of the request leaves. No automatic retry,
no netrc, no redirect.

Through a proxy the address of the other side is not known here; there the rules for names hold, a literal address is
checked as it stands, and for the rest the proxy's word is what there is. A CONNECT that the proxy refuses is no
connection, so nothing was sent. The proxy's own password goes to the proxy alone (urllib3 puts it into the CONNECT).
"""

import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from typing import IO, Any, NamedTuple
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from core.network import Network, literal
from core.settings import read_network
from http_client.arrivals import WatchedResponse
from http_client.bodies import read_bounded
from http_client.deadline import cut_after

CONNECT_TIMEOUT = 5.0
"""Seconds."""
BODY_TIMEOUT = 60.0
"""Seconds for a whole body."""
IDLE_LIMIT = 15.0
"""Seconds a kept connection may idle before we close it. Shorter than any load balancer's own limit, so that a
paid POST does not meet a connection that the other side is just closing: that would be an unknown outcome."""

PeerCheck = Callable[[str, str], None]
"""(host name, address) -> nothing, or raises to refuse the peer."""
Watch = Callable[[socket.socket], None]
"""Told of every connection that was made."""


_MESSAGE_HEAD = re.compile(r"^\w+\(host=.*?\): ")
"""What urllib3 puts before the reason: a class of ours, and the address that is known."""


class NotConnected(Exception):
    """No connection came about, so nothing of the request was sent.

    Deliberately no OSError: urllib3 and requests would wrap it and blur what it says.
    """


class _Watched:
    """Mixed into urllib3's connections: every failure to connect says so, every peer is checked, every byte is seen."""

    response_class = WatchedResponse
    peer_check: PeerCheck | None = None
    watch: Watch | None = None
    head_timeout: float | None = None

    def getresponse(self) -> Any:
        """The head of the answer, whole within `head_timeout`: a socket's own timeout starts anew with every byte."""
        if self.head_timeout is None:
            return super().getresponse()  # type: ignore[misc]
        with cut_after(self.head_timeout) as call:
            call.watch(self.sock)  # type: ignore[attr-defined]
            response = super().getresponse()  # type: ignore[misc]
            if call.cut_off:  # in the middle of the head, and `http.client` takes what came for all of it
                raise TimeoutError(f"no whole answer began within {self.head_timeout:g} seconds")
            return response

    def connect(self) -> None:
        try:
            super().connect()  # type: ignore[misc]  # the mixin's other half is urllib3's connection
        except (OSError, urllib3.exceptions.HTTPError, ssl.SSLError, HTTPException) as error:
            raise NotConnected(_MESSAGE_HEAD.sub("", str(error))) from error

    def _new_conn(self) -> socket.socket:
        """The socket, before TLS or anything else is said to the peer."""
        sock: socket.socket = super()._new_conn()  # type: ignore[misc]
        try:
            if self.peer_check is not None:
                self.peer_check(self.host, sock.getpeername()[0])  # type: ignore[attr-defined]
            if self.watch is not None:
                self.watch(sock)
        except BaseException:
            sock.close()
            raise
        return sock


def _pool_classes(
    peer_check: PeerCheck | None, watch: Watch | None, head_timeout: float | None
) -> dict[str, type[HTTPConnectionPool]]:
    attributes = {
        "head_timeout": head_timeout,
        "peer_check": staticmethod(peer_check) if peer_check else None,
        "watch": staticmethod(watch) if watch else None,
    }
    plain = type("WatchedHTTPConnection", (_Watched, HTTPConnection), attributes)
    secure = type("WatchedHTTPSConnection", (_Watched, HTTPSConnection), attributes)
    return {
        "http": type("WatchedHTTPPool", (HTTPConnectionPool,), {"ConnectionCls": plain}),
        "https": type("WatchedHTTPSPool", (HTTPSConnectionPool,), {"ConnectionCls": secure}),
    }


class _Adapter(HTTPAdapter):
    def __init__(
        self, peer_check: PeerCheck | None, watch: Watch | None, head_timeout: float | None, network: Network
    ) -> None:
        self._pools = _pool_classes(peer_check, watch, head_timeout)
        self._proxied_pools = _pool_classes(None, watch, head_timeout)
        self._peer_check, self._network = peer_check, network
        self._direct: dict[str, Any] = {}
        super().__init__(pool_connections=8, pool_maxsize=2, max_retries=0)

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        """One request, through the proxy that it needs.

        Raises:
            NotConnected: nothing reached the other side.
        """
        url = request.url or ""
        proxy = self._network.proxy_for(url)
        if proxy:
            self._check_literal(url)
        options["proxies"] = {"http": proxy, "https": proxy} if proxy else {}
        options["verify"] = self._network.verify
        response = super().send(request, *args, **options)
        if proxy and response.status_code == 407 and url.startswith("http:"):
            response.close()  # none but the proxy says this, and it passes nothing on
            raise NotConnected("the proxy asks for a user and password (407)")
        return response

    def direct_pool(self, request: requests.PreparedRequest) -> Any:
        """The connections to the host of a request, with everything that is checked when one is made; None where a
        proxy stands between. It lasts until `close`."""
        url = request.url or ""
        pool = self._direct.get(url)
        if pool is None and not self._network.proxy_for(url):
            verify = self._network.verify
            pool = self._direct[url] = self.get_connection_with_tls_context(request, verify, {})
            self.cert_verify(pool, url, verify, None)  # type: ignore[no-untyped-call]
        return pool

    def close(self) -> None:
        """Close every connection."""
        self._direct.clear()
        super().close()

    def _check_literal(self, url: str) -> None:
        host = urlsplit(url).hostname or ""
        address = literal(host)
        if self._peer_check is not None and address is not None:
            self._peer_check(host, str(address))

    def proxy_manager_for(self, proxy: str, **options: Any) -> urllib3.ProxyManager:
        """urllib3's own, with our connections."""
        if proxy.startswith("https:"):
            options["proxy_ssl_context"] = ssl.create_default_context(cafile=self._network.ca_file)
        manager: urllib3.ProxyManager = super().proxy_manager_for(proxy, **options)
        manager.pool_classes_by_scheme = self._proxied_pools
        return manager

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = self._pools


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """None: else `requests` reads a redirect's body, without any bound, even where it is not to be followed."""


class ThreadSessions:
    """One `requests.Session` per thread, its kept connections never older than `IDLE_LIMIT`."""

    def __init__(
        self,
        peer_check: PeerCheck | None = None,
        watch: Watch | None = None,
        head_timeout: float | None = None,
        network: Network | None = None,
    ) -> None:
        """`head_timeout`: seconds in which the head of an answer must have come. `network` is the way out, that of the
        environment unless it is given."""
        self._how = (peer_check, watch, head_timeout, read_network() if network is None else network)
        self._local = threading.local()

    def get(self) -> requests.Session:
        """This thread's session, fit to be used now."""
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = _Session()
            session.trust_env = False
            adapter = self._local.adapter = _Adapter(*self._how)
            session.mount("http://", adapter)
            session.mount("https://", adapter)
        elif time.monotonic() - self._local.used > IDLE_LIMIT:
            session.close()
        self._local.used = time.monotonic()
        return session

    def direct_pool(self, request: requests.PreparedRequest) -> HTTPConnectionPool | None:
        """The connections of this thread's session, as `get` has left it, to a request's host; None through a proxy."""
        pool: HTTPConnectionPool | None = self._local.adapter.direct_pool(request)
        return pool


NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""Where a gateway leads an IPv6-only host to the IPv4 address in the last 32 bits (RFC 6052): judged by that one."""
NEVER_PUBLIC = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "::/96",  # IPv4-compatible, deprecated (RFC 4291)
        "::ffff:0:0:0/96",  # IPv4-translated (RFC 2765)
        "64:ff9b:1::/48",  # NAT64 of one's own network (RFC 8215)
        "100::/64",  # discarded (RFC 6666)
        "2001::/23",  # Teredo, ORCHID and other special uses (RFC 2928)
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: any IPv4 address inside, deprecated (RFC 7526)
        "3fff::/20",  # documentation (RFC 9637)
        "5f00::/16",  # segment routing within one's own network (RFC 9602)
        "fec0::/10",  # site-local, deprecated (RFC 3879)
    )
)
"""What Python's own `is_global` calls public on one version or another, and is not for us."""


def is_private(address: str) -> bool:
    """Whether an address is anything but a public one: loopback, private, link-local, reserved, multicast, or one
    that leads to such an address."""
    parsed = ipaddress.ip_address(address.split("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            parsed = parsed.ipv4_mapped
        elif parsed in NAT64:
            parsed = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
        elif any(parsed in network for network in NEVER_PUBLIC):
            return True
    return not parsed.is_global or parsed.is_multicast


class HttpResponse(NamedTuple):
    """An HTTP answer, whole; header names in any case."""

    status: int
    body: bytes
    headers: Mapping[str, str]


def exchange(
    session: requests.Session,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    body: bytes | IO[bytes] | None = None,
    timeout: float,
    limit: int,
) -> HttpResponse:
    """One request, sent once, and its whole answer: at most `limit` bytes, begun within `timeout` seconds.

    Raises:
        NotConnected: nothing was sent.
        requests.RequestException, ValueError: no whole answer came.
    """
    with open_response(session, method, url, headers=headers, body=body, timeout=timeout) as response:
        return read_whole(response.raw, limit=limit)


def read_whole(raw: urllib3.BaseHTTPResponse, *, limit: int) -> HttpResponse:
    """An answer that has begun, with its body.

    Raises:
        requests.RequestException, ValueError: it broke off, is too long or too slow.
    """
    return HttpResponse(raw.status, read_bounded(raw, limit=limit, seconds=BODY_TIMEOUT), raw.headers)


@contextmanager
def open_response(
    session: requests.Session,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    body: bytes | IO[bytes] | None = None,
    timeout: float,
) -> Iterator[requests.Response]:
    """One request, sent once, and its answer with the body still to come; at most `timeout` seconds of silence.

    Raises:
        NotConnected: nothing was sent.
        requests.RequestException: no answer began.
    """
    prepared = prepare(method, url, headers, body)
    response = session.send(prepared, timeout=(CONNECT_TIMEOUT, timeout), allow_redirects=False, stream=True)
    with response:
        yield response


def prepare(
    method: str, url: str, headers: Mapping[str, str], body: bytes | IO[bytes] | None
) -> requests.PreparedRequest:
    """The request to be sent. What cannot be built is not quoted: one of the headers holds the key.

    Raises:
        NotConnected: it cannot be built, so nothing was sent.
    """
    if not all(value.isascii() and value.isprintable() for value in headers.values()):
        raise NotConnected("a header holds a character that cannot be sent")
    try:
        return requests.Request(method, url, headers=dict(headers), data=body).prepare()
    except (requests.RequestException, ValueError) as error:
        raise NotConnected(f"the request cannot be built: {type(error).__name__}") from None
