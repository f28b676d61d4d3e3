"""The notify lane against real receivers: signed, tried again for three days, never where it must not go."""

import subprocess
import sys
import time
from email.utils import formatdate
from pathlib import Path

import pytest
from sqlalchemy import Engine
from standardwebhooks import WebhookVerificationError
from structlog.testing import capture_logs

from cli.settings import environment
from models.notifications import Attempt, claim_notifications, record_attempts
from tests.support.lane_runner import wait_for
from tests.support.notify_receiver import (
    NEW_SECRET,
    PAYLOAD,
    SECRET,
    fall_due,
    ids,
    owe,
    receiver,
    run,
    stand,
    verified,
)
from tests.support.receiving import rows
from tests.support.servers import LONGEST, SOON, Peer, closed_port, reply, serve
from worker import webhook_sender
from worker.beat_scheduler import lanes_due
from worker.lanes.notify import DELAYS, LONGEST_WAIT, UNSIGNED


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shorter deadline, so that a test need not wait for the real one."""
    monkeypatch.setattr(webhook_sender.WebhookSender.deliver, "__kwdefaults__", {"timeout": 0.5})


def test_delivered_once_signed(engine: Engine) -> None:
    """The receiver's own library believes it; the row says so, and nobody sends it again."""
    with receiver(204) as wire:
        (message,) = owe(engine, f"{wire.url}/hooks/darkroom?shop=1")
        assert run(engine) == 1
        assert run(engine) == 0

    (request,) = wire.received
    assert verified(request) == PAYLOAD
    assert (request.method, request.target) == ("POST", "/hooks/darkroom?shop=1")
    assert request.headers["webhook-id"] == str(message)
    assert request.headers["content-type"] == "application/json"
    assert abs(int(request.headers["webhook-timestamp"]) - time.time()) < 60
    assert stand(engine) == [(1, True, None, 204, None)]
    assert rows(engine, "SELECT attempted_at <= delivered_at FROM notifications") == [(True,)]


def test_changed_bytes_are_not_believed(engine: Engine) -> None:
    """The signature covers the very bytes that were sent, the id and the time."""
    with receiver(200) as wire:
        owe(engine, wire.url)
        run(engine)

    (request,) = wire.received
    for changed in (
        {"body": request.body + b" "},
        *({"headers": {**request.headers, f"webhook-{name}": "1"}} for name in ("id", "timestamp")),
    ):
        forged = type(request)(**{**{name: getattr(request, name) for name in request.__slots__}, **changed})
        with pytest.raises(WebhookVerificationError):
            verified(forged)


def test_rotation(engine: Engine) -> None:
    """While two secrets are set, a receiver that knows only one of them believes the message, whichever it is."""
    with receiver(200) as wire:
        owe(engine, wire.url)
        run(engine, notify_secret=f"{NEW_SECRET}, {SECRET}")

    (request,) = wire.received
    assert verified(request, SECRET) == verified(request, NEW_SECRET) == PAYLOAD
    first, second = request.headers["webhook-signature"].split(" ")
    with receiver(200) as wire:
        owe(engine, wire.url)
        run(engine, notify_secret=NEW_SECRET)
    assert len(wire.received[0].headers["webhook-signature"].split(" ")) == 1
    assert first != second


def test_tried_again_under_the_same_id(engine: Engine) -> None:
    """The id and the bytes stay over the retries, so that a receiver knows what it has seen; the time is new."""
    with receiver(500, 404, 200) as wire:
        (message,) = owe(engine, wire.url)
        for _ in range(3):
            assert run(engine) == 1
            fall_due(engine)

    assert ids(wire.received) == [str(message)] * 3
    assert len({request.body for request in wire.received}) == 1
    assert [verified(request) for request in wire.received] == [PAYLOAD] * 3
    assert stand(engine) == [(3, True, None, 200, None)]


def test_given_up_after_the_last_delay(engine: Engine) -> None:
    """The delays grow over about three days; after the last one nothing more happens by itself."""
    with receiver(500) as wire:
        owe(engine, wire.url)
        waited = []
        for _ in DELAYS:
            assert run(engine) == 1
            waited.append(stand(engine)[0].due_in)
            fall_due(engine)
        assert stand(engine)[0].due_in is not None
        assert run(engine) == 1
        fall_due(engine)
        assert run(engine) == 0

    assert all(0.85 * delay < due_in <= 1.1 * delay for delay, due_in in zip(DELAYS, waited, strict=True))
    assert 2.5 * 86400 < sum(waited) < 3.7 * 86400
    assert stand(engine) == [(10, False, None, 500, "the receiver answered 500")]
    assert len(set(ids(wire.received))) == 1


def test_gone_is_final(engine: Engine) -> None:
    """410: the receiver wants no more of it."""
    with receiver(410) as wire:
        owe(engine, wire.url)
        assert run(engine) == 1

    assert stand(engine) == [(1, False, None, 410, "the receiver answered 410")]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_a_failure(status: int, engine: Engine) -> None:
    """Nobody follows it: it would lead a signed message to where nobody meant it to go."""
    with receiver(200) as there, receiver(status, location=there.url) as here:
        owe(engine, here.url)
        assert run(engine) == 1

    assert there.connections == 0
    (row,) = stand(engine)
    assert (row.attempt, row.delivered, row.last_status) == (1, False, status)
    assert row.due_in is not None


@pytest.mark.parametrize("status", [429, 502, 503, 504])
@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("120", 115, 120),
        ("1", 4, 5.5),
        ("0", 4, 5.5),
        ("99999999999999999999", LONGEST_WAIT - 5, LONGEST_WAIT),
        ("soon", 4, 5.5),
        ("-5", 4, 5.5),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 4, 5.5),
        ("Fri, 31 Dec 9999 23:59:59 GMT", LONGEST_WAIT - 5, LONGEST_WAIT),
        ("Fri, 99 Dec 99999 23:59:59 GMT", 4, 5.5),
    ],
)
def test_retry_after(status: int, header: str, least: float, most: float, engine: Engine) -> None:
    """A receiver that is too busy is left in peace as long as it asks, for a day at most, never for less than else."""
    with receiver(status, retry_after=header) as wire:
        owe(engine, wire.url)
        run(engine)

    (row,) = stand(engine)
    assert row.due_in is not None
    assert least < row.due_in <= most


def test_retry_after_as_a_date(engine: Engine) -> None:
    """The other form of the header; on another status it counts for nothing."""
    with receiver(503, 500, retry_after=formatdate(time.time() + 600, usegmt=True)) as wire:
        owe(engine, wire.url, count=2)
        run(engine)

    waits = sorted(row.due_in for row in stand(engine))
    assert waits[0] < 6
    assert 580 < waits[1] <= 600


def test_silent_receiver(engine: Engine, impatient: None) -> None:
    """A receiver that takes the message and says nothing is given its time, then tried again."""
    with serve(lambda peer: peer.silence()) as wire:
        owe(engine, wire.url)
        began = time.monotonic()
        assert run(engine) == 1

    assert time.monotonic() - began < SOON
    (row,) = stand(engine)
    assert (row.delivered, row.last_status, row.last_error) == (False, None, "no answer within 0.5 s")


def test_dripping_receiver(engine: Engine, impatient: None) -> None:
    """A receiver that sends a byte now and then, for ever, holds nobody up: the whole call has one deadline."""

    def drip(peer: Peer) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\nX: ")
        for _ in range(int(LONGEST / 0.1)):
            if not peer.closing.wait(0.1):
                peer.send(b"x")

    with serve(drip) as wire:
        owe(engine, wire.url)
        began = time.monotonic()
        assert run(engine) == 1
        assert time.monotonic() - began < SOON

    assert stand(engine)[0].last_error == "no answer within 0.5 s"


def test_dripping_handshake(engine: Engine, impatient: None) -> None:
    """The same before TLS has come about."""

    def drip(peer: Peer) -> None:
        peer.send(b"\x16\x03\x03\x40\x00")  # a record of 16 KB, that never ends
        for _ in range(int(LONGEST / 0.1)):
            if not peer.closing.wait(0.1):
                peer.send(b"\x00")

    with serve(drip, reads=False) as wire:
        owe(engine, wire.url.replace("http:", "https:"))
        began = time.monotonic()
        assert run(engine) == 1
        assert time.monotonic() - began < SOON

    assert stand(engine)[0].last_error == "no answer within 0.5 s"


def test_huge_answer(engine: Engine) -> None:
    """The status is what counts: an answer without end is cut, and the message is delivered."""
    sent = 0

    def flood(peer: Peer) -> None:
        nonlocal sent
        peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while not peer.closing.is_set():
            peer.send(bytes(100_000))
            sent += 100_000

    with serve(flood) as wire:
        owe(engine, wire.url)
        assert run(engine) == 1

    assert stand(engine) == [(1, True, None, 200, None)]
    assert sent < 20_000_000  # what the sockets' buffers take, and no more


def test_answer_that_breaks_off(engine: Engine) -> None:
    """Once the receiver said 200 it has the message, whatever becomes of the rest."""
    with serve(lambda peer: peer.send(reply(200, b"half", content_length="100"))) as wire:
        owe(engine, wire.url)
        assert run(engine) == 1

    assert stand(engine)[0].delivered


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0", "127.1", "2130706433"])
def test_private_address_is_refused(host: str, engine: Engine) -> None:
    """However it is written, and whatever name stands for it: not one byte is sent, and the row says why."""
    got: list[bytes] = []

    def listen(peer: Peer) -> None:
        got.append(peer.sock.recv(1))

    with serve(listen, reads=False) as wire:
        owe(engine, f"http://{host}:{wire.port}/")
        owe(engine, f"https://{host}:{wire.port}/")
        assert run(engine, notify_private_hosts=("other.example",)) == 2
        wait_for(lambda: len(got) == wire.connections)

    assert set(got) <= {b""}
    for row in stand(engine):
        assert (row.delivered, row.last_status) == (False, None)
        assert "NOTIFY_PRIVATE_HOSTS" in row.last_error
        assert row.due_in is not None


def test_private_host_that_is_named(engine: Engine) -> None:
    """The name counts, in any case; another name of the same address does not."""
    with receiver(200) as wire:
        owe(engine, f"http://localhost:{wire.port}/")
        owe(engine, f"http://127.0.0.1:{wire.port}/")
        run(engine, notify_private_hosts=("LocalHost",))

    assert [row.delivered for row in stand(engine)] == [True, False]
    assert [request.headers["host"] for request in wire.received] == [f"localhost:{wire.port}"]


def test_private_address_of_the_other_kind(engine: Engine) -> None:
    """An IPv6 address is named without its brackets."""
    with receiver(200) as wire:
        owe(engine, f"http://[::ffff:127.0.0.1]:{wire.port}/")
        run(engine, notify_private_hosts=("::ffff:127.0.0.1",))

    assert stand(engine)[0].delivered


def test_tick_sees_what_is_owed(engine: Engine) -> None:
    """The lane is started while something is due, and left alone afterwards."""
    with receiver(200) as wire, engine.connect() as connection:
        assert not lanes_due(connection)["notify"]
        owe(engine, wire.url)
        connection.rollback()
        assert lanes_due(connection)["notify"]
        run(engine)
        connection.rollback()
        assert not lanes_due(connection)["notify"]


def test_no_proxy_and_no_netrc(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the environment leads a message elsewhere, or gives a receiver a password of ours."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password hunter2")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with receiver(200) as proxy, receiver(200) as wire:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        owe(engine, wire.url)
        run(engine)

    assert proxy.connections == 0
    assert "authorization" not in wire.received[0].headers


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x", "x", "", "http://[bad/x", "http:///x", "http://127.0.0.1:99999/"])
def test_address_that_nobody_can_call(url: str, engine: Engine) -> None:
    """What is no http address today is none in three days: given up at once, with the reason."""
    owe(engine, url)
    assert run(engine) == 1

    (row,) = stand(engine)
    assert (row.delivered, row.due_in, row.last_status) == (False, None, None)
    assert row.last_error.startswith("the address is")


def refused(peer: Peer) -> None:
    peer.send(b"SSH-2.0-\x00\xff\x1b[31m" + b"x" * 5000 + b"\r\n")


def cut(peer: Peer) -> None:
    peer.reset()


@pytest.mark.parametrize("script", [refused, cut, lambda peer: peer.reply(500), lambda peer: peer.reply(200)])
def test_address_stays_out_of_logs_and_errors(script: object, engine: Engine) -> None:
    """A password or a token in a URL reaches the receiver, and nobody else; an error is bounded and printable."""
    with serve(script) as wire, serve(refused, reads=False) as no_tls, capture_logs() as logs:
        owe(engine, f"http://me:hunter2@127.0.0.1:{wire.port}/hunter3?token=hunter4")
        owe(engine, f"https://me:hunter2@127.0.0.1:{no_tls.port}/hunter3?token=hunter4")
        owe(engine, f"http://me:hunter2@127.0.0.1:{closed_port()}/hunter3?token=hunter4")
        owe(engine, "http://me:hunter2@nowhere.invalid/hunter3?token=hunter4")
        owe(engine, "gopher://me:hunter2@127.0.0.1/hunter3?token=hunter4")
        assert run(engine) == 5

    assert wire.received[0].headers["authorization"].startswith("Basic ")
    assert len(logs) == 5
    errors = [row.last_error or "" for row in stand(engine)]
    assert "hunter" not in f"{logs} {errors}"
    assert all(error.isprintable() and len(error) <= 300 for error in errors)


def test_missing_secret(engine: Engine) -> None:
    """Nothing is sent unsigned: the message waits, says why, loses no attempt, and goes out once there is a secret."""
    with receiver(200) as wire:
        owe(engine, wire.url)
        for _ in range(20):
            assert run(engine, notify_secret=None) == 0
            fall_due(engine)
        assert wire.connections == 0
        ((attempt, delivered, _, status, error),) = stand(engine)
        assert (attempt, delivered, status, error) == (0, False, None, UNSIGNED)
        assert rows(engine, "SELECT attempted_at FROM notifications") == [(None,)]

        assert run(engine, notify_secret=None) == 0
        assert 50 < stand(engine)[0].due_in <= 60
        fall_due(engine)
        assert run(engine) == 1

    assert stand(engine) == [(1, True, None, 200, None)]


def test_each_client_is_signed_for_alone(engine: Engine) -> None:
    """What the shop can verify, the press could not have written; who has no secret waits, and holds nobody up."""
    secrets = f"shop:{SECRET},press:{NEW_SECRET}"
    with receiver(200) as shop, receiver(200) as press, receiver(200) as nobody:
        owe(engine, nobody.url, client="nobody")
        owe(engine, shop.url, client="shop")
        owe(engine, press.url, client="press")
        assert run(engine, notify_secret=secrets) == 2
    assert nobody.connections == 0
    assert verified(shop.received[0], SECRET) == verified(press.received[0], NEW_SECRET) == PAYLOAD
    with pytest.raises(WebhookVerificationError):
        verified(shop.received[0], NEW_SECRET)
    waiting = [row for row in stand(engine) if not row.delivered]
    assert [(row.attempt, row.last_error) for row in waiting] == [(0, UNSIGNED)]


def test_crash_between_post_and_record(engine: Engine, tmp_path: Path) -> None:
    """The worker dies after the receiver answered: the message comes again, under the same id."""
    program = "from tests.support import notify_receiver; from models.database import make_engine; import sys; "
    program += "e = make_engine(sys.argv[1], application='t'); "
    program += "notify_receiver.run(e, claim_lease=0.5, darkroom_crash_at='after_notify:' + sys.argv[2])"
    with receiver(200) as wire:
        (message,) = owe(engine, wire.url)
        url = engine.url.render_as_string(hide_password=False)
        died = subprocess.run(
            [sys.executable, "-c", program, url, str(tmp_path / "flag")], env=environment(), timeout=60
        )
        assert died.returncode == -9
        assert [row.delivered for row in stand(engine)] == [False]
        wait_for(lambda: run(engine) == 1)

    assert ids(wire.received) == [str(message)] * 2
    assert stand(engine) == [(2, True, None, 200, None)]


def test_late_failure_takes_nothing_back(engine: Engine) -> None:
    """Two workers try one message, because the first was too slow: who delivers wins, in either order."""
    for late_first in (True, False):
        (message,) = owe(engine, "http://127.0.0.1:1/")
        with engine.begin() as connection:
            claim_notifications(connection, limit=1, lease=-1)
            claim_notifications(connection, limit=1, lease=60)
        failure = Attempt(message, 1, 500, "no", 5.0)
        success = Attempt(message, 2, 200, None, None)
        for attempt in (failure, success) if late_first else (success, failure):
            with engine.begin() as connection:
                record_attempts(connection, [attempt])
        assert stand(engine)[-1] == (2, True, None, 200, None)


def test_error_is_kept_in_a_form_that_can_be_shown(engine: Engine) -> None:
    """Whatever a receiver's words hold, the row takes them: bounded, and nothing that a terminal would obey."""
    (message,) = owe(engine, "http://127.0.0.1:1/")
    with engine.begin() as connection:
        claim_notifications(connection, limit=1, lease=60)
        record_attempts(connection, [Attempt(message, 1, None, "no\0\x1b[31m\n\ud800" * 100, 5.0)])
    error = stand(engine)[0].last_error
    assert error.startswith("no??[31m??no")
    assert len(error) == 300


def test_first_tries_go_first(engine: Engine) -> None:
    """A thousand retries of a dead receiver do not stand before another caller's first message."""
    old = owe(engine, "http://127.0.0.1:1/", count=3)
    with engine.begin() as connection:
        claim_notifications(connection, limit=3, lease=-1)
    new = owe(engine, "http://127.0.0.1:1/")
    with engine.begin() as connection:
        assert [due.id for due in claim_notifications(connection, limit=1, lease=60)] == new
        assert {due.id for due in claim_notifications(connection, limit=9, lease=60)} == set(old)


def test_slow_call_keeps_its_claim(engine: Engine) -> None:
    """A call that takes longer than the lease is not made a second time beside the first."""

    def slow(peer: Peer) -> bool:
        peer.silence(1.5)
        return peer.reply(200)

    with serve(slow) as wire:
        owe(engine, wire.url)
        assert run(engine, claim_lease=0.6) == 1

    assert len(wire.received) == 1
    assert stand(engine) == [(1, True, None, 200, None)]
