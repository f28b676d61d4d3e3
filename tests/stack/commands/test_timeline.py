"""`darkroom timeline`: what happened to one edit is read in the order in which it happened."""

import pytest
from sqlalchemy import Engine

from models.record_reports import record_reports
from models.transitions import cancel_batch
from models.verdict import Kind, Retry, Verdict
from tests.support.command_line import CommandLine
from tests.support.factories import POLICY, accept, answer, claim, fall_due, make_batch, success

BUSY = Verdict(
    Kind.FAILED, error_type="internal_server_error", message="two\nlines \x1b[31m [bold]", retry=Retry.TRANSIENT
)


def twice(engine: Engine) -> int:
    """An edit that failed once and then succeeded; its id."""
    with engine.begin() as connection:
        make_batch(connection)
        (first,) = claim(connection)
        accept(connection, [first])
    with engine.begin() as connection:
        record_reports(connection, [answer(first, BUSY)], POLICY)
    with engine.begin() as connection:
        fall_due(connection)
        (second,) = claim(connection)
        accept(connection, [second])
    with engine.begin() as connection:
        record_reports(connection, [answer(second, success())], POLICY)
        return int(first.edit_id)


def test_a_life_with_two_attempts(run_cli: CommandLine, engine: Engine) -> None:
    """States, POSTs and the error between them; nothing of a message reaches the terminal as it is."""
    edit_id = twice(engine)
    lines = run_cli("timeline", "last/0").out.splitlines()
    assert lines[0].startswith(f"edit {edit_id}, 0 of batch ")
    assert lines[0].endswith(": ready")
    shown = [line.split("  ")[2:] for line in lines[1:]]
    what = [[part.strip() for part in parts if part.strip()] for parts in shown]
    words = [parts[1] if parts[0].startswith("+") else parts[0] for parts in what]
    for word in ("pending", "posted", "accepted", "error", "image returned"):
        assert word in words, lines
    assert words.count("posted") == 2
    assert words.index("error") < len(words) - 1 - words[::-1].index("posted")
    assert any(r"internal_server_error  two\nlines \x1b[31m [bold]" in line for line in lines)


def test_for_a_script(run_cli: CommandLine, engine: Engine) -> None:
    """One object a line, the columns of the view, by the edit's number as well."""
    edit_id = twice(engine)
    lines = run_cli("timeline", str(edit_id), "--json").lines
    assert [line["number"] for line in lines] == list(range(1, len(lines) + 1))
    assert {line["edit_id"] for line in lines} == {edit_id}
    assert [line["state"] for line in lines if line["what"] == "state"][:3] == ["pending", "submitting", "submitted"]
    assert lines == run_cli("timeline", "last/0", "--json").lines


def test_names(run_cli: CommandLine, engine: Engine) -> None:
    """By custom_id, which goes before a position, or by position."""
    with engine.begin() as connection:
        batch_id = make_batch(connection, 3)
        connection.exec_driver_sql("UPDATE edits SET custom_id = 'hat-1' WHERE position = 1")
        cancel_batch(connection, batch_id)
    by_name = run_cli("timeline", "last/hat-1", "--json").lines
    assert by_name == run_cli("timeline", f"{str(batch_id)[:8]}/1", "--json").lines
    assert "cancelled" in [line["state"] for line in by_name]


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        ("last/none", "There is no edit last/none."),
        ("last/", "There is no edit last/."),
        ("99999999", "There is no edit 99999999."),
        ("9" * 40, "names no edit"),
        ("hat", "names no edit: give BATCH/NAME, as in last/0, or an edit's number."),
        ("ffffffff/0", "There is no batch ffffffff."),
        ("last/99999999999999999999", "There is no edit"),
        ("last/\x1b[2J", "There is no edit last/\\x1b[2J."),
        ("²", "names no edit"),
    ],
)
def test_no_such_edit(run_cli: CommandLine, engine: Engine, edit: str, sentence: str) -> None:
    """A sentence."""
    with engine.begin() as connection:
        make_batch(connection)
    said = run_cli("timeline", edit)
    assert (said.code, sentence in said.err) == (2, True), said
