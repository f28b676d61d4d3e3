"""A buffering server under granian, for each file of tests one."""

import http.client
from collections.abc import Iterator

import psutil
import pytest

from cli.stack import processes
from tests.support.api_client import granian
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
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    yield connection
    connection.close()
