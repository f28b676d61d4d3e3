"""Answers that are sent as they are made: at once, in bounded memory, and recognised where they were cut."""

import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager

import psutil
import pytest

from tests.support.buffered_app import LONG, PIECE, STREAMS
from tests.support.lane_runner import wait_for

ENDLESS = 1_000_000
"""Pieces: 50 GB."""


def made(line: http.client.HTTPConnection) -> dict[str, int]:
    line.request("GET", "/made")
    found: dict[str, int] = json.loads(line.getresponse().read())
    return found


def makes_nothing(line: http.client.HTTPConnection) -> bool:
    """For a while."""
    before = made(line)["pieces"]
    time.sleep(0.5)
    return made(line)["pieces"] == before


@contextmanager
def open_body(port: int, number: int, *, version: str = "1.1", query: str = "") -> Iterator[http.client.HTTPResponse]:
    """A client that has read the head of the answer, and nothing more unless the test does."""
    with socket.create_connection(("127.0.0.1", port), timeout=LONG) as sock:
        sock.sendall(f"GET /streamed/{number}{query} HTTP/{version}\r\nHost: x\r\n\r\n".encode())
        with closing(http.client.HTTPResponse(sock)) as response:
            response.begin()
            yield response


@pytest.mark.parametrize("number", [1, 2, 1000])
def test_whole_answers_end(number: int, port: int, served: psutil.Process) -> None:
    """Every byte, then HTTP's own mark of the end, without which the client would raise."""
    with open_body(port, number) as response:
        assert (response.status, response.chunked) == (200, True)
        assert len(response.read()) == number * PIECE


def test_the_first_bytes_come_before_the_last_are_made(port: int, served: psutil.Process) -> None:
    """Of an answer that would take an hour to make."""
    with open_body(port, ENDLESS) as response:
        assert response.read(5_000_000) == b"x" * 5_000_000


def test_a_client_that_goes_ends_the_making(port: int, line: http.client.HTTPConnection) -> None:
    """Else the rest of every answer that nobody waits for is still read from the database."""
    with open_body(port, ENDLESS) as response:
        response.read(1_000_000)
        assert made(line)["open"] == 1
    wait_for(lambda: made(line)["open"] == 0)


def test_clients_that_go_leave_nothing_open(
    port: int, served: psutil.Process, line: http.client.HTTPConnection
) -> None:
    """However many went in the middle, reading or not: every file and pipe is given back, and every place at once."""
    made(line)
    before = served.num_fds()
    for _ in range(3):
        with ExitStack() as readers:
            for _ in range(STREAMS):
                readers.enter_context(open_body(port, ENDLESS)).read(1_000_000)
            wait_for(lambda: makes_nothing(line))
        wait_for(lambda: made(line)["open"] == 0)
    wait_for(lambda: served.num_fds() <= before)


@pytest.mark.parametrize("number", [1, 3, 300])
def test_an_answer_that_broke_off_is_no_whole_one(number: int, port: int, served: psutil.Process) -> None:
    """The client raises; had the answer just ended, half of the results would look like all of them."""
    with (
        pytest.raises((http.client.IncompleteRead, OSError)),
        open_body(port, number, query="?broken=1") as response,
    ):
        response.read()


def test_an_answer_that_breaks_in_its_first_piece_is_explained(port: int, served: psutil.Process) -> None:
    """Nothing is sent yet, so the client can be told."""
    with open_body(port, 0, query="?broken=1") as response:
        assert (response.status, response.read()) == (502, b"it broke")


def test_over_http_1_0_answers_are_whole_or_not_begun(port: int, served: psutil.Process) -> None:
    """As nginx asks by default: there the end of the connection is the end of the answer, cut or not."""
    with open_body(port, 100, version="1.0") as response:
        assert int(response.headers["Content-Length"]) == len(response.read()) == 100 * PIECE
    with open_body(port, 100, version="1.0", query="?broken=1") as response:
        assert (response.status, response.read()) == (502, b"it broke")


def test_slow_readers_hold_no_thread_and_no_memory(
    port: int, served: psutil.Process, line: http.client.HTTPConnection, limits: Callable[..., dict[str, int]]
) -> None:
    """As many as may be, all reading nothing: making stops, others are served by the two threads, one more is refused,
    and after a time the places are free again and what was begun is recognised as cut."""
    before = served.memory_info().rss
    with ExitStack() as readers:
        for _ in range(STREAMS):
            readers.enter_context(open_body(port, ENDLESS))
        wait_for(lambda: made(line)["open"] == STREAMS and makes_nothing(line))
        assert made(line)["open"] == STREAMS
        assert served.memory_info().rss - before < 60_000_000
        with open_body(port, 1) as refused:
            assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
    wait_for(lambda: made(line)["open"] == 0)
    limits(taken_within=0.5)
    with ExitStack() as readers:
        slow = [readers.enter_context(open_body(port, ENDLESS)) for _ in range(STREAMS)]
        wait_for(lambda: made(line)["open"] == 0)
        for response in slow:
            with pytest.raises((http.client.IncompleteRead, OSError)):
                response.read()
    with open_body(port, 1) as response:
        assert len(response.read()) == PIECE
