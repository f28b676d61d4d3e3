"""The command: one line when it listens, a sentence when it cannot, a quick and clean end; and death at any moment."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

from fal_emulator.__main__ import main, options_from, parser
from fal_emulator.options import Options

from .emulator_process import EDIT, wait_for

ROOT = Path(__file__).parents[2]
HEADERS = {"Authorization": "Key a:b"}


class Process:
    """The command in a process of its own."""

    def __init__(self, state: Path, *more: str) -> None:
        command = [sys.executable, "-m", "fal_emulator", "--port", "0", "--state-dir", str(state), *more]
        self.child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.child.stdout
        self.lines = []
        for line in self.child.stdout:
            self.lines.append(line)
            if "ready" in line:
                break
        self.url = self.lines[-1].split()[-1]

    def end(self, number: signal.Signals) -> tuple[int, float]:
        begun = time.monotonic()
        self.child.send_signal(number)
        code = self.child.wait(60)
        if self.child.stdout:
            self.child.stdout.close()
        return code, time.monotonic() - begun


@pytest.fixture
def session():
    """HTTP with a key."""
    with requests.Session() as session:
        session.headers.update(HEADERS)
        yield session


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_start_and_stop(tmp_path, session, number):
    """It says what it is and where it listens, and stops at once, even with work and clients in hand."""
    process = Process(tmp_path, "--latency", "60")
    try:
        assert "No AI" in process.lines[0]
        body = {"prompt": "[[fault:hang_after_accept]]", "image_urls": ["u"]}
        with pytest.raises(requests.Timeout):
            session.post(f"{process.url}/{EDIT}", json=body, timeout=0.3)
        assert session.get(f"{process.url}/_emulator/state", timeout=60).json()["counts"]["in_progress"] == 1
    finally:
        code, seconds = process.end(number)

    assert code == 0
    assert seconds < 4


def test_killed_at_work(tmp_path, session, receiver):
    """SIGKILL in the middle: all that was accepted is finished by the next process, charged once, delivered."""
    knobs = ("--latency", "0.3", "--concurrency", "4", "--image-mode", "plain", "--webhook-backoff", "0.1")
    process = Process(tmp_path, *knobs)
    try:
        accepted = [
            session.post(
                f"{process.url}/{EDIT}",
                json={"prompt": "x", "image_urls": ["u"], "seed": seed},
                params={"fal_webhook": f"{receiver.url}/{seed}"},
                timeout=60,
            ).json()["request_id"]
            for seed in range(20)
        ]
        receiver.wait(2)
    finally:
        process.end(signal.SIGKILL)
    survivor = Process(tmp_path, *knobs)
    try:

        def rows():
            return session.get(f"{survivor.url}/_emulator/ledger", timeout=60).json()["rows"]

        wait_for(lambda: all(row["webhook"]["state"] == "delivered" for row in rows()))
        assert accepted == [row["request_id"] for row in rows()]
        assert {1} == {row["charges"] for row in rows()}
        assert {f"/{seed}" for seed in range(20)} == {path for path, _, _ in receiver.deliveries}
        assert list(tmp_path.glob("**/*.part")) == []
    finally:
        survivor.end(signal.SIGTERM)


def error_of(*arguments: str) -> str:
    """What a start that must fail says."""
    done = subprocess.run(
        [sys.executable, "-m", "fal_emulator", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    return done.stderr


def test_a_taken_port(tmp_path):
    """One clear sentence and exit code 2."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        said = error_of("--port", port, "--state-dir", str(tmp_path))

    assert len(said.splitlines()) == 1
    assert f"cannot listen on 127.0.0.1:{port}" in said


def test_a_certificate_that_is_none(tmp_path):
    """One clear sentence and exit code 2, for a file that is missing and for one that is no certificate."""
    broken = tmp_path / "broken.pem"
    broken.write_text("nothing")
    for name in (tmp_path / "missing.pem", broken):
        paths = ("--tls-cert", str(name), "--tls-key", str(name))
        said = error_of("--port", "0", "--state-dir", str(tmp_path / "state"), *paths)
        assert len(said.splitlines()) == 1
        assert f"cannot use {name}" in said


def test_a_taken_state_folder(tmp_path):
    """Two emulators never share a state folder."""
    process = Process(tmp_path)
    try:
        assert "another emulator is using" in error_of("--port", "0", "--state-dir", str(tmp_path))
    finally:
        process.end(signal.SIGTERM)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--fault", "nonsense=1"),
        ("--fault", "drop_webhook"),
        ("--time-scale", "0"),
        ("--image-mode", "oil"),
        ("--latency", "-1"),
        ("--jitter", "2"),
        ("--submit-status", "500"),
        ("--tls-cert", "cert.pem"),
    ],
)
def test_options_that_make_no_sense(arguments, capsys):
    """Refused with a sentence and exit code 2."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)

    assert caught.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("python -m fal_emulator: error: ")


def test_options_of_the_command_line():
    """Every field of Options is an option; what is not given keeps its default."""
    options = options_from(["--port", "1", "--fault", "drop_webhook=0.1*3@5", "--no-padded-jwks", "--key", "a:b"])

    assert Options(port=1, fault={"drop_webhook": "0.1*3@5"}, padded_jwks=False, key="a:b") == options
    assert Options() == options_from([])
    shown = parser().format_help()
    assert all(f"--{name.replace('_', '-')}" in shown for name in Options.__dataclass_fields__)


def test_list_of_faults(capsys):
    """Every kind with its line."""
    assert main(["--list-faults"]) == 0
    assert "reset_after_accept" in capsys.readouterr().out
