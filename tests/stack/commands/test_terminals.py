"""Whatever a terminal can show, however narrow it is, whoever stops reading: no traceback, no raw control character."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import Engine

from cli.main import darkroom
from tests.support.command_line import CommandLine
from tests.support.running_stack import PYTHON, forked_commands
from tests.support.running_stack import darkroom as run_command

URL = "https://example.com/a.png"
NAMES = [
    "Été 帽子 🎩",
    "a\x1b[31mred\x07\x9b2J",
    "two\nlines\r\tand a tab",
    "\u202eedispu\u2066",
    "[red]mark[/up",
    ":bug:",
]
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
ENCODINGS = ["ascii", "latin-1", "cp1252", "cp437", "utf-8"]


def manifest(folder: Path, **more: object) -> Path:
    path = folder / "m.jsonl"
    path.write_text(json.dumps({"prompt": "x", "image_urls": [URL], **more}) + "\n")
    return path


class Terminal:
    """Types commands as `CommandLine` does, before a terminal of some encoding."""

    def __init__(self, run_cli: CommandLine, patch: pytest.MonkeyPatch) -> None:
        self._run_cli, self._patch = run_cli, patch

    def __call__(self, encoding: str, *arguments: object) -> tuple[int, str, str]:
        """The exit code, and both outputs as that terminal decodes them."""
        streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="") for _ in range(2)]
        with self._patch.context() as patch:
            patch.setattr(sys, "stdout", streams[0])
            patch.setattr(sys, "stderr", streams[1])
            said = self._run_cli(*arguments)
            for stream in streams:
                stream.flush()
        out, err = (stream.buffer.getvalue().decode(encoding) for stream in streams)  # type: ignore[attr-defined]
        assert "Traceback" not in err
        return said.code, out, err


@pytest.fixture
def terminal(run_cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    return Terminal(run_cli, monkeypatch)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_any_name_on_any_terminal(terminal: Terminal, run_cli: CommandLine, tmp_path: Path, encoding: str) -> None:
    """Shown as far as the terminal can, else as escapes; one record is one line, and JSON stays JSON."""
    for name in NAMES:
        assert terminal(encoding, "submit", manifest(tmp_path), "--name", name)[0] == 0
    code, out, _ = terminal(encoding, "batches")
    assert (code, len(out.splitlines())) == (0, len(NAMES))
    assert not CONTROL.search(out)
    if encoding == "utf-8":
        shown = ["Été 帽子 🎩", r"a\x1b[31mred\x07\x9b2J", r"two\nlines\r\tand a tab", r"\u202eedispu\u2066"]
        for name, line in zip([*shown, *NAMES[4:]], reversed(out.splitlines()), strict=True):
            assert line.endswith(f"  {name}")
    code, out, _ = terminal(encoding, "batches", "--json")
    assert not CONTROL.search(out)
    assert [json.loads(line)["name"] for line in out.splitlines()] == NAMES[::-1]
    code, out, _ = terminal(encoding, "status", "last")
    assert (code, out.count("batch_id") + out.count("finished")) == (0, 0)
    assert not CONTROL.search(out)
    sheet = tmp_path / "sheet.html"
    for command in (
        "errors last",
        "timeline last/0",
        "top --once",
        "prune --dry-run",
        f"contact-sheet last --output {sheet}",
    ):
        code, out, err = terminal(encoding, *command.split())
        assert (code, CONTROL.search(out + err)) == (0, None), command
    assert not re.search("[\x00-\x08\x0b-\x1f]", sheet.read_text("utf-8"))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_faults_on_any_terminal(terminal: Terminal, tmp_path: Path, encoding: str) -> None:
    """Sentences about names and paths that it cannot show, or that would move its cursor."""
    odd = "пусто\x1b[2J.png"
    code, out, err = terminal(encoding, "submit", manifest(tmp_path, image_urls=[odd]))
    assert (code, out) == (2, "")
    assert "there is no file" in err
    assert not CONTROL.search(err)
    deadline = ("submit", manifest(tmp_path), "--deadline", "\x1b帽")
    for arguments in (("submit", "no\x1bsuch帽"), ("status", "帽\x1b"), deadline):
        code, out, err = terminal(encoding, *arguments)
        assert (code, out) == (2, "")
        assert not CONTROL.search(err)


def test_contact_sheet_of_any_name(run_cli: CommandLine, tmp_path: Path) -> None:
    """A name of several lines is drawn on one."""
    path = manifest(tmp_path, prompt="")
    for name in NAMES:
        assert run_cli("submit", path, "--name", name, "--on-invalid", "skip").code == 0
        assert run_cli("contact-sheet", "last", "--output", tmp_path / "sheet.png").code == 0


def process(
    run_cli: CommandLine, *arguments: object, prefix: str = "", anew: bool = False, **variables: str
) -> subprocess.CompletedProcess[str]:
    """A command as a process of its own, in a shell where `prefix` is given; `anew`: with a Python of its own."""
    if not prefix:
        return run_command(*map(str, arguments), **variables)
    words = [*(PYTHON if anew else forked_commands().typed), *map(str, arguments)]
    command = ["bash", "-c", f'{prefix} "$@"' if "{}" not in prefix else prefix.replace("{}", '"$@"'), "bash", *words]
    return subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def many(run_cli: CommandLine, tmp_path: Path) -> str:
    """A batch of which the export is more than a pipe holds; its id."""
    path = tmp_path / "many.jsonl"
    edits = ({"custom_id": f"x{n}", "prompt": "p" * 400, "image_urls": [URL]} for n in range(300))
    path.write_text("".join(json.dumps(edit) + "\n" for edit in edits))
    return str(run_cli("submit", path, "--name", "Été " * 20, "--json").json["batch_id"])


@pytest.mark.parametrize("columns", ["0", "1", "20", "40", "", "-5", "many"])
def test_ids_are_whole_in_a_pipe_of_any_width(run_cli: CommandLine, many: str, columns: str) -> None:
    """One record is one line, and no line is broken where a terminal would end."""
    said = process(run_cli, "batches", COLUMNS=columns)
    assert (said.returncode, len(said.stdout.splitlines())) == (0, 1), said.stderr
    assert said.stdout.startswith(f"{many}  ")
    assert "Été " * 20 in said.stdout + " "
    said = process(run_cli, "status", many, COLUMNS=columns)
    assert said.stdout.splitlines()[0].startswith(f"batch    {many}  Été")


@pytest.mark.parametrize(
    "arguments",
    [
        ("export", "last"),
        ("status", "last"),
        ("timeline", "last/x1"),
        ("top", "--once"),
        ("batches", "--json"),
        ("submit", "{manifest}"),
        ("env",),
    ],
)
def test_a_full_disk_behind_the_output_is_one_sentence(
    run_cli: CommandLine, many: str, tmp_path: Path, arguments: Any
) -> None:
    """What is printed does not get lost in silence, and the exit code says so."""
    given = [word.format(manifest=manifest(tmp_path)) for word in arguments]
    said = process(run_cli, *given, prefix="{} >/dev/full", anew="export" in given)
    assert said.returncode == 2
    assert said.stderr.splitlines() == ["darkroom: The output cannot be written: No space left on device."]


@pytest.mark.parametrize(("command", "name"), [("export", "x.jsonl"), ("contact-sheet", "x.html")])
def test_a_pipe_or_a_link_as_output_stays_one(run_cli: CommandLine, tmp_path: Path, command: str, name: str) -> None:
    """No file takes the place of what a person named: a pipe to another program, a link to a folder elsewhere."""
    assert run_cli("submit", manifest(tmp_path)).code == 0
    pipe, link, target = tmp_path / name, tmp_path / f"link-{name}", tmp_path / f"target-{name}"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    target.touch()
    link.symlink_to(target)
    try:
        assert run_cli(command, "last", "--output", pipe).code == 0
        assert pipe.is_fifo()
        assert len(os.read(reader, 2**16)) > 100
    finally:
        os.close(reader)
    assert run_cli(command, "last", "--output", link).code == 0
    assert (link.is_symlink(), target.stat().st_size > 100) == (True, True)
    assert run_cli(command, "last", "--output", tmp_path / "no" / name).code == 2


@pytest.mark.parametrize(
    "command", ["export last", "export last --state pending", "batches --json", "status last", "env"]
)
def test_a_reader_that_goes_away_is_no_failed_edit(run_cli: CommandLine, many: str, command: str) -> None:
    """Quiet, and never 1, which says that edits failed."""
    said = process(run_cli, *command.split(), prefix="exec 3> >(true); wait $!; {} >&3", anew=command == "export last")
    assert (said.returncode, said.stderr) == (141, ""), said


def test_a_reader_that_goes_away_while_a_batch_is_watched(run_cli: CommandLine, many: str) -> None:
    """The batch is not finished and nothing failed: not 0, not 1."""
    said = process(run_cli, "watch", "last", "--json", prefix="{} | true; exit ${PIPESTATUS[0]}")
    assert (said.returncode, said.stderr) == (141, "")
    said = process(run_cli, "watch", "last", prefix="{} | true; exit ${PIPESTATUS[0]}")
    assert (said.returncode, said.stderr) == (141, "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&-"])
def test_closed_streams(run_cli: CommandLine, many: str, closed: str) -> None:
    """A service that was started without them."""
    said = process(run_cli, "export", "last", "--output", "/dev/null/x", prefix=f"{{}} {closed}")
    assert said.returncode == 2
    for command, code in (("status last", 0), ("export last", 2 if closed.startswith(">") else 0)):
        said = process(run_cli, *command.split(), prefix=f"{{}} {closed}", anew=command == "export last")
        assert (said.returncode, "Traceback" in said.stderr) == (code, False), said.stderr


@pytest.mark.parametrize(
    "prefix",
    ["cat {m} | {} -", "{} <(cat {m})", "cat {m} | {} /dev/stdin", "gzip -c {m} | {} -", "{} /dev/stdin < {m}"],
)
def test_a_manifest_from_a_pipe(run_cli: CommandLine, engine: Engine, tmp_path: Path, prefix: str) -> None:
    """By whatever name a shell gives it; paths in it are relative to where one is."""
    path = manifest(tmp_path)
    anew = "<(" in prefix  # a file of the shell's, which a fork of another process has not
    said = process(run_cli, "submit", prefix=prefix.replace("{m}", str(path)), anew=anew)
    assert (said.returncode, said.stderr) == (0, "")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM edits").scalar() == 1


@pytest.mark.parametrize("given", ["{} - <&-", "{} /proc/self/mem", "{} - >/dev/full </dev/null"])
def test_a_manifest_that_cannot_be_read(run_cli: CommandLine, given: str) -> None:
    """Nothing at all, a disk that fails, an empty one: a sentence about the manifest, not about the output."""
    said = process(run_cli, "submit", prefix=given)
    assert (said.returncode, said.stdout, said.stderr.count("\n")) == (2, "", 1), said.stderr
    assert "The manifest " in said.stderr or "standard input" in said.stderr


def test_no_room_for_what_comes_through_a_pipe(run_cli: CommandLine, tmp_path: Path) -> None:
    """A temporary folder that is full, or not there: a sentence that says where, and what to do."""
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"prompt": "x" * 2**20, "image_urls": [URL]}))
    said = process(run_cli, "submit", "-", prefix=f"ulimit -f 100; trap '' XFSZ; {{}} < {path}", anew=True)
    assert (said.returncode, said.stderr.count("\n")) == (2, 1), said.stderr
    assert "The manifest cannot be kept in" in said.stderr
    assert "TMPDIR" in said.stderr


@pytest.mark.parametrize("command", sorted(set(darkroom.commands) - {"emulator"}))
def test_help_on_a_narrow_terminal(command: str) -> None:
    """However narrow, the help is there."""
    for width in (10, 20, 40):
        said = CliRunner().invoke(darkroom, [command, "--help"], terminal_width=width)
        assert (said.exit_code, "Usage" in said.output) == (0, True)


def test_every_module_prints_through_one_place() -> None:
    """`cli/output.py` knows what may not reach a terminal; nothing prints a name past it."""
    allowed = {"output.py", "streams.py"}
    found = {
        path.name
        for path in (Path(__file__).parents[3] / "cli").rglob("*.py")
        if re.search(r"rich\.markup|Console\(|json\.dumps\(.*ensure_ascii|click\.s?echo", path.read_text())
    }
    assert found <= allowed
