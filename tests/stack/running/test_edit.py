"""One edit from the command line, live, through a whole stack; and what an operator asks about its request."""

import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests
from PIL import Image

from models.seedream import ENDPOINT, EditArguments
from tests.support.running_stack import PYTHON, Stack, darkroom, eventually
from tests.support.terminals import read_terminal

DOT = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
EDIT = ("edit", "--prompt", "a hat", "--image", DOT)
CALLBACK_MAX_BYTES = 4 * 1024 * 1024


@pytest.fixture
def provider(stack: Stack) -> Iterator[str]:
    """The emulator's address; slow within a test that asks for it."""
    yield stack.provider
    stack.set_options(latency=0.1, concurrency=2, image_mode="plain")


def waited(stack: Stack, *more: str) -> dict[str, Any]:
    """One edit to its end, as JSON."""
    answer = stack.run(*EDIT, *more, "--wait", "--json")
    assert answer.stdout.count("\n") == 1, answer.stderr
    return dict(json.loads(answer.stdout))


def query_rows(stack: Stack, query: str, *values: object) -> list[tuple[Any, ...]]:
    lines = dict(line.split("=", 1) for line in stack.run("env").stdout.splitlines())
    with psycopg.connect(lines["DATABASE_URL"]) as connection:
        return connection.execute(query, values).fetchall()


def test_live(stack: Stack, provider: str, tmp_path: Path) -> None:
    """States, log lines once each, the size that will come, and a stored image where it is said to be."""
    stack.set_options(latency=1.5)
    Image.new("RGB", (300, 200), "teal").save(tmp_path / "a.jpg")
    answer = stack.run("edit", "--prompt", "a hat", "--image", str(tmp_path / "a.jpg"), "--size", "square", "--wait")

    assert answer.returncode == 0, answer.stderr
    assert "scaled up to 960x960" in answer.stderr
    lines = answer.stdout.splitlines()
    assert [line for line in lines if line in ("pending", "ready", "stored")][-1] == "stored"
    log = [line for line in lines if "%" in line]
    assert len(log) == len(set(log)) == 6
    path, facts = lines[-1].split("  ", 1)
    assert facts.startswith("960x960  image/png")
    with Image.open(path) as sample:
        assert sample.size == (960, 960)


def test_every_field_reaches_the_provider(stack: Stack, provider: str) -> None:
    """Each option is its field of the model, no more and no less is sent."""
    given = {
        "prompt": "a hat\nand a cat",
        "image_urls": [DOT, DOT],
        "image_size": {"width": 1280, "height": 720},
        "num_images": 2,
        "max_images": 3,
        "seed": 5,
        "sync_mode": True,
        "enable_safety_checker": False,
        "enhance_prompt_mode": "fast",
    }
    assert set(given) == set(EditArguments.model_fields)
    options_ = ("--size", "1280x720", "--num-images", "2", "--max-images", "3", "--seed", "5", "--sync-mode")
    more = ("--no-safety-checker", "--enhance-prompt-mode", "fast", "--custom-id", "one", "--name", "all of it")
    answer = stack.run(
        "edit", "--prompt", "a hat\nand a cat", "--image", DOT, "--image", DOT, *options_, *more, "--json"
    )
    shown = json.loads(answer.stdout)

    assert set(shown) == {"batch_id", "edits"}
    query = """
        SELECT b.name, e.custom_id, e.arguments, e.seed FROM edits e JOIN batches b ON b.id = e.batch_id WHERE b.id = %s
    """
    assert query_rows(stack, query, shown["batch_id"]) == [("all of it", "one", given, 5)]
    assert stack.run("watch", shown["batch_id"]).returncode == 0


def test_what_is_not_given_is_not_sent(stack: Stack, provider: str) -> None:
    """The provider's defaults stay the provider's."""
    shown = waited(stack)
    page = f"{provider}/v1/models/requests/by-endpoint"
    query = {"endpoint_id": ENDPOINT, "request_id": shown["request_id"], "expand": "payloads"}
    with requests.Session() as session:
        reply = session.get(page, params=query, headers={"Authorization": "Key a:b"}, timeout=60).json()
    assert reply["items"][0]["json_input"] == {"prompt": "a hat", "image_urls": [DOT], "seed": shown["seed"]}


def test_json_tells_everything_once(stack: Stack) -> None:
    """One object: state, cost, images with their paths, log."""
    shown = waited(stack, "--seed", "7", "--custom-id", "x")
    assert (shown["state"], shown["edits"], shown["attempts"], shown["seed"], shown["custom_id"]) == (
        "stored",
        1,
        1,
        7,
        "x",
    )
    (image,) = shown["images"]
    assert Path(image["path"]).stat().st_size == image["bytes"]
    assert shown["cost"] == 0.03
    assert "seed 7" in shown["logs"][-1]


def test_failure_is_told(stack: Stack, provider: str) -> None:
    """Exit code 1, and the provider's own words."""
    stack.set_options(image_mode="full")  # else no input is looked at
    answer = stack.run("edit", "--prompt", "x", "--image", "data:image/png;base64,AAAA", "--wait")
    assert answer.returncode == 1
    assert answer.stdout.splitlines()[-1].startswith("image_load_error: ")
    shown = waited(stack, "--prompt", "x [[fault:content_policy_violation]]")
    assert (shown["state"], shown["images"], shown["errors"][0]["type"]) == ("failed", [], "content_policy_violation")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--size", "38"), ["--size: ", "WIDTHxHEIGHT"]),
        (("--num-images", "7", "--max-images", "0"), ["--num-images: ", "--max-images: "]),
        (("--image", "gone.png"), ["--image: ", "gone.png"]),
        (("--image", "ftp://x/a.png"), ["--image: "]),
        (("--prompt", "  "), ["--prompt: "]),
        (("--custom-id", "../x"), ["--custom-id: "]),
        (("--seed", "x"), ["--seed"]),
        (("--enhance-prompt-mode", "slow"), ["--enhance-prompt-mode"]),
        (("--name", ""), ["name"]),
    ],
)
def test_bad_input(stack: Stack, arguments: tuple[str, ...], words: list[str]) -> None:
    """A sentence for each fault, in the words of the command line; exit code 2, nothing written."""
    answer = stack.run(*EDIT, *arguments)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert [word for word in words if word not in answer.stderr] == []
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize("noise", [False, True], ids=["in the callback", "above its limit"])
def test_sync_mode_ends_in_storage(stack: Stack, provider: str, tmp_path: Path, noise: bool) -> None:
    """An image inside the answer is decoded into storage; one too large for a callback is fetched by polling."""
    stack.set_options(image_mode="full")  # as the prompt says: what goes in comes out
    source = tmp_path / "a.png"
    size = (1600, 1600)
    pixels = os.urandom(1600 * 1600 * 3)
    (Image.frombytes("RGB", size, pixels) if noise else Image.new("RGB", size, "red")).save(source)
    sync = ("--image", str(source), "--size", "1600x1600", "--sync-mode", "--wait", "--json")
    shown = json.loads(stack.run("edit", "--prompt", "as it is", *sync).stdout)

    assert shown["state"] == "stored", shown
    (image,) = shown["images"]
    with Image.open(image["path"]) as sample:
        assert sample.size == size
    query = """
        SELECT s.learned_by, left(i.url, 11), length(i.url) FROM images i JOIN submissions s ON s.id = i.submission_id
        WHERE s.request_id = %s
    """
    ((learned_by, url_start, url_length),) = query_rows(stack, query, shown["request_id"])
    assert (url_start, url_length > CALLBACK_MAX_BYTES) == ("data:image/", noise)
    assert learned_by == ("poll" if noise else "callback")


def test_without_the_key(stack: Stack, tmp_path: Path) -> None:
    """Who knows only the database and the store sees the states, and is told why there is no log."""
    known = dict(line.split("=", 1) for line in stack.run("env").stdout.splitlines())
    few = {name: known[name] for name in ("DATABASE_URL", "STORAGE_URL")} | {"DARKROOM_HOME": str(tmp_path)}
    answer = darkroom(*EDIT, "--wait", **few)
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr == "Only the states are shown: log lines need FAL_KEY, which is not set here.\n"
    assert "%" not in answer.stdout


def test_wrong_key(stack: Stack, tmp_path: Path) -> None:
    """Watching goes on without the log; an upload is refused; both name the variable."""
    home = {"DARKROOM_HOME": str(stack.home), "FAL_KEY": "no-key"}
    answer = darkroom(*EDIT, "--wait", **home)
    assert (answer.returncode, "FAL_KEY" in answer.stderr) == (0, True)
    Image.new("RGB", (9, 9), "lime").save(tmp_path / "new.png")
    answer = darkroom(*EDIT, "--image", str(tmp_path / "new.png"), **home)
    assert (answer.returncode, answer.stdout, answer.stderr.count("\n")) == (2, "", 1)
    assert "FAL_KEY" in answer.stderr


def test_no_stack(tmp_path: Path) -> None:
    """One sentence says what is missing."""
    answer = darkroom(*EDIT, DARKROOM_HOME=str(tmp_path))
    assert answer.returncode == 2
    assert answer.stderr.startswith("darkroom: No stack runs in ")


def test_ctrl_c_leaves_the_edit_alone(stack: Stack, provider: str) -> None:
    """Watching stops, the edit goes on, and it is said how to see it again."""
    stack.set_options(concurrency=0)
    command = (*PYTHON, *EDIT, "--wait")
    variables = os.environ | {"DARKROOM_HOME": str(stack.home)}
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        batch_id = process.stdout.readline().split()[1].rstrip(":")
        assert any("submitted" in line for line in process.stdout)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"darkroom watch {batch_id}" in errors
    stack.set_options(concurrency=2)
    assert stack.run("watch", batch_id).returncode == 0


def test_on_a_terminal(stack: Stack, provider: str) -> None:
    """The same lines, and one below them that moves and is gone at the end; it has begun before the edit may end."""
    stack.set_options(concurrency=0)
    try:
        leader, follower = pty.openpty()
    except OSError as error:  # a chroot without /dev/pts
        pytest.skip(f"this machine gives no terminal: {error}")
    command = (*PYTHON, *EDIT, "--wait")
    variables = os.environ | {"DARKROOM_HOME": str(stack.home), "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(command, env=variables, stdout=follower, stderr=follower) as process:
        os.close(follower)
        for shown in read_terminal(leader):
            if b"submitted, " in shown:
                stack.set_options(concurrency=2)
    assert process.returncode == 0
    assert shown.rstrip().endswith(b"B")  # the size of the stored image


def test_request_that_is_ours(stack: Stack) -> None:
    """Status, log and result as the provider tells them, and whose edit it is."""
    shown = waited(stack, "--custom-id", "mine")
    request_id = shown["request_id"]
    status = json.loads(stack.run("request", "status", request_id, "--json").stdout)
    assert (status["status"], status["failed"]) == ("COMPLETED", False)
    assert status["edit"] == {"batch_id": shown["batch_id"], "name": "mine", "state": "stored"}
    for more in ((), ("--follow",)):
        lines = stack.run("request", "logs", request_id, "--json", *more).stdout.splitlines()
        assert [json.loads(line)["message"] for line in lines] == shown["logs"]
    result = json.loads(stack.run("request", "result", request_id).stdout)
    assert (result["seed"], len(result["images"])) == (shown["seed"], 1)
    late = stack.run("request", "cancel", request_id)
    assert (late.returncode, late.stdout) == (1, "ALREADY_COMPLETED: too late: it has ended\n")


def test_cancel(stack: Stack, provider: str) -> None:
    """A request that waits at the provider leaves the queue, and its edit ends as asked."""
    stack.set_options(concurrency=0)
    batch_id = json.loads(stack.run(*EDIT, "--json").stdout)["batch_id"]
    query = "SELECT s.request_id FROM submissions s JOIN edits e ON e.id = s.edit_id WHERE e.batch_id = %s"
    assert eventually(lambda: query_rows(stack, query, batch_id) not in ([], [(None,)]))
    ((request_id,),) = query_rows(stack, query, batch_id)
    early = stack.run("request", "result", request_id)
    assert (early.returncode, early.stderr) == (2, f"darkroom: The request {request_id} is still in progress.\n")
    answer = stack.run("request", "cancel", request_id, "--json")
    assert (answer.returncode, json.loads(answer.stdout)["answer"]) == (0, "OK")
    stack.set_options(concurrency=2)
    stack.run("watch", batch_id)
    assert query_rows(stack, "SELECT state FROM edits WHERE batch_id = %s", batch_id) == [("cancelled",)]


def test_failed_request(stack: Stack) -> None:
    """The provider's JSON is printed all the same, with exit code 1."""
    shown = waited(stack, "--prompt", "x [[fault:content_policy_violation]]")
    answer = stack.run("request", "result", shown["request_id"], "--json")
    assert answer.returncode == 1
    assert json.loads(answer.stdout)["detail"][0]["type"] == "content_policy_violation"
    assert "content_policy_violation" in answer.stderr
