"""A file that breaks off goes on where it was, of the same version; never a mixture of two, and never for ever."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from core.errors import FetchAgain, Unusable
from http_client import arrivals, fetch
from tests.support.clocks import SetClock
from tests.support.fetching import LIMIT, fault, fetched
from tests.support.servers import Peer, Wire, reply, serve

OLD, NEW = os.urandom(50_000), os.urandom(60_000)
CHANGED = format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)
NOW = format_datetime(datetime.now(UTC), usegmt=True)


@dataclass
class Host:
    """A host that serves parts as RFC 9110 says, and cuts its answers off."""

    versions: Sequence[tuple[bytes, dict[str, str]]]
    """What stands there at each request: content and headers; the last stays."""
    cuts: Sequence[int] = ()
    """After how many bytes of an answer's body it is cut, each once; the others come whole."""
    heeds_conditions: bool = True
    asked: list[str | None] = field(default_factory=list)
    """The `Range` of each request."""

    def answer(self, peer: Peer) -> bool | None:
        assert peer.request
        number, wanted = len(self.asked), peer.request.headers.get("range")
        self.asked.append(wanted)
        content, headers = self.versions[min(number, len(self.versions) - 1)]
        validator = headers.get("etag") or headers.get("last_modified")
        start = int(re.findall(r"\d+", wanted)[0]) if wanted else 0
        if self.heeds_conditions and peer.request.headers.get("if-range", validator) != validator:
            start = 0
        part = {"content_range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        answer = reply(206 if start else 200, content[start:], accept_ranges="bytes", **part, **headers)
        if number >= len(self.cuts):
            peer.send(answer)
            return True
        peer.send(answer[: len(answer) - len(content[start:]) + self.cuts[number]])
        return None


@contextmanager
def serving(host: Host) -> Iterator[Wire]:
    with serve(host.answer) as wire:
        yield wire


@pytest.mark.parametrize("version", [{"etag": '"v1"'}, {"last_modified": CHANGED, "date": NOW}])
def test_goes_on_where_it_was(version: dict[str, str]) -> None:
    """Twice cut, the file comes whole, and no byte of it twice; after a redirect from where it was found."""
    host = Host([(OLD, version)], cuts=(20_000, 10_000))
    with serving(host) as wire:
        assert fetched(wire.url) == OLD
    assert host.asked == [None, "bytes=20000-", "bytes=30000-"]

    host = Host([(OLD, version)], cuts=(20_000,))
    with serving(host) as wire, serve(lambda peer: peer.reply(302, location=f"{wire.url}/there")) as first:
        assert fetched(first.url) == OLD
        assert [request.target for request in wire.received] == ["/there", "/there"]
    assert len(first.received) == 1


def test_changed_file_begins_anew() -> None:
    """`If-Range` has its host send all of the new one, and nothing of the old one stays, were it shorter or longer."""
    for first, second in ((OLD, NEW), (NEW, OLD[:100])):
        host = Host([(first, {"etag": '"v1"'}), (second, {"etag": '"v2"'})], cuts=(20_000,))
        with serving(host) as wire:
            assert fetched(wire.url) == second
        assert host.asked == [None, "bytes=20000-"]


@pytest.mark.parametrize(("new", "type_"), [(NEW, "other_part"), (NEW[:50_000], "changed")])
def test_host_that_mixes_versions_is_not_believed(new: bytes, type_: str) -> None:
    """It sends the rest of another version all the same: no file, and the next try begins anew."""
    host = Host([(OLD, {"etag": '"v1"'}), (new, {"etag": '"v2"'})], cuts=(20_000,), heeds_conditions=False)
    with serving(host) as wire:
        assert fault(wire.url, kind=FetchAgain) == type_
        assert fetched(wire.url) == new


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"etag": 'W/"weak"'},
        {"etag": "unquoted"},
        {"etag": 'W/"weak"', "last_modified": CHANGED, "date": NOW},
        {"last_modified": NOW, "date": NOW},
        {"last_modified": "yesterday", "date": NOW},
        {"last_modified": CHANGED},
        {"etag": '"v1"', "accept_ranges": ""},
        {"etag": '"v1"', "accept_ranges": "none"},
        {"etag": '"v1"', "content_encoding": "br"},
    ],
)
def test_file_without_a_sure_version_is_not_put_together(headers: dict[str, str]) -> None:
    """Nothing tells two versions apart for certain, or the host knows no parts: it is one try that failed."""
    given = {"accept_ranges": "bytes", **headers}
    with serve(lambda peer: peer.send(reply(200, OLD[:9000], content_length="50000", **given))) as wire:
        assert fault(wire.url, kind=FetchAgain) in ("truncated", "fetch_error")
    assert len(wire.received) == 1


@pytest.mark.parametrize(
    "content_range",
    ["", "bytes 0-49999/50000", "bytes 19999-49999/50000", "bytes 20000-49998/50000", "bytes 20000-59999/60000", "x"],
)
def test_part_that_was_not_asked_for(content_range: str) -> None:
    """The host says itself that it is another one, or does not say."""
    answers = iter([reply(200, OLD, etag='"v"', accept_ranges="bytes")[:-30_000]])
    part = reply(206, OLD[20_000:], etag='"v"', content_range=content_range)
    with serve(lambda peer: peer.send(next(answers, part))) as wire:
        assert fault(wire.url, kind=FetchAgain) == "other_part"


def test_it_does_not_go_on_for_ever() -> None:
    """A few times, while it gets on; then it is a try that failed."""
    host = Host([(OLD, {"etag": '"v"'})], cuts=(100,) * 50)
    with serving(host) as wire:
        assert fault(wire.url, kind=FetchAgain) in ("truncated", "fetch_error")
    assert len(host.asked) == fetch.RESUMES + 1

    host = Host([(OLD, {"etag": '"v"'})], cuts=(100, 0, 0, 0))
    with serving(host) as wire:
        assert fault(wire.url, kind=FetchAgain) in ("truncated", "fetch_error")
    assert len(host.asked) == 2


def test_bounds_hold_for_the_whole_file() -> None:
    """Not for each part of it."""
    content = bytes(LIMIT + 10)
    host = Host([(content, {"etag": '"v"'})], cuts=(LIMIT - 10,))
    chunked = b'HTTP/1.1 200 OK\r\nETag: "v"\r\nAccept-Ranges: bytes\r\nTransfer-Encoding: chunked\r\n\r\n'

    def answer(peer: Peer) -> bool | None:
        if host.asked:
            return host.answer(peer)
        host.asked.append(None)
        peer.send(chunked + f"{LIMIT - 10:x}\r\n".encode() + content[:-20] + b"\r\n")
        return None

    with serve(answer) as wire:
        assert fault(wire.url, kind=Unusable) == "too_large"
    assert host.asked == [None, f"bytes={LIMIT - 10}-"]


def test_body_without_a_length_goes_on_too() -> None:
    """The part says how long the whole file is."""
    host = Host([(OLD, {"etag": '"v"'})])
    chunked = b'HTTP/1.1 200 OK\r\nETag: "v"\r\nAccept-Ranges: bytes\r\nTransfer-Encoding: chunked\r\n\r\n'

    def answer(peer: Peer) -> bool | None:
        if host.asked:
            return host.answer(peer)
        host.asked.append(None)
        peer.send(chunked + f"{20_000:x}\r\n".encode() + OLD[:20_000] + b"\r\n")
        return None

    with serve(answer) as wire:
        assert fetched(wire.url) == OLD
    assert host.asked == [None, "bytes=20000-"]


def test_nothing_is_asked_for_that_could_not_come_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a rest nor one more hop, once half of the time for a file is over: a place is not held for long."""
    clock = SetClock()
    for module in (fetch, arrivals):
        monkeypatch.setattr(module, "time", clock)
    host = Host([(OLD, {"etag": '"v"'})], cuts=(100,))

    def late(peer: Peer) -> bool | None:
        clock.now += 0.7 * fetch.WHOLE_TIMEOUT
        return host.answer(peer)

    with serve(late) as wire:
        assert fault(wire.url, kind=FetchAgain) in ("truncated", "fetch_error")
    assert len(host.asked) == 1

    def send_on(peer: Peer) -> bool:
        clock.now += 0.3 * fetch.WHOLE_TIMEOUT
        return peer.reply(302, location="/again")

    with serve(send_on) as wire:
        assert fault(wire.url, kind=FetchAgain) == "too_slow"
    assert len(wire.received) == 2
