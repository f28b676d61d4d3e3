"""The provider's keys are fetched sparingly, kept when a fetch fails, and never half believed."""

import base64
import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache

import pytest
from nacl.signing import SigningKey

from core.errors import KeysUnavailable
from tests.support.clocks import SetClock
from tests.support.servers import SOON, Peer, Wire, closed_port, serve
from webhook_receiver import jwks as module
from webhook_receiver.jwks import KeySet

FIRST, SECOND = (bytes(SigningKey(bytes([n]) * 32).verify_key) for n in (1, 2))


def entry(key: bytes, **changes: object) -> dict[str, object]:
    """One entry as the live service publishes it: with padding."""
    return {"kty": "OKP", "crv": "Ed25519", "x": base64.urlsafe_b64encode(key).decode(), **changes}


def key_set(*entries: object) -> bytes:
    return json.dumps({"keys": list(entries)}).encode()


class Publisher:
    """What the key server says now, to be changed in mid-test."""

    def __init__(self) -> None:
        self.script: Callable[[Peer], bool | None] = lambda peer: peer.reply(200, key_set(entry(FIRST)))

    def publish(self, *entries: object) -> None:
        body = key_set(*entries)
        self.script = lambda peer: peer.reply(200, body)


@pytest.fixture
def publisher() -> Publisher:
    return Publisher()


@pytest.fixture
def wire(publisher: Publisher) -> Iterator[Wire]:
    with serve(lambda peer: publisher.script(peer)) as wire:
        yield wire


@pytest.fixture
def published_set(wire: Wire) -> KeySet:
    return KeySet(wire.url + "/.well-known/jwks.json")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every question is allowed to fetch, and no set stays fresh."""
    monkeypatch.setattr(module, "ASK_EVERY", 0.0)
    monkeypatch.setattr(module, "FRESH_FOR", -1.0)


@pytest.fixture(name="clock")
def set_clock(monkeypatch: pytest.MonkeyPatch) -> SetClock:
    """The clock by which a set grows old."""
    clock = SetClock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def endless(peer: Peer) -> None:
    peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
    while not peer.closing.is_set():
        peer.send(b" " * 65_536)


def dripping(peer: Peer) -> None:
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(1000):
        peer.send(b" ")
        peer.silence(0.1)


def dripping_head(peer: Peer) -> None:
    for byte in b"HTTP/1.1 200 OK\r\n" + b"X-Filler: 1\r\n" * 99:
        peer.send(bytes([byte]))
        peer.silence(0.05)


def dripping_between_chunks(peer: Peer) -> None:
    peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(1000):
        peer.send(b"0")
        peer.silence(0.1)


@cache
def bomb() -> bytes:
    return gzip.compress(bytes(50_000_000), 1)


BROKEN: dict[str, Callable[[Peer], bool | None]] = {
    "server error": lambda peer: peer.reply(500, key_set(entry(SECOND))),
    "not found": lambda peer: peer.reply(404, key_set(entry(SECOND))),
    "empty": lambda peer: peer.reply(200, b""),
    "closed without a word": lambda peer: None,
    "reset": lambda peer: peer.reset(),
    "silent": lambda peer: peer.silence(),
    "cut in the middle": lambda peer: peer.send(
        b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + key_set(entry(SECOND))
    ),
    "silent in the middle": lambda peer: [
        peer.send(b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"ke'),
        peer.silence(),
    ][0],
    "broken chunk": lambda peer: peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n"),
    "dripping": dripping,
    "dripping in its head": dripping_head,
    "dripping between chunks": dripping_between_chunks,
    "no HTTP": lambda peer: peer.send(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "HTML": lambda peer: peer.reply(200, b"<html>"),
    "half a JSON": lambda peer: peer.reply(200, key_set(entry(SECOND))[:-3]),
    "not Unicode": lambda peer: peer.reply(200, b"\xff\xfe\xfd"),
    "a list": lambda peer: peer.reply(200, b"[]"),
    "keys are no list": lambda peer: peer.reply(200, b'{"keys": {"x": 1}}'),
    "no keys": lambda peer: peer.reply(200, key_set()),
    "no usable key": lambda peer: peer.reply(200, key_set(entry(SECOND, kty="RSA"))),
    "nested too deeply": lambda peer: peer.reply(200, b"[" * 200_000),
    "a number too long": lambda peer: peer.reply(200, b"9" * 10_000),
    "too large": lambda peer: peer.reply(200, key_set(entry(SECOND)) + b" " * module.SET_MAX_BYTES),
    "endless": endless,
    "no gzip": lambda peer: peer.reply(200, key_set(entry(SECOND)), content_encoding="gzip"),
    "cut gzip": lambda peer: peer.reply(200, gzip.compress(key_set(entry(SECOND)))[:40], content_encoding="gzip"),
    "a bomb": lambda peer: peer.reply(200, bomb(), content_encoding="gzip"),
}


def hurry(manner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shrink the clock that ends a fetch, where that is what ends it."""
    if manner.startswith(("silent", "dripping")):
        monkeypatch.setattr(module, "FETCH_TIMEOUT", 0.3)


@pytest.mark.parametrize("x", [base64.urlsafe_b64encode(FIRST), base64.urlsafe_b64encode(FIRST).rstrip(b"=")])
def test_padding_is_optional(x: bytes, publisher: Publisher, published_set: KeySet) -> None:
    """The live service publishes `x` with padding, the standard says without; both are the same key."""
    publisher.publish(entry(FIRST, x=x.decode()))

    assert published_set.current() == (FIRST,)


@pytest.mark.parametrize(
    "odd",
    [
        None,
        "a string",
        {},
        entry(SECOND, kty="RSA"),
        entry(SECOND, crv="X25519"),
        entry(SECOND, x=None),
        entry(SECOND, x=7),
        entry(SECOND, x=""),
        entry(SECOND, x="A"),
        entry(SECOND, x="é" * 44),
        entry(SECOND[:31]),
        entry(SECOND + b"\0"),
    ],
    ids=repr,
)
def test_odd_entries_are_passed_over(odd: object, publisher: Publisher, published_set: KeySet) -> None:
    """An entry that is no Ed25519 key costs nothing but itself; its neighbours count, in their order."""
    publisher.publish(entry(SECOND), odd, entry(FIRST, use="sig", kid="1"))

    assert published_set.current() == (SECOND, FIRST)


def test_set_is_cached(wire: Wire, published_set: KeySet) -> None:
    """A set in hand is used without asking, and what is asked is the one URL, once."""
    assert [published_set.current() for _ in range(5)] == [(FIRST,)] * 5
    assert [(received.method, received.target) for received in wire.received] == [("GET", "/.well-known/jwks.json")]


def test_set_grows_old(clock: SetClock, wire: Wire, publisher: Publisher, published_set: KeySet) -> None:
    """After FRESH_FOR seconds the set is asked for again."""
    published_set.current()
    publisher.publish(entry(SECOND))
    clock.now += module.FRESH_FOR - 1
    assert published_set.current() == (FIRST,)

    clock.now += 2

    assert published_set.current() == (SECOND,)
    assert len(wire.received) == 2


def together(count: int, work: Callable[[], object]) -> list[object]:
    """The results of `count` threads that start at once."""
    results: list[object] = []
    barrier = threading.Barrier(count)

    def run() -> None:
        barrier.wait(60)
        results.append(work())

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_cold_start_of_many_fetches_once(wire: Wire, publisher: Publisher, published_set: KeySet) -> None:
    """Eight deliveries that find no keys make one request, and all eight get its answer."""
    quick = publisher.script
    publisher.script = lambda peer: [peer.silence(0.1), quick(peer)][1]

    assert together(8, published_set.current) == [(FIRST,)] * 8
    assert len(wire.received) == 1


def test_misses_of_many_fetch_once(clock: SetClock, wire: Wire, publisher: Publisher, published_set: KeySet) -> None:
    """After a rotation a burst of misses makes one request; every one of them gets the new set, late comers too."""
    tried = published_set.current()
    publisher.publish(entry(SECOND))
    clock.now += module.ASK_EVERY

    assert together(8, lambda: published_set.refresh_after_miss(tried)) == [(SECOND,)] * 8
    assert published_set.refresh_after_miss(tried) == (SECOND,)
    assert len(wire.received) == 2


def test_forgeries_do_not_make_us_hammer_the_provider(
    clock: SetClock, wire: Wire, publisher: Publisher, published_set: KeySet
) -> None:
    """Within a minute of the last fetch a miss asks nobody, and there is nothing newer to try."""
    tried = published_set.current()
    publisher.publish(entry(SECOND))
    clock.now += module.ASK_EVERY - 1

    assert [published_set.refresh_after_miss(tried) for _ in range(50)] == [None] * 50
    assert len(wire.received) == 1


def test_miss_a_minute_later_asks_again(clock: SetClock, wire: Wire, published_set: KeySet) -> None:
    """A minute after the last fetch a miss asks once more; an unchanged set is nothing newer."""
    tried = published_set.current()
    clock.now += module.ASK_EVERY

    assert published_set.refresh_after_miss(tried) is None
    assert len(wire.received) == 2


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("manner", BROKEN)
def test_last_good_set_stays(
    manner: str, publisher: Publisher, published_set: KeySet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the next fetch fails, the last good set goes on being used, and a miss finds nothing newer."""
    assert published_set.current() == (FIRST,)
    publisher.script = BROKEN[manner]
    hurry(manner, monkeypatch)
    began = time.monotonic()

    assert published_set.current() == (FIRST,)
    assert published_set.refresh_after_miss((FIRST,)) is None
    assert time.monotonic() - began < 2 * SOON


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("manner", BROKEN)
def test_no_set_at_all(
    manner: str, publisher: Publisher, published_set: KeySet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there never was a good set the deliveries cannot be judged: KeysUnavailable, however the fetch fails."""
    publisher.script = BROKEN[manner]
    hurry(manner, monkeypatch)

    with pytest.raises(KeysUnavailable):
        published_set.current()


def test_nobody_listens() -> None:
    """A refused connection is a failed fetch like any other."""
    with pytest.raises(KeysUnavailable):
        KeySet(f"http://127.0.0.1:{closed_port()}/").current()


def test_with_no_set_a_second_is_the_pace(
    clock: SetClock, wire: Wire, publisher: Publisher, published_set: KeySet
) -> None:
    """With nothing in hand it is tried again after a second instead of a minute, and not before."""
    good, publisher.script = publisher.script, BROKEN["server error"]
    for _ in range(5):
        with pytest.raises(KeysUnavailable):
            published_set.current()
        clock.now += 0.19
    assert len(wire.received) == 1

    publisher.script = good
    clock.now += 0.1

    assert published_set.current() == (FIRST,)


def test_gzip_is_understood(publisher: Publisher, published_set: KeySet) -> None:
    """The live reply may be compressed."""
    body = gzip.compress(key_set(entry(FIRST)))
    publisher.script = lambda peer: peer.reply(200, body, content_encoding="gzip")

    assert published_set.current() == (FIRST,)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_not_followed(status: int, wire: Wire, publisher: Publisher, published_set: KeySet) -> None:
    """Keys come from the configured URL or not at all."""
    with serve(lambda peer: peer.reply(200, key_set(entry(SECOND)))) as elsewhere:
        publisher.script = lambda peer: peer.reply(status, b"", location=elsewhere.url)
        with pytest.raises(KeysUnavailable):
            published_set.current()

    assert (len(wire.received), elsewhere.connections) == (1, 0)


@pytest.mark.usefixtures("impatient")
def test_endless_redirect_is_dropped(publisher: Publisher, published_set: KeySet) -> None:
    """Not even the body of a redirect is read to its end."""
    sent = threading.Event()

    def script(peer: Peer) -> None:
        peer.send(b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n")
        for _ in range(1000):
            peer.send(bytes(100_000))
        sent.set()

    publisher.script = script
    with pytest.raises(KeysUnavailable):
        published_set.current()

    assert not sent.is_set()
