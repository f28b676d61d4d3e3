"""A buffering server under granian, for each file of tests one."""

import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from urllib.parse import urlencode

import psutil
import pytest

from cli.stack import processes
from tests.support.api_client import granian
from tests.support.buffered_app import LONG
from tests.support.servers import closed_port


@pytest.fixture(scope="module")
def port() -> int:
    return closed_port()


@pytest.fixture(scope="module")
def served(port: int) -> Iterator[psutil.Process]:
    """The process that serves."""
    command = processes.granian("tests.support.buffered_app:create_server", "127.0.0.1", port, requests=64)
    with granian(command, port) as process:
        yield process


@pytest.fixture
def line(port: int, served: psutil.Process) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONG)
    yield connection
    connection.close()


@pytest.fixture
def limits(port: int, served: psutil.Process) -> Iterator[Callable[..., dict[str, int]]]:
    """Sets clocks of the server for one test; says what it holds."""

    def set_limits(**given: float) -> dict[str, int]:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=LONG)) as line:
            line.request("POST", f"/limits?{urlencode(given)}")
            found: dict[str, int] = json.loads(line.getresponse().read())
            return found

    yield set_limits
    set_limits(whole_within=LONG, idle_within=LONG, taken_within=LONG)
