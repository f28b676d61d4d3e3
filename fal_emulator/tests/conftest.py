"""Fixtures: emulators, each with its own state folder, and a webhook receiver."""

import base64
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fal_emulator.options import Options

from .emulator_process import FAST, Receiver, RunningEmulator, image_bytes


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is no news here."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A recording receiver on a port of its own."""
    state = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            state.times.append(time.time())
            state.deliveries.append((self.path, dict(self.headers), body))
            answer = state.next_answer()
            if isinstance(answer, float):
                time.sleep(answer)
                answer = 200
            self.send_response(answer)
            if 300 <= answer < 400:
                self.send_header("Location", state.url + "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Silence."""

    server = _QuietServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def make_emulator(tmp_path: Path) -> Iterator[Callable[..., RunningEmulator]]:
    """Starts emulators; the same `state` means the same state folder."""
    started: list[RunningEmulator] = []

    def make(state: str = "state", **options: Any) -> RunningEmulator:
        emulator = RunningEmulator(Options(state_dir=tmp_path / state, **{**FAST, **options}))
        started.append(emulator)
        return emulator

    yield make
    for emulator in started:
        if emulator._thread.is_alive():
            emulator.stop()


@pytest.fixture
def emulator(make_emulator: Callable[..., RunningEmulator]) -> RunningEmulator:
    """A fast emulator with plain images."""
    return make_emulator()


@pytest.fixture
def data_uri() -> str:
    """A small drawing as a data URI."""
    return "data:image/png;base64," + base64.b64encode(image_bytes()).decode()
