"""The receiver as it is really served: granian in front, started as the local stack starts it."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from uuid import UUID

import pytest
from sqlalchemy import Engine

from cli.stack import processes
from models.transitions import Submission
from tests.http.receiver.test_database_away import refusing
from tests.support.api_client import granian
from tests.support.factories import request_id
from tests.support.provider_callbacks import Provider, key_server, ok
from tests.support.receiving import kept, rows, submitted
from tests.support.servers import closed_port
from webhook_receiver.app import BODY_WITHIN

LIMIT = 100_000
THREADS = 8
"""Of the receiver; a test that wants to block it needs more."""
SIGNER = Provider()


@pytest.fixture(scope="module")
def port(module_database_url: str) -> Iterator[int]:
    """The port of a running receiver."""
    port = closed_port()
    with key_server(SIGNER) as keys:
        environment = {
            **os.environ,
            "DATABASE_URL": module_database_url,
            "FAL_JWKS_URL": keys.url,
            "CALLBACK_MAX_BYTES": str(LIMIT),
        }
        command = (sys.executable, "-m", *processes.receiver("127.0.0.1", port).command)
        server = subprocess.Popen(command, env=environment)
        try:
            _wait_for(port)
            yield port
        finally:
            server.terminate()
            server.wait(60)


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(OSError):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            connection.request("GET", "/livez")
            found = connection.getresponse().status
            connection.close()
            if found == 200:
                return
        time.sleep(0.05)
    raise AssertionError("granian did not come up")


@pytest.fixture
def line(port: int) -> Iterator[http.client.HTTPConnection]:
    """One connection to the receiver, kept for the whole test."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.connect()
    yield connection
    connection.close()


def post(line: http.client.HTTPConnection, token: object, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    line.request("POST", f"/webhooks/fal/{token}", body=body, headers=headers)
    response = line.getresponse()
    return response.status, response.read()


def letter(submission: Submission) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a success."""
    body = ok(request_id(submission))
    return body, SIGNER.headers(body, request_id(submission))


def head(token: object, headers: dict[str, str], **more: object) -> bytes:
    """A request up to its body, as bytes."""
    lines = {"Host": "x", **headers, **{name.replace("_", "-"): value for name, value in more.items()}}
    text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST /webhooks/fal/{token} HTTP/1.1\r\n{text}\r\n".encode()


def test_one_connection_many_deliveries(engine: Engine, line: http.client.HTTPConnection) -> None:
    """A kept connection carries deliveries that are applied, refused and refused again, and is never given up."""
    submissions = submitted(engine, 5)
    ours = line.sock.getsockname()

    for submission in submissions:
        body, headers = letter(submission)
        assert post(line, submission.id, body + b" ", headers)[0] == 401
        assert post(line, submission.id, body, headers)[0] == 200
        line.request("GET", f"/webhooks/fal/{submission.id}")
        refusal = line.getresponse()
        refusal.read()
        assert refusal.status == 405

    assert line.sock.getsockname() == ours
    assert kept(engine) == [("applied", submission.id) for submission in submissions]


def test_trailing_slash(engine: Engine, line: http.client.HTTPConnection) -> None:
    """A slash too many is served, never redirected."""
    (one,) = submitted(engine)

    assert post(line, f"{one.id}/", *letter(one))[0] == 200


@pytest.mark.parametrize("token", ["%00", "%ff", "x" * 3_000])
def test_odd_path(token: str, engine: Engine, line: http.client.HTTPConnection) -> None:
    """Whatever bytes stand in the path, a signed delivery is kept as an orphan."""
    (one,) = submitted(engine)

    assert post(line, token, *letter(one))[0] == 200
    assert kept(engine) == [("orphan", None)]


@pytest.mark.parametrize("pieces", [1, 2, 30])
def test_chunked_body(pieces: int, engine: Engine, line: http.client.HTTPConnection) -> None:
    """A body of undeclared length is read whole, however it is cut."""
    (one,) = submitted(engine)
    body, headers = letter(one)
    step = len(body) // pieces + 1

    line.request(
        "POST",
        f"/webhooks/fal/{one.id}",
        body=(body[at : at + step] for at in range(0, len(body), step)),
        headers={**headers, "Transfer-Encoding": "chunked"},
        encode_chunked=True,
    )

    assert line.getresponse().read() == b'{"effect":"applied"}\n'


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("size", [LIMIT + 1, 20 * LIMIT])
def test_body_over_the_limit(size: int, declared: bool, engine: Engine, line: http.client.HTTPConnection) -> None:
    """413 to a sender who sends all of it, with its length declared or not; nothing is kept."""
    (one,) = submitted(engine)
    body = ok(request_id(one)).ljust(size)
    headers = SIGNER.headers(body, request_id(one))
    chunks = (body[at : at + 8192] for at in range(0, size, 8192))
    with suppress(ConnectionError):
        if declared:
            line.request("POST", f"/webhooks/fal/{one.id}", body=body, headers=headers)
        else:
            line.request(
                "POST",
                f"/webhooks/fal/{one.id}",
                body=chunks,
                headers={**headers, "Transfer-Encoding": "chunked"},
                encode_chunked=True,
            )

    assert line.getresponse().status == 413
    assert kept(engine) == []


def test_half_a_body(engine: Engine, port: int, line: http.client.HTTPConnection) -> None:
    """A sender who hangs up in the middle leaves nothing behind; the same delivery, whole, is applied."""
    (one,) = submitted(engine)
    body, headers = letter(one)
    for framing in ({"Content_Length": len(body)}, {"Transfer_Encoding": "chunked"}):
        with socket.create_connection(("127.0.0.1", port)) as sock:
            part = body[: len(body) // 2]
            chunk = part if "Content_Length" in framing else b"%x\r\n%s" % (len(body), part)
            sock.sendall(head(one.id, headers, **framing) + chunk)

    assert post(line, one.id, body, headers)[0] == 200
    assert kept(engine) == [("applied", one.id)]


@contextmanager
def half_sent(port: int, submissions: list[Submission]) -> Iterator[list[tuple[socket.socket, bytes]]]:
    """Senders that stopped in mid-body, and what each still has to send."""
    with ExitStack() as stack:
        senders = []
        for submission in submissions:
            body, headers = letter(submission)
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
            sock.sendall(head(submission.id, headers, Content_Length=len(body)) + body[:10])
            senders.append((sock, body[10:]))
        time.sleep(0.2)
        yield senders


@pytest.mark.parametrize("count", [THREADS - 1, 2 * THREADS])
def test_slow_senders_block_nobody(count: int, engine: Engine, port: int, line: http.client.HTTPConnection) -> None:
    """While some stop in mid-body another delivery is answered at once; when they go on, theirs are applied too."""
    *slow, quick = submitted(engine, count + 1)
    line.sock.settimeout(BODY_WITHIN / 2)
    with half_sent(port, slow) as senders:
        assert post(line, quick.id, *letter(quick))[0] == 200

        for sock, rest in senders:
            sock.sendall(rest)
        for sock, _ in senders:
            assert sock.recv(1000).startswith(b"HTTP/1.1 200")
    assert kept(engine)[0] == ("applied", quick.id)
    assert rows(engine, "SELECT effect, count(*) FROM callbacks GROUP BY 1") == [("applied", count + 1)]


@pytest.mark.parametrize("count", [100, 600])
def test_idle_connections_block_nobody(count: int, engine: Engine, port: int) -> None:
    """While many connections are open and say nothing, a delivery over a new one is answered at once."""
    (one,) = submitted(engine)
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        stack.callback(line.close)

        assert post(line, one.id, *letter(one))[0] == 200


def test_those_who_hang_up_give_their_threads_back(engine: Engine, port: int, line: http.client.HTTPConnection) -> None:
    """More senders than threads stop in mid-body and go away: the receiver serves as before and kept nothing."""
    *slow, quick = submitted(engine, 2 * THREADS + 1)
    with half_sent(port, slow):
        pass

    assert post(line, quick.id, *letter(quick))[0] == 200
    assert kept(engine) == [("applied", quick.id)]


def test_deliveries_from_many_connections(engine: Engine, port: int) -> None:
    """Sixteen connections deliver thirty-two results twice over: each is applied once."""
    submissions = submitted(engine, 32)
    statuses: list[int] = []

    def postman(number: int) -> None:
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for submission in (submissions * 2)[number::16]:
            statuses.append(post(line, submission.id, *letter(submission))[0])  # noqa: PERF401
        line.close()

    threads = [threading.Thread(target=postman, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert statuses == [200] * 64
    assert sorted(rows(engine, "SELECT effect, count(*) FROM callbacks GROUP BY 1")) == [
        ("applied", 32),
        ("duplicate", 32),
    ]


def test_sixty_four_at_one_time(engine: Engine, port: int) -> None:
    """Sixty-four connections, each with a success, the same again, and a forged one: few commits, right answers."""
    submissions = submitted(engine, 64)
    answers: list[tuple[int, bytes]] = []

    def postman(submission: Submission) -> None:
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        body, headers = letter(submission)
        for sent in (body, body + b" ", body):
            answers.append(post(line, submission.id, sent, headers))  # noqa: PERF401
        line.close()

    threads = [threading.Thread(target=postman, args=(submission,)) for submission in submissions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert Counter(status for status, _ in answers) == {200: 128, 401: 64}
    assert Counter(said for status, said in answers if status == 200) == {
        b'{"effect":"applied"}\n': 64,
        b'{"effect":"duplicate"}\n': 64,
    }
    ((recorded, commits),) = rows(engine, "SELECT count(*), count(DISTINCT xmin::text) FROM callbacks")
    assert recorded == 128
    assert commits < 128


def test_a_database_that_refuses(engine: Engine, database_url: str, line: http.client.HTTPConnection) -> None:
    """While the database can take nothing the provider is asked to come again, and then the delivery is applied."""
    (one,) = submitted(engine)
    for state in ("53100", "40P01"):
        with refusing(database_url, "INSERT ON callbacks", state):
            assert post(line, one.id, *letter(one)) == (503, b'{"error":"The database cannot take it now."}\n')

    assert post(line, one.id, *letter(one)) == (200, b'{"effect":"applied"}\n')


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_what_was_answered_is_recorded(sent: signal.Signals, engine: Engine, database_url: str) -> None:
    """The receiver ends amid deliveries: each that was answered 200 is in the database; nobody was told anything else
    that the provider would take for an end."""
    submissions = submitted(engine, 100)
    answered: list[UUID] = []
    statuses: set[int] = set()
    port, enough = closed_port(), threading.Event()

    def postman(number: int) -> None:
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        with suppress(OSError, http.client.HTTPException):
            for submission in submissions[number::32] * 50:
                status, _ = post(line, submission.id, *letter(submission))
                statuses.add(status)
                if status == 200:
                    answered.append(submission.id)
                if len(answered) > 40:
                    enough.set()
        line.close()

    with key_server(SIGNER) as keys:
        environment = {"DATABASE_URL": database_url, "FAL_JWKS_URL": keys.url}
        with granian(processes.receiver("127.0.0.1", port).command, port, **environment) as process:
            threads = [threading.Thread(target=postman, args=(number,)) for number in range(32)]
            for thread in threads:
                thread.start()
            assert enough.wait(60)
            process.send_signal(sent)
            for thread in threads:
                thread.join(60)

    assert len(answered) > 40
    assert statuses <= {200, 503}
    recorded = Counter(row[0] for row in rows(engine, "SELECT submission_id FROM callbacks"))
    assert [one for one, count in Counter(answered).items() if recorded[one] < count] == []
