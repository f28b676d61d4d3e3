"""Commands beside a stack that runs: what the doctor says of it, well and ill, and the others on real edits."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from shlex import quote
from typing import Any

import psutil
import pytest
from PIL import Image

from cli.doctor import lane_checks
from tests.support.command_line import CommandLine
from tests.support.running_stack import Stack, eventually

ROOT = Path(__file__).parents[3]
BIN = Path(sys.executable).parent


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Twelve edits of one local image, the sixth of an image that is not there."""
    Image.new("RGB", (1000, 1000), "teal").save(tmp_path / "a.png")
    lines = [{"custom_id": f"e{n}", "prompt": f"edit {n}", "image_urls": ["a.png"]} for n in range(12)]
    lines[5]["image_urls"] = ["missing.png"]
    path = tmp_path / "manifest.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def doctor(stack: Stack) -> dict[str, dict[str, Any]]:
    said = stack.run("doctor", "--json")
    found = [json.loads(line) for line in said.stdout.splitlines()]
    assert said.returncode == (1 if any(one["result"] == "fault" for one in found) else 0), said.stderr
    return {one["check"]: one for one in found}


def status(stack: Stack) -> dict[str, Any]:
    return dict(json.loads(stack.run("status", "last", "--json").stdout))


def test_all_is_well(stack: Stack) -> None:
    """A stack that runs has no fault and no warning, and the last line says so."""
    assert {one["result"] for one in doctor(stack).values()} == {"ok"}
    said = stack.run("doctor")
    assert (said.returncode, said.stdout.splitlines()[-1]) == (0, "All is well.")


def test_skipped_line_and_contact_sheet(stack: Stack, manifest: Path, tmp_path: Path) -> None:
    """Local files go up, the line without one is skipped, and every image is on the sheet."""
    said = stack.run("submit", str(manifest), "--on-invalid", "skip", "--dry-run", "--json")
    assert (json.loads(said.stdout)["uploads"], json.loads(said.stdout)["invalid"]) == (1, 1)
    said = stack.run("submit", str(manifest), "--on-invalid", "skip", "--wait", "--json")
    assert (said.returncode, json.loads(said.stdout)["skipped"]) == (1, 1)
    row = status(stack)
    assert (row["stored"], row["failed"], row["skipped"], row["errors"][0]["type"]) == (11, 1, 1, "invalid_input")
    shown = json.loads(stack.run("contact-sheet", "last", "--output", str(tmp_path / "s.png"), "--json").stdout)
    assert shown["tiles"] == 12
    with Image.open(tmp_path / "s.png") as page:
        assert page.format == "PNG"
    said = stack.run("submit", str(manifest), "--on-invalid", "skip", "--dry-run", "--json")
    assert json.loads(said.stdout)["uploads"] == 0  # it is there already


def test_lanes_say_that_they_are_alive(stack: Stack) -> None:
    """After a batch each lane that had to do something has taken a turn, and the tick comes."""
    shown = json.loads(stack.run("top", "--once", "--json").stdout)
    lanes = {lane["lane"]: lane for lane in shown["lanes"]}
    assert all(lanes[name]["last_work_at"] for name in ("submit", "download", "settle"))
    assert lanes["poll"]["last_tick_at"]


def test_replay_of_what_was_applied(stack: Stack) -> None:
    """Real callbacks, taken again, change nothing; the accounts still balance."""
    before = status(stack)
    shown = json.loads(stack.run("replay", "last", "--json").stdout)
    assert (shown["callbacks"] > 0, shown["applied"]) == (True, 0)
    assert status(stack) == before
    assert doctor(stack)["accounting"]["result"] == "ok"


def test_pause_append_resume_cancel(stack: Stack, manifest: Path, tmp_path: Path) -> None:
    """A batch that is paused does not finish, takes more edits, goes on, and can be ended."""
    many = manifest.with_name("many.jsonl")  # so many that a slow machine pauses it before its end
    many.write_text("".join(f'{{"prompt": "edit {n}", "image_urls": ["a.png"]}}\n' for n in range(80)))
    assert stack.run("submit", str(many), "--max-in-flight", "1").returncode == 0
    assert stack.run("pause", "last").returncode == 0
    more = tmp_path / "more.jsonl"
    more.write_text(json.dumps({"prompt": "one more", "image_urls": ["a.png"]}))
    assert json.loads(stack.run("append", "last", str(more), "--json").stdout)["added"] == 1
    waiting = status(stack)
    assert (waiting["edits"], waiting["pending"] > 0, waiting["finished_at"]) == (81, True, None)
    assert stack.run("resume", "last").returncode == 0
    assert eventually(lambda: status(stack)["pending"] < waiting["pending"])
    assert stack.run("cancel", "last").returncode == 0
    assert eventually(lambda: status(stack)["finished_at"])
    row = status(stack)
    assert row["cancelled"] > 0
    assert row["stored"] + row["cancelled"] + row["failed"] == 81


def test_worker_that_takes_nothing(
    stack: Stack, manifest: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A worker whose processes are there but do nothing is found by the work that nobody takes."""
    monkeypatch.setattr(lane_checks, "WATCHED_FOR", 3.0)
    run_here = CommandLine(monkeypatch, capsys, stack.home)
    pid = stack.pid("download@")
    assert pid is not None
    stopped = [psutil.Process(pid), *psutil.Process(pid).children()]
    for process in stopped:
        os.kill(process.pid, signal.SIGSTOP)
    try:
        assert stack.run("submit", str(manifest), "--on-invalid", "skip").returncode == 0
        assert eventually(lambda: status(stack)["images_waiting"] > 0)
        said = run_here("doctor", "--json")
        found = {line["check"]: line for line in said.lines}
        assert (said.code, found["download"]["result"]) == (1, "fault")
        assert "download" in found["workers"]["message"]
        assert {check for check, one in found.items() if one["result"] == "fault"} == {"download", "workers"}
    finally:
        for process in stopped:
            os.kill(process.pid, signal.SIGCONT)
    assert eventually(lambda: status(stack)["finished_at"])
    assert doctor(stack)["download"]["result"] == "ok"


def guide(language: str) -> list[str]:
    """The blocks of the part of CONTRIBUTING.md that debugs a lane."""
    part = (ROOT / "CONTRIBUTING.md").read_text().partition("## One lane in a shell")[2].partition("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```", part, re.MULTILINE | re.DOTALL)


def typed(block: str, home: Path) -> str:
    """What a block of commands asks to type, for this stack's home and these programs."""
    text = "\n".join(re.findall(r"^\$ (.*)", block, re.MULTILINE))
    return (
        text.replace("$PWD/.darkroom", str(home))
        .replace(".darkroom/", f"{home}/")
        .replace(".venv/bin", quote(str(BIN)))
    )


def test_one_lane_by_hand(stack: Stack, tmp_path: Path) -> None:
    """CONTRIBUTING.md: the lane's worker is taken out, one turn is run by hand, then the worker in the foreground."""
    _, take_out, foreground = (typed(block, stack.home) for block in guide("console"))
    (script,) = guide("python")
    (tmp_path / "one_turn.py").write_text(script)
    environment = os.environ | {"DARKROOM_HOME": str(stack.home)}

    def run(*command: str) -> str:
        said = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
        assert said.returncode == 0, said.stdout + said.stderr
        return said.stdout

    def batches() -> list[dict[str, Any]]:
        return [json.loads(line) for line in stack.run("batches", "--json").stdout.splitlines()]

    # the turn by hand is for this edit alone
    assert eventually(lambda: all(batch["finished_at"] for batch in batches()))
    try:
        assert "1 pending" in run("bash", "-euc", take_out)
        assert run(sys.executable, str(tmp_path / "one_turn.py")) == "1 submitted\n"
        log = tmp_path / "worker.log"
        with log.open("w") as file:
            worker = subprocess.Popen(("bash", "-c", foreground), cwd=ROOT, env=environment, stdout=file, stderr=file)
        try:
            run("bash", "-euc", take_out.splitlines()[1])
            assert eventually(lambda: status(stack)["pending"] == 0, 60), log.read_text()
        finally:
            for process in [*psutil.Process(worker.pid).children(), psutil.Process(worker.pid)]:
                process.terminate()
            worker.wait(60)
    finally:
        run("bash", "-euc", take_out.splitlines()[0].replace(" stop ", " start "))
    assert eventually(lambda: status(stack)["finished_at"])
