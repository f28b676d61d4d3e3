"""The buffering server by itself, under granian: deadlines, bounds, bodies on disk, whole answers or none."""

import http.client
import json
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import psutil
import pytest

from tests.support.buffered_app import AT_ONCE, BODY_MAX, IN_MEMORY, LONG
from tests.support.lane_runner import wait_for


def ask(line: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None):
    line.request(method, path, body=body)
    response = line.getresponse()
    return response.status, response.read(), response.headers


@contextmanager
def sending(port: int, head: str, body: bytes) -> Iterator[socket.socket]:
    """A sender that says this and no more."""
    with socket.create_connection(("127.0.0.1", port), timeout=LONG) as sock:
        sock.sendall(f"POST {head}\r\nHost: x\r\n\r\n".encode() + body)
        yield sock


def answer(sock: socket.socket) -> tuple[int, bytes]:
    response = http.client.HTTPResponse(sock)
    response.begin()
    return response.status, response.read()


@pytest.mark.parametrize("size", [0, 1, IN_MEMORY, IN_MEMORY + 1, 5_000_000, BODY_MAX])
def test_bodies_are_whole(size: int, line: http.client.HTTPConnection) -> None:
    """In memory or on disk."""
    assert ask(line, "POST", "/length", b"x" * size)[:2] == (200, str(size).encode())


def test_body_over_the_limit_shows_one_byte_of_it(line: http.client.HTTPConnection) -> None:
    """The application sees that it is too long."""
    line.request("POST", "/length", body=b"x" * (BODY_MAX + 1))
    assert line.getresponse().read() == str(BODY_MAX + 1).encode()


def test_silence_in_the_middle_ends_the_request(port: int, limits: Callable[..., dict[str, int]]) -> None:
    """408 within the idle time, in the form of a problem; and no slower sender lives longer than the whole time."""
    limits(idle_within=0.5)
    began = time.monotonic()
    with sending(port, "/length HTTP/1.1\r\nContent-Length: 100", b"x" * 50) as sock:
        status, body = answer(sock)
    assert (status, json.loads(body)["title"]) == (408, "Request Timeout")
    limits(idle_within=LONG, whole_within=2)
    with sending(port, "/length HTTP/1.1\r\nContent-Length: 10000", b"") as sock:
        sock.settimeout(0.2)
        while True:
            try:
                assert sock.recv(20).startswith(b"HTTP/1.1 408")
                break
            except TimeoutError:
                sock.sendall(b"x")
    assert time.monotonic() - began < LONG / 2


def test_length_must_be_said(port: int, served: psutil.Process, line: http.client.HTTPConnection) -> None:
    """A body in chunks could be cut unseen; one without any body is none."""
    with sending(port, "/length HTTP/1.1\r\nTransfer-Encoding: chunked", b"3\r\nabc\r\n0\r\n\r\n") as sock:
        assert answer(sock)[0] == 411
    assert ask(line, "POST", "/length")[:2] == (200, b"0")


def test_bodies_together_are_bounded(
    port: int, limits: Callable[..., dict[str, int]], line: http.client.HTTPConnection
) -> None:
    """Above the bound callers are asked to come again, and when others are gone there is room."""
    with ExitStack() as senders:
        for _ in range(2):
            head = f"/length HTTP/1.1\r\nContent-Length: {BODY_MAX}"
            senders.enter_context(sending(port, head, b"x" * (BODY_MAX - 6_000_000)))
        wait_for(lambda: limits()["held"] == 2 * (BODY_MAX - 6_000_000))
        with suppress(BrokenPipeError):  # the answer may come, and the connection end, before all is sent
            line.request("POST", "/length", body=b"x" * 5_000_000)
        response = line.getresponse()
        assert (response.status, response.headers["Retry-After"]) == (503, "5")
        line.close()
    wait_for(lambda: limits()["held"] == 0)
    assert ask(line, "POST", "/length", b"x" * 15_000_000)[0] == 200


def test_large_bodies_do_not_hold_up_small_requests(
    port: int, limits: Callable[..., dict[str, int]], line: http.client.HTTPConnection
) -> None:
    """While as many large bodies as you like are worked at, small ones are served at once."""
    ask(line, "POST", "/hold")
    with ExitStack() as senders:
        head, body = f"/slow HTTP/1.1\r\nContent-Length: {IN_MEMORY + 1}", b"x" * (IN_MEMORY + 1)
        large = [senders.enter_context(sending(port, head, body)) for _ in range(3)]
        wait_for(lambda: limits()["held"] >= 3 * len(body))
        for _ in range(5):
            assert ask(line, "GET", "/livez")[0] == 200
        assert select.select(large, [], [], 0)[0] == []
        ask(line, "POST", "/end")
        assert [answer(sock)[0] for sock in large] == [200] * 3


@pytest.mark.parametrize("number", [0, 1, 10, 11, 2_000])
def test_answers_of_unknown_length_come_whole_with_their_length(number: int, line: http.client.HTTPConnection) -> None:
    """From memory or from disk."""
    status, body, headers = ask(line, "GET", f"/pieces/{number}")
    assert (status, len(body), headers["Content-Length"]) == (200, number * 1000, str(number * 1000))
    assert headers["X-Made"] == str(number)


@pytest.mark.parametrize("number", [0, 5, 500])
def test_an_answer_that_broke_is_not_begun(number: int, line: http.client.HTTPConnection) -> None:
    """The caller gets the application's explanation, never a part that looks like the whole."""
    assert ask(line, "GET", f"/broken/{number}")[:2] == (502, b"it broke")


def test_slow_readers_cost_no_memory(port: int, served: psutil.Process) -> None:
    """Six that ask for 20 MB each and read nothing."""
    before = served.memory_info().rss
    with ExitStack() as readers:
        for _ in range(6):
            sock = readers.enter_context(socket.create_connection(("127.0.0.1", port), timeout=LONG))
            sock.sendall(b"GET /pieces/200?size=100000 HTTP/1.1\r\nHost: x\r\n\r\n")
            assert sock.recv(12) in (b"HTTP/1.1 200", b"HTTP/1.1 503")
        grown = served.memory_info().rss - before
    assert grown < 60_000_000


def test_what_need_not_wait_gets_no_thread(line: http.client.HTTPConnection) -> None:
    """A small request is served on the event loop; one that would wait begins again in a thread, with its body."""
    assert ask(line, "POST", "/tried", b"x" * AT_ONCE)[1] == f"loop {AT_ONCE}".encode()
    assert ask(line, "POST", "/tried", b"x" * (AT_ONCE + 1))[1] == f"thread {AT_ONCE + 1}".encode()
    ask(line, "POST", "/end")
    assert ask(line, "POST", "/tried?wait", b"xy")[:2] == (200, b"thread 2")


def test_whoever_waits_holds_up_nobody(
    port: int, limits: Callable[..., dict[str, int]], line: http.client.HTTPConnection
) -> None:
    """While one that was tried on the event loop waits in a thread, others are served."""
    ask(line, "POST", "/hold")
    with sending(port, "/tried?wait HTTP/1.1\r\nContent-Length: 1", b"x") as slow:
        wait_for(lambda: limits()["waiting"] == 1)
        assert ask(line, "POST", "/tried", b"x")[1] == b"loop 1"
        assert select.select([slow], [], [], 0)[0] == []
        ask(line, "POST", "/end")
        assert answer(slow) == (200, b"thread 1")
