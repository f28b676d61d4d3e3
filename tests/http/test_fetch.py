"""One file from an allowed host: bounded in size, time and hops, whatever its server, its name or its URL tries."""

import base64
import errno
import gzip
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar

import pytest

from models.errors import DownloadError, FetchAgain, Unusable
from tests.http.servers import Line, Wire, closed_port, reply, serve
from worker import fetch
from worker.connections import is_private
from worker.fetch import MAX_REDIRECTS, Fetcher

LIMIT = 300_000
BOMB = gzip.compress(bytes(10_000_000), 1)
PICTURE = b"\x89PNG" + bytes(range(256)) * 40
Script = Callable[[Line], bool | None]


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clocks of the fetcher, shrunk."""
    monkeypatch.setattr(fetch, "READ_TIMEOUT", 0.3)
    monkeypatch.setattr(fetch, "WHOLE_TIMEOUT", 0.5)


class Temporary(tempfile.SpooledTemporaryFile):
    """The fetcher's temporary files, all of them; the disk may be full."""

    opened: ClassVar[list["Temporary"]] = []
    full: ClassVar[bool] = False

    def __init__(self, max_size: int) -> None:
        super().__init__(max_size)
        self.opened.append(self)

    def write(self, content: bytes) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(content)


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> list[Temporary]:
    """Every temporary file that the fetcher opens."""
    monkeypatch.setattr(Temporary, "opened", [])
    monkeypatch.setattr(fetch.tempfile, "SpooledTemporaryFile", Temporary)
    return Temporary.opened


def fetcher(*hosts: str) -> Fetcher:
    return Fetcher(hosts or ("127.0.0.1",), max_bytes=LIMIT)


def fetched(url: str, *hosts: str) -> bytes:
    with fetcher(*hosts).fetch(url) as file:
        file.seek(0)
        return file.read()


def fault(url: str, *hosts: str, kind: type[DownloadError] = Unusable) -> str:
    with pytest.raises(kind) as caught:
        fetched(url, *hosts)
    return caught.value.type


@contextmanager
def pictures() -> Iterator[Wire]:
    """A server of one picture."""
    with serve(lambda line: line.reply(200, PICTURE, content_type="image/png")) as wire:
        yield wire


def test_file_as_it_is() -> None:
    """The bytes, asked for once, without the key, without an encoding in between."""
    with pictures() as wire:
        assert fetched(f"{wire.url}/files/a%20b.png?x=1#part") == PICTURE

    (request,) = wire.received
    assert (request.method, request.target) == ("GET", "/files/a%20b.png?x=1")
    assert request.headers["accept-encoding"] == "identity"
    assert {"authorization", "cookie"}.isdisjoint(request.headers)


def test_large_file_goes_to_disk(monkeypatch: pytest.MonkeyPatch, files: list[Temporary]) -> None:
    """What is larger than IN_MEMORY is not kept there; the caller closes the file."""
    monkeypatch.setattr(fetch, "IN_MEMORY", 1000)
    with pictures() as wire, fetcher().fetch(wire.url) as file:
        assert file._rolled

    assert [file.closed for file in files] == [True]


@pytest.mark.parametrize("url", ["{}", "data:image/png;base64,AAAA"])
def test_full_disk(url: str, monkeypatch: pytest.MonkeyPatch, files: list[Temporary]) -> None:
    """Where the temporary file cannot grow the picture is fetched again later."""
    monkeypatch.setattr(Temporary, "full", True)
    with pictures() as wire:
        assert fault(url.format(wire.url), kind=FetchAgain) == "fetch_error"

    assert [file.closed for file in files] == [True]


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
    with pictures() as wire:
        assert fault(url.format(port=wire.port), "127.0.0.1") == "host_refused"

    assert wire.connections == 0


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}\\@evil.example/", "http://127.0.0.1:{port}/@evil.example"])
def test_address_is_judged_as_it_is_called(url: str) -> None:
    """Where parsers differ over a URL, the host that was judged is the host that is asked."""
    with pictures() as wire:
        assert fetched(url.format(port=wire.port)) == PICTURE

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
    with pictures() as wire:
        assert fault(f"https://localhost:{wire.port}/x.png", pattern) == "host_refused"
        assert fetched(f"http://localhost:{wire.port}/x.png", pattern, "LocalHost") == PICTURE

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
        *((address, False) for address in ("8.8.8.8", "34.120.1.1", "2606:4700::1", "::ffff:8.8.8.8")),
    ],
)
def test_private_addresses(address: str, private: bool) -> None:
    """Everything but a public address is private, in either notation."""
    assert is_private(address) is private


def chain(hops: int) -> Script:
    """Redirects, then the picture."""

    def script(line: Line) -> bool:
        left = int(line.request.target.strip("/") or hops)
        return line.reply(302, b"moved", location=f"/{left - 1}") if left else line.reply(200, PICTURE)

    return script


def test_redirects_up_to_the_limit() -> None:
    """Three hops are followed, a fourth is not."""
    with serve(chain(MAX_REDIRECTS)) as wire:
        assert fetched(wire.url + "/3") == PICTURE
    with serve(chain(MAX_REDIRECTS)) as wire:
        assert fault(wire.url + "/4") == "too_many_redirects"

    assert (MAX_REDIRECTS, len(wire.received)) == (3, 4)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_every_kind_of_redirect(code: int) -> None:
    """To another port of the host, absolute, whatever the code."""
    with pictures() as there, serve(lambda line: line.reply(code, b"", location=there.url + "/y")) as here:
        assert fetched(here.url + "/x") == PICTURE


@pytest.mark.parametrize("location", [*REFUSED_URLS[:3], *REFUSED_URLS[6:16], "ftp://127.0.0.1/", "//evil.example/x"])
def test_redirect_to_where_it_may_not_go(location: str) -> None:
    """Each hop is judged like the first."""
    with pictures() as there:
        place = location.format(port=there.port)
        with serve(lambda line: line.reply(302, b"", location=place)) as here:
            assert fault(here.url) == "host_refused"

    assert there.connections == 0


@pytest.mark.parametrize("location", ["http://[bad/", "data:image/png;base64,AAAA", "file:///etc/passwd"])
def test_redirect_to_no_address(location: str) -> None:
    """Where a redirect leads nowhere that HTTP can reach, the file is never taken."""
    with serve(lambda line: line.reply(302, b"", location=location)) as wire:
        assert fault(wire.url) == "host_refused"


def test_redirect_with_an_endless_body() -> None:
    """The body of a redirect is not read."""

    def script(line: Line) -> None:
        line.send(b"HTTP/1.1 302 Found\r\nLocation: http://evil.example/\r\n\r\n")
        for _ in range(30):
            line.send(bytes(100_000))
            line.silence(0.1)

    began = time.monotonic()
    with serve(script) as wire:
        assert fault(wire.url) == "host_refused"

    assert time.monotonic() - began < 1.5


@pytest.mark.parametrize("code", [201, 204, 206, 304, 400, 401, 403, 404, 410, 416, 429, 500, 502, 503])
def test_any_other_status(code: int) -> None:
    """Only a 200 is a file; anything else, 401 and 403 too, may change."""
    with serve(lambda line: line.reply(code, PICTURE if code not in (204, 304) else b"")) as wire:
        assert fault(wire.url, kind=FetchAgain) == f"http_{code}"


def drip(line: Line) -> None:
    """A piece every tenth of a second: no read timeout notices."""
    line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
    for _ in range(100):
        line.send(bytes(50))
        line.silence(0.1)


def drip_in_chunks(line: Line) -> None:
    line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(100):
        line.send(b"1\r\nx\r\n")
        line.silence(0.1)


def endless(line: Line) -> None:
    line.send(b"HTTP/1.1 200 OK\r\n\r\n")
    while not line.closing.is_set():
        line.send(bytes(100_000))


def endless_chunks(line: Line) -> None:
    line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not line.closing.is_set():
        line.send(b"186a0\r\n" + bytes(100_000) + b"\r\n")


SPOILT: dict[str, tuple[Script, type[DownloadError], tuple[str, ...]]] = {
    "truncated": (
        lambda line: line.send(reply(200, PICTURE[:100], content_length="5000")),
        FetchAgain,
        ("truncated", "fetch_error"),
    ),
    "reset in the middle": (
        lambda line: [line.send(reply(200, PICTURE[:100], content_length="5000")), line.silence(0.1), line.reset()][2],
        FetchAgain,
        ("fetch_error",),
    ),
    "cut chunk": (
        lambda line: line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc"),
        FetchAgain,
        ("fetch_error",),
    ),
    "no last chunk": (
        lambda line: line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"),
        FetchAgain,
        ("fetch_error",),
    ),
    "nothing": (lambda line: None, FetchAgain, ("fetch_error",)),
    "no HTTP": (lambda line: line.send(b"hello\r\n"), FetchAgain, ("fetch_error",)),
    "silent": (lambda line: line.silence(), FetchAgain, ("fetch_error",)),
    "silent in the middle": (
        lambda line: [line.send(reply(200, PICTURE[:100], content_length="5000")), line.silence()][0],
        FetchAgain,
        ("fetch_error",),
    ),
    "dripping": (drip, FetchAgain, ("too_slow",)),
    "dripping in chunks": (drip_in_chunks, FetchAgain, ("too_slow",)),
    "declared over the cap": (
        lambda line: line.send(reply(200, b"", content_length=str(LIMIT + 1))),
        Unusable,
        ("too_large",),
    ),
    "over the cap": (lambda line: line.reply(200, bytes(LIMIT + 1)), Unusable, ("too_large",)),
    "endless": (endless, Unusable, ("too_large",)),
    "endless chunks": (endless_chunks, Unusable, ("too_large",)),
    "a bomb in gzip": (
        lambda line: line.reply(200, BOMB, content_encoding="gzip"),
        Unusable,
        ("too_large",),
    ),
    "no gzip": (lambda line: line.reply(200, PICTURE, content_encoding="gzip"), FetchAgain, ("fetch_error",)),
    "two lengths": (
        lambda line: line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabc"),
        FetchAgain,
        ("fetch_error", "truncated"),
    ),
}


@pytest.mark.parametrize("manner", SPOILT)
def test_spoilt_transfer(manner: str, files: list[Temporary]) -> None:
    """Cut, slow, endless or too large: refused within its bounds, and no temporary file stays open."""
    script, kind, types = SPOILT[manner]
    began = time.monotonic()
    with serve(script) as wire:
        assert fault(wire.url, kind=kind) in types

    assert time.monotonic() - began < 2
    assert len(wire.received) == 1
    assert all(file.closed for file in files)


@pytest.mark.parametrize("length", ["²", "-5", "1e3", "9" * 5000, "0x10", "abc", ""])
def test_length_that_is_no_number(length: str) -> None:
    """A nonsensical Content-Length counts as none; it is no crash."""
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n".encode("latin-1")
    with serve(lambda line: line.send(head + PICTURE)) as wire:
        assert fetched(wire.url) == PICTURE


def test_file_at_the_cap() -> None:
    """Exactly PICTURE_MAX_BYTES is taken, declared or not."""
    with serve(lambda line: line.reply(200, bytes(LIMIT))) as wire:
        assert len(fetched(wire.url)) == LIMIT
    with serve(lambda line: line.send(b"HTTP/1.0 200 OK\r\n\r\n" + bytes(LIMIT))) as wire:
        assert len(fetched(wire.url)) == LIMIT


def test_nobody_there() -> None:
    """A refused connection may be accepted next time."""
    assert fault(f"http://127.0.0.1:{closed_port()}/", kind=FetchAgain) == "unreachable"


def test_connection_is_used_again() -> None:
    """Files of one host come over one connection, after a failure too."""
    codes = iter([200, 404, 200])
    with serve(lambda line: line.reply(next(codes), PICTURE)) as wire:
        source = fetcher()
        for kind in (None, FetchAgain, None):
            try:
                source.fetch(wire.url).close()
                assert kind is None
            except FetchAgain:
                assert kind is FetchAgain

    assert len(wire.received) == 3
    assert wire.connections <= 2


B64 = base64.b64encode(PICTURE).decode()


@pytest.mark.parametrize(
    ("uri", "content"),
    [
        (f"data:image/png;base64,{B64}", PICTURE),
        (f"data:;base64,{B64}", PICTURE),
        (f"data:image/png;charset=x;base64,{B64.replace('+', '%2B').replace('/', '%2F').replace('=', '%3D')}", PICTURE),
        ("data:image/png,%89PNG%00", b"\x89PNG\0"),
        ("data:,", b""),
        ("data:", b""),
    ],
    ids=range(6),
)
def test_data_uri(uri: str, content: bytes) -> None:
    """With sync_mode the URL is the picture (RFC 2397)."""
    assert fetched(uri) == content


@pytest.mark.parametrize(
    ("uri", "type_"),
    [
        ("data:image/png;base64,AAA", "undecodable"),
        ("data:image/png;base64,A A=", "undecodable"),
        ("data:image/png;base64,é", "undecodable"),
        ("data:image/png;base64,\ud83e", "undecodable"),
        ("data:image/png;base64," + base64.b64encode(bytes(LIMIT + 1)).decode(), "too_large"),
        ("data:image/png;base64," + "A" * 4 * LIMIT, "too_large"),
        ("data:image/png," + "x" * (LIMIT + 1), "too_large"),
    ],
    ids=range(7),
)
def test_bad_data_uri(uri: str, type_: str, files: list[Temporary]) -> None:
    """What is no base64, or more than a picture may be, is never taken: it would be the same next time."""
    assert fault(uri) == type_
    assert all(file.closed for file in files)


@pytest.mark.parametrize("head", ["data:image/png;base64,", "data:image/png,"])
def test_data_uri_at_the_cap(head: str) -> None:
    """Exactly PICTURE_MAX_BYTES are taken, however they are written."""
    text = base64.b64encode(bytes(LIMIT)).decode() if "base64" in head else "%00" * LIMIT

    assert len(fetched(head + text)) == LIMIT
