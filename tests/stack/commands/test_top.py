"""`darkroom top`: the whole system at a glance, on any terminal and none, also while the database is away."""

import json
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest
from sqlalchemy import Engine, event, make_url

from cli.overview import Trouble, read_overview
from cli.overview_text import overview_lines
from models.heartbeats import note_heartbeat
from models.provider import pause
from models.record_reports import record_reports
from models.verdict import Retry
from tests.support.command_line import CommandLine
from tests.support.factories import POLICY, answer, failure, make_batch, make_submitted, success
from tests.support.running_stack import PYTHON

WITHIN = 60.0


def work(engine: Engine) -> None:
    """Something of everything."""
    with engine.begin() as connection:
        first, second, _ = make_submitted(connection, 3, name="Été [red]\x1b[2J")
        blocked = failure("no_images", Retry.NEVER)
        record_reports(connection, [answer(first, success()), answer(second, blocked)], POLICY)
    with engine.begin() as connection:
        make_batch(connection, 2)
        note_heartbeat(connection, "tick")
        note_heartbeat(connection, "submit", worked=True)
        connection.exec_driver_sql("UPDATE images SET due_at = now() - interval '5 minutes'")


def test_once(run_cli: CommandLine, engine: Engine) -> None:
    """Lanes, what is in flight, overdue, the minute's numbers, latency, and the open batches."""
    work(engine)
    said = run_cli("top", "--once")
    lines = said.out.splitlines()
    assert said.code == 0
    assert re.fullmatch(r"darkroom  \d\d:\d\d:\d\d  1 in flight, the oldest \d+ s  tick \d+ s ago", lines[0])
    lanes = [line.split()[:2] for line in lines[3:9]]
    assert lanes == [
        ["prepare", "0"],
        ["submit", "2"],
        ["poll", "0"],
        ["download", "1"],
        ["settle", "0"],
        ["notify", "0"],
    ]
    assert "overdue  1 image waiting, late by up to 5 min 0 s" in lines
    assert any(line.startswith("called back") for line in lines)
    shown = [line for line in lines if r"Été [red]\x1b[2J" in line]
    assert "1/3" in shown[0]
    assert max(map(len, lines)) <= 80


def test_numbers_are_those_of_the_views(run_cli: CommandLine, engine: Engine) -> None:
    """For a script: one object with the rows of the views, as they are."""
    work(engine)
    shown = run_cli("top", "--once", "--json").json
    with engine.connect() as connection:
        lanes = dict(connection.exec_driver_sql("SELECT lane, due FROM lane_status").all())
        minute = connection.exec_driver_sql("SELECT submitted, failed FROM throughput").one()
        progress = connection.exec_driver_sql("SELECT pending, failed FROM batch_progress ORDER BY created_at").all()
    assert {row["lane"]: row["due"] for row in shown["lanes"]} == lanes
    assert [(row["submitted"], row["failed"]) for row in shown["minutes"]] == [tuple(minute)]
    assert [(row["pending"], row["failed"]) for row in shown["running"]] == [tuple(row) for row in progress]
    assert [(row["state"], row["edits"]) for row in shown["in_flight"]] == [("submitted", 1)]
    assert [(row["what"], row["rows"]) for row in shown["overdue"]] == [("image", 1)]
    assert {row["step"] for row in shown["latency"]} >= {"submitted", "called_back"}
    assert shown["account"] is None


def test_what_stands_still(run_cli: CommandLine, engine: Engine) -> None:
    """Why, since when, and when it is tried again; and that nobody ticks."""
    assert "no tick was seen yet" in run_cli("top", "--once").out
    with engine.begin() as connection:
        pause(connection, "rate_limited", "429", retry_after=300)
        note_heartbeat(connection, "tick")
        connection.exec_driver_sql("UPDATE heartbeats SET at = now() - interval '3 minutes'")
        connection.exec_driver_sql(
            "INSERT INTO lane_pauses VALUES ('download', 'storage', now(), 'disk_full', 'full', now() + '1 minute', 0)"
        )
    out = run_cli("top", "--once").out
    assert "account paused since 0 s ago: rate_limited; next try in 5 min 0 s" in out
    assert "no tick for 3 min 0 s: is the beat running?" in out
    assert "  paused since 0 s ago: storage: disk_full; next try in 1 min 0 s" in out
    assert "No batch is open." in out


def test_nothing_is_shown_before_anything_is_known() -> None:
    """A database that was never reached has told nothing."""
    assert list(overview_lines(None, Trouble(3.0, "refused"))) == [
        "[bold red]The database does not answer[/] for 3 s: refused",
        "It is asked again.",
    ]


@contextmanager
def running(*arguments: str, terminal: bool, **variables: str) -> "Iterator[Shown]":
    """`darkroom top` as a process, before a terminal or a pipe."""
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80", "LINES": "24", "PYTHONUNBUFFERED": "1"} | variables
    if terminal:
        try:
            reader, writer = pty.openpty()
        except OSError as error:  # a chroot without /dev/pts
            pytest.skip(f"this machine gives no terminal: {error}")
    else:
        reader, writer = os.pipe()
    with subprocess.Popen(
        (*PYTHON, "top", *arguments), env=environment, stdout=writer, stderr=writer, stdin=subprocess.DEVNULL
    ) as process:
        os.close(writer)
        try:
            yield Shown(process, reader)
        finally:
            process.kill()
            os.close(reader)


class Shown:
    """What has come so far."""

    def __init__(self, process: subprocess.Popen[bytes], reader: int) -> None:
        self.process, self._reader, self.text = process, reader, ""
        os.set_blocking(reader, False)

    def wait_for(self, condition: Callable[[str], object]) -> str:
        deadline = time.monotonic() + WITHIN
        while not condition(self.text):
            assert time.monotonic() < deadline, self.text
            assert self.process.poll() is None, self.text
            self._read()
            time.sleep(0.02)
        return self.text

    def interrupt(self) -> int:
        """Ctrl-C; gives the exit code."""
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(WITHIN)
        self._read()
        return code

    def _read(self) -> None:
        try:
            while piece := os.read(self._reader, 65536):
                self.text += piece.decode(errors="replace")
        except OSError:  # nothing now, or never again
            pass


@pytest.mark.parametrize("columns", ["80", "20", "1"])
def test_on_a_terminal(run_cli: CommandLine, engine: Engine, columns: str) -> None:
    """Drawn again and again in place, cut where it is narrow; Ctrl-C gives the screen back, and is no failure."""
    work(engine)
    with running(terminal=True, COLUMNS=columns) as shown:
        shown.wait_for(lambda text: text.count("\x1b[H") >= 3)
        assert shown.interrupt() == 0
    assert shown.text.startswith("\x1b[?1049h")
    assert "\x1b[?1049l" in shown.text
    assert "Traceback" not in shown.text
    if columns == "80":
        assert "in flight" in shown.text
        assert "\x1b[2J" not in shown.text


def test_without_colour(run_cli: CommandLine, engine: Engine) -> None:
    """NO_COLOR is heeded."""
    work(engine)
    with running(terminal=True, NO_COLOR="1") as shown:
        shown.wait_for(lambda text: "overdue" in text)
        shown.interrupt()
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", shown.text)


def test_in_a_pipe(run_cli: CommandLine, engine: Engine) -> None:
    """Lines without any control sequence; with --json an object a line, until one ends it."""
    work(engine)
    with running(terminal=False) as shown:
        text = shown.wait_for(lambda text: "time left" in text)
        assert shown.interrupt() == 0
    assert "\x1b" not in text
    with running("--json", terminal=False) as shown:
        text = shown.wait_for(lambda text: text.count("\n") >= 2)
        assert shown.interrupt() == 0
    first, second = (json.loads(line) for line in text.splitlines()[:2])
    assert first["at"] < second["at"]


@pytest.mark.parametrize("terminal", [True, False])
def test_while_the_database_is_away(run_cli: CommandLine, engine: Engine, postgres_url: str, terminal: bool) -> None:
    """It is said, what was known stays, and it goes on by itself."""
    work(engine)
    name = make_url(os.environ["DATABASE_URL"]).database
    with running(*([] if terminal else ["--json"]), terminal=terminal) as shown:
        shown.wait_for(lambda text: "in flight" in text or "in_flight" in text)
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            connection.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
            shown.wait_for(lambda text: "does not answer" in text)
            before = len(shown.text)
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        again = "lane" if terminal else '"at"'
        shown.wait_for(lambda text: "does not answer" not in text[-3000:] and text.count(again, before) >= 1)
        assert shown.interrupt() == 0
    assert "Traceback" not in shown.text


def test_all_of_it_is_of_one_moment(run_cli: CommandLine, engine: Engine) -> None:
    """What is committed while it is read is not half in it."""
    work(engine)

    def commit_more(*_: object) -> None:
        with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
            connection.execute("UPDATE images SET due_at = now() + interval '1 hour'")

    event.listen(engine, "after_cursor_execute", commit_more, once=True)
    assert [row["what"] for row in read_overview(engine).overdue] == ["image"]
    assert read_overview(engine).overdue == []
