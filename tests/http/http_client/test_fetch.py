"""One file: bounded in size and time, whole or not at all, whatever its server tries."""

import base64
import gzip
import os
import resource
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest

from core.errors import DownloadError, FetchAgain, StorageUnavailable, Unusable
from http_client import fetch, sessions
from tests.support.fetching import IMAGE, LIMIT, fault, fetched, fetcher, images
from tests.support.servers import SOON, Peer, Script, closed_port, reply, serve


class Temporary(fetch.DownloadFile):
    """The fetcher's temporary files, all of them."""

    opened: ClassVar[list["Temporary"]] = []

    def __init__(self, max_size: int) -> None:
        super().__init__(max_size)
        self.opened.append(self)


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> list[Temporary]:
    """Every temporary file that the fetcher opens."""
    monkeypatch.setattr(Temporary, "opened", [])
    monkeypatch.setattr(fetch, "DownloadFile", Temporary)
    return Temporary.opened


def test_file_as_it_is() -> None:
    """The bytes, asked for once, without the key, without an encoding in between."""
    with images() as wire:
        assert fetched(f"{wire.url}/files/a%20b.png?x=1#part") == IMAGE

    (request,) = wire.received
    assert (request.method, request.target) == ("GET", "/files/a%20b.png?x=1")
    assert request.headers["accept-encoding"] == "identity"
    assert {"authorization", "cookie"}.isdisjoint(request.headers)


def test_large_file_goes_to_disk(monkeypatch: pytest.MonkeyPatch, files: list[Temporary]) -> None:
    """What is larger than IN_MEMORY is not kept there; the caller closes the file."""
    monkeypatch.setattr(fetch, "IN_MEMORY", 1000)
    with images() as wire, fetcher().fetch(wire.url) as file:
        assert file._rolled

    assert [file.closed for file in files] == [True]


@pytest.mark.parametrize("url", ["{}", "data:image/png;base64," + base64.b64encode(IMAGE).decode()])
def test_full_temporary_folder(
    url: str, monkeypatch: pytest.MonkeyPatch, files: list[Temporary], small_disk: Path
) -> None:
    """Where the temporary file cannot grow the trouble is ours, and says where."""
    (small_disk / "ballast").write_bytes(bytes(512 * 1024))
    monkeypatch.setattr(fetch, "IN_MEMORY", 1000)
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    with images() as wire, pytest.raises(StorageUnavailable) as caught:
        fetched(url.format(wire.url))

    assert caught.value.type == "disk_full"
    assert str(small_disk) in caught.value.message
    assert [file.closed for file in files] == [True]


def test_no_handle_for_a_connection() -> None:
    """A process out of handles cannot connect: that is no fault of the image's host."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    handles = []
    with images() as wire:
        source = fetcher()
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, hard))
            with suppress(OSError):
                while True:
                    handles.append(os.open("/dev/null", os.O_RDONLY))
            with pytest.raises(StorageUnavailable) as caught:
                source.fetch(wire.url)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for handle in handles:
                os.close(handle)

    assert caught.value.type == "too_many_open_files"


@pytest.mark.parametrize("code", [201, 204, 206, 304, 400, 401, 403, 404, 410, 416, 429, 500, 502, 503])
def test_any_other_status(code: int) -> None:
    """Only a 200 is a file; anything else, 401 and 403 too, may change."""
    with serve(lambda peer: peer.reply(code, IMAGE if code not in (204, 304) else b"")) as wire:
        assert fault(wire.url, kind=FetchAgain) == f"http_{code}"


@pytest.mark.parametrize("code", [429, 503])
def test_host_that_asks_to_wait(code: int) -> None:
    """In seconds or until a date, bounded; nonsense counts for nothing, and so does the header of another status."""
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    for header, low, high in (("7", 7, 7), (soon, 95, 100), ("999999", 900, 900), ("-1", 0, 0), ("tomorrow", 0, 0)):
        script = partial(Peer.reply, status=code, retry_after=header)
        with serve(script) as wire, pytest.raises(FetchAgain) as caught:
            fetched(wire.url)
        assert low <= caught.value.retry_after <= high
    with serve(lambda peer: peer.reply(404, b"", retry_after="7")) as wire, pytest.raises(FetchAgain) as caught:
        fetched(wire.url)
    assert caught.value.retry_after == 0


def test_body_that_drips_is_cut_off_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long before the time for a whole file is over, because so slow a file would not come in time anyway; also where
    not a byte of the file itself comes, only of HTTP's marks around its chunks."""
    monkeypatch.setattr(fetch, "LEAST_RATE", (10_000, 0.3))
    for script in (drip, drip_in_chunks, *(partial(drip_between_chunks, *marks) for marks in MARKS)):
        began = time.monotonic()
        with serve(script) as wire:
            assert fault(wire.url, kind=FetchAgain) == "too_slow"
            assert time.monotonic() - began < SOON


def test_slow_body_that_is_fast_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that takes several windows, each with enough bytes, comes whole."""
    monkeypatch.setattr(fetch, "LEAST_RATE", (100, 0.05))  # a piece is enough, however late it comes

    def slowly(peer: Peer) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(10):
            peer.send(bytes(100))
            peer.silence(0.08)

    with serve(slowly) as wire:
        assert len(fetched(wire.url)) == 1000


def test_head_that_drips_is_cut_off_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte of the head now and then, which no read timeout notices; on a kept connection too."""
    replies, cut_after = iter([True]), sessions.cut_after

    def script(peer: Peer) -> bool | None:
        if next(replies, None):
            return peer.reply(200, IMAGE)
        for byte in b"HTTP/1.1 200 OK\r\n" + b"X-Filler: 1\r\n" * 1000:
            peer.send(bytes([byte]))
            peer.silence(0.05)
        return None

    with serve(script) as wire:
        source = fetcher()
        source.fetch(wire.url).close()
        monkeypatch.setattr(sessions, "cut_after", lambda seconds: cut_after(seconds / 50))
        began = time.monotonic()
        with pytest.raises(FetchAgain) as caught:
            source.fetch(wire.url)
        assert time.monotonic() - began < SOON

    assert caught.value.type == "fetch_error"
    assert wire.connections == 1


def drip(peer: Peer) -> None:
    """A piece every tenth of a second: no read timeout notices."""
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
    for _ in range(1000):
        peer.send(bytes(5))
        peer.silence(0.1)


def drip_in_chunks(peer: Peer) -> None:
    peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(1000):
        peer.send(b"1\r\nx\r\n")
        peer.silence(0.1)


MARKS = ((b"", b"0"), (b"5;", b"x"), (b"3\r\nabc\r\n0\r\n", b"X-A: 1\r\n"))
"""What begins, and what then drips: the size of a chunk, its extension, trailers."""


def drip_between_chunks(begin: bytes, drop: bytes, peer: Peer) -> None:
    peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + begin)
    for _ in range(1000):
        peer.send(drop)
        peer.silence(0.1)


def endless(peer: Peer) -> None:
    peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
    while not peer.closing.is_set():
        peer.send(bytes(100_000))


def endless_chunks(peer: Peer) -> None:
    peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not peer.closing.is_set():
        peer.send(b"186a0\r\n" + bytes(100_000) + b"\r\n")


SPOILT: dict[str, tuple[Script, type[DownloadError], tuple[str, ...]]] = {
    "truncated": (
        lambda peer: peer.send(reply(200, IMAGE[:100], content_length="5000")),
        FetchAgain,
        ("truncated", "fetch_error"),
    ),
    "reset in the middle": (
        lambda peer: [
            peer.send(reply(200, IMAGE[:100], content_length="5000")),
            peer.silence(0.1),
            peer.reset(),
        ][2],
        FetchAgain,
        ("fetch_error",),
    ),
    "cut chunk": (
        lambda peer: peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc"),
        FetchAgain,
        ("fetch_error",),
    ),
    "no last chunk": (
        lambda peer: peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"),
        FetchAgain,
        ("fetch_error",),
    ),
    "nothing": (lambda peer: None, FetchAgain, ("fetch_error",)),
    "no HTTP": (lambda peer: peer.send(b"hello\r\n"), FetchAgain, ("fetch_error",)),
    "silent": (lambda peer: peer.silence(), FetchAgain, ("fetch_error",)),
    "silent in the middle": (
        lambda peer: [peer.send(reply(200, IMAGE[:100], content_length="5000")), peer.silence()][0],
        FetchAgain,
        ("fetch_error",),
    ),
    "dripping": (drip, FetchAgain, ("too_slow",)),
    "dripping in chunks": (drip_in_chunks, FetchAgain, ("too_slow",)),
    "declared over the cap": (
        lambda peer: peer.send(reply(200, b"", content_length=str(LIMIT + 1))),
        Unusable,
        ("too_large",),
    ),
    "over the cap": (lambda peer: peer.reply(200, bytes(LIMIT + 1)), Unusable, ("too_large",)),
    "endless": (endless, Unusable, ("too_large",)),
    "endless chunks": (endless_chunks, Unusable, ("too_large",)),
    "a bomb in gzip": (
        lambda peer: peer.reply(200, gzip.compress(bytes(10_000_000), 1), content_encoding="gzip"),
        Unusable,
        ("too_large",),
    ),
    "no gzip": (lambda peer: peer.reply(200, IMAGE, content_encoding="gzip"), FetchAgain, ("fetch_error",)),
    "two lengths": (
        lambda peer: peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabc"),
        FetchAgain,
        ("fetch_error", "truncated"),
    ),
}


CLOCKS = {
    "silent": ("READ_TIMEOUT", 0.3),
    "silent in the middle": ("READ_TIMEOUT", 0.3),
    "dripping": ("WHOLE_TIMEOUT", 0.5),
    "dripping in chunks": ("WHOLE_TIMEOUT", 0.5),
}
"""The clock of the fetcher that ends a transfer, shrunk."""


@pytest.mark.parametrize("manner", SPOILT)
def test_spoilt_transfer(manner: str, files: list[Temporary], monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut, slow, endless or too large: refused within its bounds, and no temporary file stays open."""
    if manner in CLOCKS:
        monkeypatch.setattr(fetch, *CLOCKS[manner])
    script, kind, types = SPOILT[manner]
    began = time.monotonic()
    with serve(script) as wire:
        assert fault(wire.url, kind=kind) in types

    assert time.monotonic() - began < SOON
    assert len(wire.received) == 1
    assert all(file.closed for file in files)


@pytest.mark.parametrize("length", ["²", "-5", "1e3", "9" * 5000, "0x10", "abc", ""])
def test_length_that_is_no_number(length: str) -> None:
    """A nonsensical Content-Length counts as none; it is no crash."""
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n".encode("latin-1")
    with serve(lambda peer: peer.send(head + IMAGE)) as wire:
        assert fetched(wire.url) == IMAGE


def test_file_at_the_cap() -> None:
    """Exactly PICTURE_MAX_BYTES is taken, declared or not."""
    with serve(lambda peer: peer.reply(200, bytes(LIMIT))) as wire:
        assert len(fetched(wire.url)) == LIMIT
    with serve(lambda peer: peer.send(b"HTTP/1.0 200 OK\r\n\r\n" + bytes(LIMIT))) as wire:
        assert len(fetched(wire.url)) == LIMIT


def test_nobody_there() -> None:
    """A refused connection may be accepted next time."""
    assert fault(f"http://127.0.0.1:{closed_port()}/", kind=FetchAgain) == "unreachable"


def test_connection_is_used_again() -> None:
    """Files of one host come over one connection, after a failure too."""
    codes = iter([200, 404, 200])
    with serve(lambda peer: peer.reply(next(codes), IMAGE)) as wire:
        source = fetcher()
        for kind in (None, FetchAgain, None):
            try:
                source.fetch(wire.url).close()
                assert kind is None
            except FetchAgain:
                assert kind is FetchAgain

    assert len(wire.received) == 3
    assert wire.connections <= 2


B64 = base64.b64encode(IMAGE).decode()


@pytest.mark.parametrize(
    ("uri", "content"),
    [
        (f"data:image/png;base64,{B64}", IMAGE),
        (f"data:;base64,{B64}", IMAGE),
        (f"data:image/png;charset=x;base64,{B64.replace('+', '%2B').replace('/', '%2F').replace('=', '%3D')}", IMAGE),
        ("data:image/png,%89PNG%00", b"\x89PNG\0"),
        ("data:,", b""),
        ("data:", b""),
    ],
    ids=range(6),
)
def test_data_uri(uri: str, content: bytes) -> None:
    """With sync_mode the URL is the image (RFC 2397)."""
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
    """What is no base64, or more than an image may be, is never taken: it would be the same next time."""
    assert fault(uri) == type_
    assert all(file.closed for file in files)


@pytest.mark.parametrize("head", ["data:image/png;base64,", "data:image/png,"])
def test_data_uri_at_the_cap(head: str) -> None:
    """Exactly PICTURE_MAX_BYTES are taken, however they are written."""
    text = base64.b64encode(bytes(LIMIT)).decode() if "base64" in head else "%00" * LIMIT

    assert len(fetched(head + text)) == LIMIT
