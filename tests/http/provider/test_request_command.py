"""`darkroom request` without a stack: whatever the provider answers is one sentence, and the key stays at home."""

import json
from pathlib import Path

import pytest

from tests.support.queueing import KEY, NGINX
from tests.support.running_stack import darkroom
from tests.support.servers import Peer, Script, closed_port, serve

BASE = "/fal-ai/bytedance/requests/8f1c"
COMMANDS = ("status", "logs", "result", "cancel")


def request(url: str, home: Path, *arguments: str, **variables: str):
    return darkroom(
        "request", *arguments, **{"FAL_QUEUE_URL": url, "FAL_KEY": KEY, "DARKROOM_HOME": str(home)} | variables
    )


def completed(peer: Peer) -> bool:
    """A queue that knows one request, and names strange hosts."""
    assert peer.request is not None
    if peer.request.method == "PUT":
        return peer.reply(202, b'{"status": "CANCELLATION_REQUESTED"}')
    if "/status" in peer.request.target:
        logs = [{"message": "\x1b[31mred", "level": "INFO", "timestamp": "2026-01-01T10:11:12Z"}]
        evil = {"status_url": "http://evil.example/", "response_url": "http://evil.example/"}
        return peer.reply(200, json.dumps({"status": "COMPLETED", "logs": logs, **evil}).encode())
    return peer.reply(200, b'{"images": [], "odd": "\xc3\xa9"}')


def test_unknown_to_darkroom(tmp_path: Path) -> None:
    """A request of another program is answered as well, without any database, under the endpoint that is named."""
    with serve(completed) as wire:
        said = {name: request(wire.url, tmp_path, name, "8f1c") for name in COMMANDS}
        request(wire.url, tmp_path, "status", "8f1c", "--endpoint", "fal-ai/other/a/b")

    assert {name: answer.returncode for name, answer in said.items()} == dict.fromkeys(COMMANDS, 0)
    assert said["status"].stdout == "request  8f1c\nstatus   COMPLETED\n"
    assert said["logs"].stdout == "10:11:12   [31mred\n"
    assert said["result"].stdout == '{"images": [], "odd": "é"}\n'
    assert said["cancel"].stdout.startswith("CANCELLATION_REQUESTED: ")
    assert {each.headers["authorization"] for each in wire.received} == {f"Key {KEY}"}
    assert [each.target for each in wire.received if each.method == "PUT"] == [f"{BASE}/cancel"]
    assert wire.received[-1].target.startswith("/fal-ai/other/requests/8f1c")
    assert not (tmp_path / "run").exists()


ANSWERS: dict[str, tuple[Script, str]] = {
    "wrong key": (lambda peer: peer.reply(401, b'{"detail": "invalid key credentials"}'), "FAL_KEY"),
    "locked": (lambda peer: peer.reply(403, b'{"detail": "User is locked."}'), "User is locked."),
    "unknown": (lambda peer: peer.reply(404, b'{"detail": "Request not found"}'), "does not know"),
    "a page": (lambda peer: peer.reply(502, NGINX), "no usable answer"),
    "page with 200": (lambda peer: peer.reply(200, NGINX), "no"),
    "closes": (lambda peer: None, "no usable answer"),
    "redirect": (lambda peer: peer.reply(307, b"", location="http://evil.example/"), "no usable answer"),
}


@pytest.mark.parametrize("command", ["status", "result"])
@pytest.mark.parametrize("manner", ANSWERS)
def test_one_sentence(command: str, manner: str, tmp_path: Path) -> None:
    """Exit code 2, a sentence, no traceback, and nothing of the key."""
    script, words = ANSWERS[manner]
    with serve(script) as wire:
        answer = request(wire.url, tmp_path, command, "8f1c", "--json")

    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith("darkroom: ")
    assert answer.stderr.count("\n") == 1
    assert words in answer.stderr
    assert KEY not in answer.stderr


def test_cancel_that_nobody_takes(tmp_path: Path) -> None:
    """Unknown to the provider: said so."""
    with serve(lambda peer: peer.reply(404, b'{"status": "NOT_FOUND"}')) as wire:
        answer = request(wire.url, tmp_path, "cancel", "8f1c")
    assert (answer.returncode, answer.stderr.count("\n"), "does not know" in answer.stderr) == (2, 1, True)


def test_no_key(tmp_path: Path) -> None:
    """The variable is named; nothing is asked."""
    answer = request("http://127.0.0.1:1", tmp_path, "status", "8f1c", FAL_KEY="")
    assert (answer.returncode, answer.stderr.startswith("darkroom: FAL_KEY is not set")) == (2, True)


@pytest.mark.parametrize("url", ["", "ftp://x", "127.0.0.1:1"])
def test_nobody_there(url: str, tmp_path: Path) -> None:
    """An address where nobody is, or that is none."""
    answer = request(url or f"http://127.0.0.1:{closed_port()}", tmp_path, "logs", "8f1c")
    assert (answer.returncode, answer.stdout, answer.stderr.count("\n")) == (2, "", 1)


@pytest.mark.parametrize("request_id", ["", "..", "./", "a\nb"])
def test_no_request_id(request_id: str, tmp_path: Path) -> None:
    """What cannot be one is not asked about."""
    with serve(completed) as wire:
        assert request(wire.url, tmp_path, "cancel", request_id).returncode == 2
    assert wire.received == []
