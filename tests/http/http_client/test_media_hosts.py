"""From where an image may come: named hosts, URLs without tricks, at every hop, no private address by name."""

import socket
import threading

import pytest

from core.errors import DownloadError, FetchAgain
from http_client.fetch import MAX_REDIRECTS
from http_client.sessions import is_private
from tests.support.fetching import IMAGE, fault, fetched, images
from tests.support.servers import Peer, Script, serve

REFUSED_URLS = [
    "http://evil.example/x.png",
    "http://127.0.0.1@evil.example/x.png",
    "http://127.0.0.1:80@evil.example/x.png",
    "http://x@127.0.0.1:{port}/x.png",
    "http://x:y@127.0.0.1:{port}/x.png",
    "http://evil.example#@127.0.0.1:{port}/",
    "http://evil.example\\@127.0.0.1:{port}/",
    "http://127.0.0.2:{port}/x.png",
    "http://127.1:{port}/x.png",
    "http://2130706433:{port}/x.png",
    "http://0x7f000001:{port}/x.png",
    "http://0177.0.0.1:{port}/x.png",
    "http://127.0.0.1.:{port}/x.png",
    "http://localhost:{port}/x.png",
    "http://[::1]:{port}/x.png",
    "http://[::ffff:127.0.0.1]:{port}/x.png",
    "http://0.0.0.0:{port}/x.png",
    "/x.png",
    "",
    "x",
    "ftp://127.0.0.1:{port}/x.png",
    "file:///etc/passwd",
    "FILE:///etc/passwd",
    "gopher://127.0.0.1:{port}/",
    "javascript:alert(1)",
    "DATA:image/png;base64,AAAA",
    "http://[bad/x.png",
    "http://[::1/x.png",
    "http://127.0.0.1:port/x.png",
    "http://127.0.0.1:99999/x.png",
    "http://evil.example\uff0f.127.0.0.1/x.png",
    "http://\u2488\u2488/x.png",
    "http://127.0.0.1\n.evil.example/",
    "http:///x.png",
    "http://a..b/",
    "http://" + "a" * 70 + ".example/",
    "http://*/x.png",
    "http://\ud83e/x.png",
]


@pytest.mark.parametrize("url", REFUSED_URLS, ids=ascii)
def test_address_that_is_refused(url: str) -> None:
    """Only the named host, spelled as it is named, over http or https and without a user: all else is never taken."""
    with images() as wire:
        assert fault(url.format(port=wire.port), "127.0.0.1") == "host_refused"

    assert wire.connections == 0


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}\\@evil.example/", "http://127.0.0.1:{port}/@evil.example"])
def test_address_is_judged_as_it_is_called(url: str) -> None:
    """Where parsers differ over a URL, the host that was judged is the host that is asked."""
    with images() as wire:
        assert fetched(url.format(port=wire.port)) == IMAGE

    assert wire.received[0].headers["host"] == f"127.0.0.1:{wire.port}"


PATTERNS = ("v3.fal.media", "*.fal.media", "storage.googleapis.com")


@pytest.mark.parametrize(
    "host",
    [
        "fal.media",
        "evilfal.media",
        "fal.media.evil.example",
        "v3.fal.media.evil.example",
        "evil.example\\x.fal.media",
        "evil.example\\.fal.media",
        "evil.example%2fx.fal.media",
        "evil.example?x.fal.media",
        "evil.example#.fal.media",
        "evil.example/.fal.media",
        "v3.fal.media@evil.example",
        "storage.googleapis.com.evil.example",
        "xstorage.googleapis.com",
    ],
)
def test_pattern_covers_names_beneath_only(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However a URL is spelled, no name but one beneath the pattern is ever looked up."""
    looked_up: list[str] = []

    def look_up(name: str, *_: object, **__: object) -> list[object]:
        looked_up.append(name)
        raise socket.gaierror("not in this test")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)

    with pytest.raises(DownloadError):
        fetched(f"https://{host}/x.png", *PATTERNS)

    assert [name for name in looked_up if not name.endswith(".fal.media")] == []


@pytest.mark.parametrize("host", ["v3.fal.media", "V3b.FAL.Media", "a.b.fal.media", "storage.googleapis.com"])
def test_allowed_host_is_looked_up(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names and patterns count in any case; https is asked, and a name that does not resolve may next time."""
    looked_up: list[tuple[str, int]] = []

    def look_up(name: str, port: int, *_: object, **__: object) -> list[object]:
        looked_up.append((name, port))
        raise socket.gaierror("not in this test")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)

    assert fault(f"https://{host}/x.png", *PATTERNS, kind=FetchAgain) == "unreachable"
    assert looked_up == [(host.lower(), 443)]


def test_pattern_needs_https() -> None:
    """A host that is only covered by a pattern is not trusted over plain http."""
    assert fault("http://x.fal.media/x.png", *PATTERNS) == "host_refused"


@pytest.mark.parametrize("pattern", ["*", "*host", "l*"])
def test_private_address_behind_an_allowed_name(pattern: str) -> None:
    """A name that resolves to this machine is refused when it is connected to, unless it is named itself."""
    with images() as wire:
        assert fault(f"https://localhost:{wire.port}/x.png", pattern) == "host_refused"
        assert fetched(f"http://localhost:{wire.port}/x.png", pattern, "LocalHost") == IMAGE

    assert len(wire.received) == 1


@pytest.mark.parametrize(
    ("address", "private"),
    [
        *(
            (address, True)
            for address in ("127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.1", "192.168.1.1", "0.0.0.0")
        ),
        *(
            (address, True)
            for address in ("169.254.169.254", "100.64.0.1", "224.0.0.1", "255.255.255.255", "::", "::1")
        ),
        *((address, True) for address in ("fe80::1%eth0", "fd00::1", "ff02::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1")),
        *((address, True) for address in ("64:ff9b::7f00:1", "64:ff9b::10.0.0.1", "64:ff9b::a9fe:a9fe")),
        *(
            (address, True)
            for address in ("2002:7f00:1::1", "2002:808:808::1", "fec0::1", "64:ff9b:1::1", "::127.0.0.1", "::8.8.8.8")
        ),
        *((address, True) for address in ("::ffff:0:127.0.0.1", "2001::1", "2001:db8::1", "3fff::1", "100::1")),
        *((address, True) for address in ("2001:1::1", "2001:20::1", "5f00::1", "::ffff:224.0.0.1")),
        *((address, False) for address in ("8.8.8.8", "34.120.1.1", "2606:4700::1", "::ffff:8.8.8.8")),
        *((address, False) for address in ("64:ff9b::8.8.8.8", "2001:4860:4860::8888", "2a00:1450:4001::1")),
    ],
)
def test_private_addresses(address: str, private: bool) -> None:
    """Everything but a public address is private, in either notation."""
    assert is_private(address) is private


def chain(hops: int) -> Script:
    """Redirects, then the image."""

    def script(peer: Peer) -> bool:
        left = int(peer.request.target.strip("/") or hops)
        return peer.reply(302, b"moved", location=f"/{left - 1}") if left else peer.reply(200, IMAGE)

    return script


def test_redirects_up_to_the_limit() -> None:
    """Three hops are followed, a fourth is not."""
    with serve(chain(MAX_REDIRECTS)) as wire:
        assert fetched(wire.url + "/3") == IMAGE
    with serve(chain(MAX_REDIRECTS)) as wire:
        assert fault(wire.url + "/4") == "too_many_redirects"

    assert (MAX_REDIRECTS, len(wire.received)) == (3, 4)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_every_kind_of_redirect(code: int) -> None:
    """To another port of the host, absolute, whatever the code."""
    with images() as there, serve(lambda peer: peer.reply(code, b"", location=there.url + "/y")) as here:
        assert fetched(here.url + "/x") == IMAGE


@pytest.mark.parametrize("location", [*REFUSED_URLS[:3], *REFUSED_URLS[6:16], "ftp://127.0.0.1/", "//evil.example/x"])
def test_redirect_to_where_it_may_not_go(location: str) -> None:
    """Each hop is judged like the first."""
    with images() as there:
        place = location.format(port=there.port)
        with serve(lambda peer: peer.reply(302, b"", location=place)) as here:
            assert fault(here.url) == "host_refused"

    assert there.connections == 0


@pytest.mark.parametrize("location", ["http://[bad/", "data:image/png;base64,AAAA", "file:///etc/passwd"])
def test_redirect_to_no_address(location: str) -> None:
    """Where a redirect leads nowhere that HTTP can reach, the file is never taken."""
    with serve(lambda peer: peer.reply(302, b"", location=location)) as wire:
        assert fault(wire.url) == "host_refused"


def test_redirect_with_an_endless_body() -> None:
    """The body of a redirect is not read."""

    sent = threading.Event()

    def script(peer: Peer) -> None:
        peer.send(b"HTTP/1.1 302 Found\r\nLocation: http://evil.example/\r\n\r\n")
        for _ in range(1000):
            peer.send(bytes(100_000))
        sent.set()

    with serve(script) as wire:
        assert fault(wire.url) == "host_refused"

    assert not sent.is_set()
