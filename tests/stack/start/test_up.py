"""`darkroom up` for real: it answers, restarts what dies, and leaves nothing behind, however it ends."""

import json
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import requests
from PIL import Image

from cli.stack import up
from core.errors import UserError
from tests.support.running_stack import READY_WITHIN, Stack, darkroom, eventually

EDIT = {"prompt": "make it blue", "image_urls": ["http://127.0.0.1:1/none.png"]}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """One running stack for all tests of this file, in a folder with an awkward name.

    Not in pytest's own folder, which other runs lock again for the user that PostgreSQL runs as under root.
    """
    with tempfile.TemporaryDirectory(prefix="darkroom-up-") as folder:
        stack = Stack(Path(folder) / "a home, 100% odd")
        stack.start()
        yield stack
        if stack.process.poll() is None:
            stack.end(signal.SIGTERM, within=5)


def test_env_names_a_database_that_answers(stack: Stack) -> None:
    """`darkroom env` in another terminal shows where the database is, and it holds our schema."""
    lines = dict(line.split("=", 1) for line in stack.run("env").stdout.splitlines())
    with psycopg.connect(lines["DATABASE_URL"]) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone()
        assert connection.execute("SHOW fsync").fetchone() == ("on",)
    assert "/darkroom_emulator?" in lines["DATABASE_URL"]  # never that of the real provider
    assert lines["FAL_QUEUE_URL"] == f"http://127.0.0.1:{stack.emulator_port}"
    assert json.loads(stack.run("env", "--json").stdout) == lines


def test_ready_says_that_the_stand_in_is_one(stack: Stack) -> None:
    """One line says that all of it answers, where, and that no AI is at work."""
    (line,) = stack.said.splitlines()
    assert f"receiver http://127.0.0.1:{stack.port}" in line
    assert f"API http://127.0.0.1:{stack.intake_port}" in line
    assert "no AI" in line


def test_second_stack_is_refused(stack: Stack) -> None:
    """One home, one stack."""
    answer = darkroom("up", "--emulator", **stack.variables)
    assert answer.returncode == 2
    assert answer.stderr == (
        f"darkroom: A stack already runs in {stack.home} (process {stack.process.pid}); stop it first.\n"
    )


def test_taken_ports_are_named(stack: Stack, tmp_path: Path) -> None:
    """A port that is taken is refused before anything starts, by the name under which it can be changed."""
    home = {"DARKROOM_HOME": str(tmp_path)}
    answer = darkroom("up", "--emulator", **home, RECEIVER_PORT=stack.port, INTAKE_PORT="8398")
    assert (answer.returncode, "RECEIVER_PORT" in answer.stderr) == (2, True)
    answer = darkroom("up", "--emulator", **home, RECEIVER_PORT="8399", INTAKE_PORT=stack.intake_port)
    assert (answer.returncode, "INTAKE_PORT" in answer.stderr) == (2, True)
    ports = {"RECEIVER_PORT": "8399", "INTAKE_PORT": "8398"}
    answer = darkroom("up", "--emulator", "--emulator-port", stack.emulator_port, **home, **ports)
    assert (answer.returncode, "--emulator-port" in answer.stderr) == (2, True)
    assert not (tmp_path / "postgres").exists()


def test_submitted_batch_ends(stack: Stack, tmp_path: Path) -> None:
    """A batch goes through, its failures are told by type, and --wait says so with the exit code."""
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text(json.dumps(EDIT) + "\n")
    answer = stack.run("submit", str(manifest), "--wait", "--json")
    assert answer.returncode == 1, answer.stderr
    batch = json.loads(answer.stdout)
    assert batch["edits"] == 1
    status = json.loads(stack.run("status", batch["batch_id"][:13], "--json").stdout)
    assert (status["failed"], status["errors"][0]["edits"]) == (1, 1)
    assert json.loads(stack.run("batches", "--json").stdout.splitlines()[0])["batch_id"] == batch["batch_id"]
    assert stack.run("watch", "last").returncode == 1


def test_batch_over_http_is_exported(stack: Stack, tmp_path: Path) -> None:
    """Another service hands in a batch; its results are exported, and what failed goes in again as it is."""
    api = f"http://127.0.0.1:{stack.intake_port}/v1/batches"
    made = requests.Session().post(api, json={"edits": [{**EDIT, "custom_id": "a"}]}, timeout=60).json()
    assert stack.run("watch", made["batch_id"]).returncode == 1
    output = tmp_path / "failed.jsonl"
    answer = stack.run("export", made["batch_id"], "--state", "failed", "--output", str(output))
    assert (answer.returncode, answer.stdout) == (0, "")
    (line,) = output.read_text().splitlines()
    assert json.loads(line)["edit"] == {**EDIT, "custom_id": "a"}
    assert stack.run("export", "last").stdout == f"{line}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["failed.jsonl"]
    again = stack.run("submit", str(output), "--json")
    assert json.loads(again.stdout)["edits"] == 1


def test_demo_uses_the_running_stack(stack: Stack) -> None:
    """The demo's edits all end as images in one folder, portrait and landscape."""
    answer = stack.run("demo", "--edits", "6", "--json")
    assert answer.returncode == 0, answer.stderr
    shown = json.loads(answer.stdout)
    assert (shown["stored"], shown["edits"]) == (6, 6)
    landscape = set()
    for path in Path(shown["folder"]).glob("*/*.png"):
        with Image.open(path) as image:
            landscape.add(image.width > image.height)
    assert landscape == {True, False}
    assert stack.process.poll() is None


def test_faulty_lines_are_all_named(stack: Stack, tmp_path: Path) -> None:
    """Every faulty line is named with its number, and nothing is written."""
    before = stack.run("batches", "--json").stdout
    manifest = tmp_path / "manifest.jsonl"
    missing = {**EDIT, "image_urls": ["missing.png"]}
    manifest.write_text("\n".join(["{", json.dumps(EDIT), json.dumps(missing), '{"prompt": 1}']))
    answer = stack.run("submit", str(manifest))
    assert (answer.returncode, answer.stdout) == (2, "")
    assert [word for word in ("line 1:", "line 3:", "line 4:") if word in answer.stderr] == [
        "line 1:",
        "line 3:",
        "line 4:",
    ]
    assert stack.run("batches", "--json").stdout == before


@pytest.mark.parametrize("program", ["submit@", "postgres -D", "intake.app", "fal_emulator", "redis.sock"])
def test_what_dies_comes_back(stack: Stack, program: str) -> None:
    """A killed part is started again, whole, and no process of the old one stays."""
    killed = stack.pid(program)
    assert killed is not None
    old = [psutil.Process(killed), *psutil.Process(killed).children(recursive=True)]
    os.kill(killed, signal.SIGKILL)
    assert psutil.wait_procs(old, timeout=60)[1] == []
    assert eventually(lambda: stack.pid(program) not in (None, killed))
    assert eventually(stack.healthy)


def test_supervisor_dies(stack: Stack) -> None:
    """Even without its supervisor the stack comes back whole."""
    before = stack.below()
    supervisor = next(process for process in before if process.ppid() == stack.process.pid)
    stack.output.write_text("")
    supervisor.kill()
    assert psutil.wait_procs(before, timeout=60)[1] == []
    assert eventually(stack.is_ready, READY_WITHIN)


def test_a_restart_that_fails_is_not_the_last(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a machine that is overloaded for minutes nothing answers in time; the stack comes back when it can."""
    starts = iter([UserError("No answer from postgres in 60 s"), UserError("No answer from receiver in 60 s"), None])

    def run(*_: object) -> None:
        if error := next(starts):
            raise error

    monkeypatch.setattr(up, "run", run)
    monkeypatch.setattr(up, "AGAIN_AFTER", 0.01)
    up.run_again(None, 0, as_json=False)  # type: ignore[arg-type]
    assert next(starts, "all used") == "all used"
    first, second = capsys.readouterr().err.splitlines()
    assert "postgres" in first
    assert "receiver" in second


def test_stop_leaves_nothing(stack: Stack) -> None:
    """SIGTERM ends everything, and well."""
    code, left = stack.end(signal.SIGTERM, within=20)
    assert (code, left) == (0, [])
    assert stack.run("env").returncode == 2


def test_kill_leaves_nothing(stack: Stack) -> None:
    """After a SIGKILL of `darkroom up` nothing stays behind, and the next one works."""
    stack.start()
    _, left = stack.end(signal.SIGKILL, within=60)
    assert left == []
    assert stack.run("env").returncode == 2
