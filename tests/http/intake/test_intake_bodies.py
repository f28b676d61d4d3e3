"""The intake API as it is really served: large bodies, cut bodies, strangers, long results."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import psutil
import pytest
from sqlalchemy import Engine

from tests.http.conftest import Away
from tests.support.api_client import ALICE, EDIT, NDJSON, counts, edits, intake_served, lines
from tests.support.servers import closed_port

KEY = {"Authorization": f"Bearer {ALICE}"}


@pytest.fixture(scope="module")
def port() -> int:
    return closed_port()


@pytest.fixture(scope="module")
def served(module_database_url: str, port: int) -> Iterator[psutil.Process]:
    """The process that serves."""
    with intake_served(module_database_url, port, INTAKE_MAX_BYTES="50000000", STORAGE_URL="s3://p/q") as process:
        yield process


@pytest.fixture
def line(port: int, served: psutil.Process) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    yield connection
    connection.close()


def ask(line: http.client.HTTPConnection, method: str, path: str, body: bytes = b"", content_type: str = NDJSON):
    line.request(method, path, body=body, headers={**KEY, "Content-Type": content_type} if body else KEY)
    response = line.getresponse()
    return response.status, response.read(), response.headers


def test_large_batch_in_bounded_memory(
    engine: Engine, served: psutil.Process, line: http.client.HTTPConnection
) -> None:
    """A batch of 40 MB is accepted whole, and the process grows by far less than its body."""
    ask(line, "POST", "/v1/batches", lines({}, EDIT))
    before = served.memory_info().rss

    status, body, _ = ask(line, "POST", "/v1/batches", lines({"name": "large"}, *edits(20_000, prompt="x" * 1900)))
    grown = served.memory_info().rss - before

    assert (status, json.loads(body)["edits"]) == (201, 20_000)
    assert counts(engine) == (2, 20_001)
    assert grown < 80_000_000

    status, body, headers = ask(line, "GET", json.loads(body)["links"]["results"])
    positions = [json.loads(each)["position"] for each in body.splitlines()]
    assert positions == list(range(20_000))
    assert headers["Transfer-Encoding"] == "chunked"
    assert served.memory_info().rss - before < 100_000_000


@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
@pytest.mark.parametrize("size", [3, 5_000])
def test_cut_body_writes_nothing(size: int, share: float, engine: Engine, port: int, line: http.client.HTTPConnection):
    """Wherever a sender hangs up, even between two lines, half a batch never runs."""
    body = lines({}, *edits(size))
    part = body[: body.index(b"\n", int(len(body) * share) - 1) + 1][:-1]
    head = f"POST /v1/batches HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ALICE}\r\nContent-Type: {NDJSON}\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + part)
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(12) in (b"", b"HTTP/1.1 400")

    assert ask(line, "GET", "/v1/batches")[1] == b'{"batches":[],"next_cursor":null}'
    assert counts(engine) == (0, 0)


def test_body_in_chunks_is_refused(engine: Engine, line: http.client.HTTPConnection) -> None:
    """411: a part of it could not be told from the whole."""
    line.request(
        "POST",
        "/v1/batches",
        body=iter([lines({}, EDIT)]),
        headers={**KEY, "Content-Type": NDJSON},
        encode_chunked=True,
    )
    response = line.getresponse()
    assert (response.status, response.headers["Content-Type"]) == (411, "application/problem+json")
    assert counts(engine) == (0, 0)


def test_strangers_are_refused_before_their_body(port: int, served: psutil.Process) -> None:
    """Not a byte of a body without a key is kept, or waited for."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        sock.sendall(b"POST /v1/batches HTTP/1.1\r\nHost: x\r\nContent-Length: 40000000\r\n\r\nx")
        assert sock.recv(12) == b"HTTP/1.1 401"


def test_body_over_the_limit(engine: Engine, line: http.client.HTTPConnection) -> None:
    """413 as a problem; nothing is written."""
    status, body, headers = ask(line, "POST", "/v1/batches", lines({}, EDIT) + b" " * 50_000_000)
    assert (status, json.loads(body)["status"], headers["Content-Type"]) == (413, 413, "application/problem+json")
    assert counts(engine) == (0, 0)


def test_large_batches_do_not_hold_up_the_others(engine: Engine, port: int, line: http.client.HTTPConnection) -> None:
    """While four large batches are written, small ones are accepted and looked at."""
    body, done = lines({}, *edits(8_000)), []

    def post() -> None:
        other = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        done.append(ask(other, "POST", "/v1/batches", body)[0])
        other.close()

    threads = [threading.Thread(target=post) for _ in range(4)]
    for thread in threads:
        thread.start()
    small = 0
    while not done and any(thread.is_alive() for thread in threads):
        assert ask(line, "POST", "/v1/batches", lines({}, EDIT))[0] == 201
        assert ask(line, "GET", "/v1/batches?limit=1")[0] == 200
        small += not done
    for thread in threads:
        thread.join()
    assert done == [201] * 4
    assert small >= 2
    assert counts(engine)[1] >= 4 * 8_000 + small


def test_same_order_at_once_is_written_once(engine: Engine, port: int, served: psutil.Process) -> None:
    """Eight callers with one key and one order: one batch, one 201, and everybody learns its id."""
    body, found = lines({"idempotency_key": "k"}, *edits(500)), []

    def post() -> None:
        other = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        status, text, _ = ask(other, "POST", "/v1/batches", body)
        found.append((status, json.loads(text)["batch_id"]))
        other.close()

    threads = [threading.Thread(target=post) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(status for status, _ in found) == [200] * 7 + [201]
    assert len({batch_id for _, batch_id in found}) == 1
    assert counts(engine) == (1, 500)


def test_results_need_the_database_to_the_end(
    engine: Engine, line: http.client.HTTPConnection, database_away: Away
) -> None:
    """When it is away as an export begins, the answer is a 503, not a file that ends somewhere."""
    made = json.loads(ask(line, "POST", "/v1/batches", lines({}, *edits(8_000)))[1])
    with database_away():
        assert ask(line, "GET", made["links"]["results"])[0] == 503
    deadline = time.monotonic() + 60
    while ask(line, "GET", made["links"]["results"])[0] != 200:
        assert time.monotonic() < deadline


def test_results_that_broke_off_go_on_behind_the_last_line(
    engine: Engine, line: http.client.HTTPConnection, database_away: Away
) -> None:
    """The database goes away under an export: the client raises, and goes on where it stopped, each edit once."""
    made = json.loads(ask(line, "POST", "/v1/batches", lines({}, *edits(8_000, prompt="x" * 1900)))[1])
    path = made["links"]["results"]
    line.request("GET", path, headers=KEY)
    response, received = line.getresponse(), b""
    assert response.status == 200
    with database_away(), pytest.raises((http.client.IncompleteRead, OSError)):  # noqa: PT012 - it breaks somewhere
        while part := response.read1(100_000):
            received += part
        response.read()  # an empty part is also what a cut connection gives
    line.close()

    whole = received[: received.rindex(b"\n") + 1]
    last = json.loads(whole.splitlines()[-1])["position"]
    assert last < 7_999
    deadline = time.monotonic() + 60
    while (answer := ask(line, "GET", f"{path}?after={last}"))[0] != 200:
        assert time.monotonic() < deadline
    positions = [json.loads(each)["position"] for each in (whole + answer[1]).splitlines()]
    assert positions == list(range(8_000))


def test_a_slow_reader_holds_no_connection_to_the_database(
    engine: Engine, port: int, line: http.client.HTTPConnection
) -> None:
    """Whoever reads for an hour must not keep old rows from being cleaned up, or connections from others."""
    made = json.loads(ask(line, "POST", "/v1/batches", lines({}, *edits(8_000, prompt="x" * 1900)))[1])
    head = f"GET {made['links']['results']} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ALICE}\r\n\r\n"
    busy = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'darkroom intake' AND state <> 'idle'"
    with ExitStack() as readers:
        for _ in range(10):  # more than there are connections
            sock = readers.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
            sock.sendall(head.encode())
            assert sock.recv(12) == b"HTTP/1.1 200"
        deadline = time.monotonic() + 60
        while True:
            with engine.connect() as connection:
                if connection.exec_driver_sql(busy).scalar() == 0:
                    break
            assert time.monotonic() < deadline
        assert ask(line, "GET", made["links"]["self"])[0] == 200
