"""What somebody who watches one edit is told, and that it is told once."""

import pytest

from cli.batches import watch_edit
from cli.batches.follow_edit import EditStatus, Step
from cli.batches.watch_edit import EditReporter, place
from core.errors import Gone
from models.seedream import ENDPOINT
from models.states import EditState
from provider.follow_request import LogLine, Update


def status(state: EditState, **more: object) -> EditStatus:
    given = {"attempt": 0, "request_id": None, "endpoint": ENDPOINT, "error": None, "paused": None}
    return EditStatus(state, **{**given, **more})


def print_steps(capsys: pytest.CaptureFixture[str], *steps: Step, quiet: bool = False) -> tuple[list[str], list[str]]:
    reporter = EditReporter(quiet=quiet)
    for step in steps:
        reporter.report(step)
    out, err = capsys.readouterr()
    return out.splitlines(), err.splitlines()


def update(status: str, *messages: str, position: int | None = None, seconds: float | None = None) -> Update:
    logs = tuple(LogLine(message, "INFO", "2026-01-01T10:11:12") for message in messages)
    return Update("r", status, position, logs, False, seconds)


def test_whole_story(capsys: pytest.CaptureFixture[str]) -> None:
    """Each thing once, in its order; markup in a stranger's words stays as it is."""
    submitted = status(EditState.SUBMITTED, attempt=1, request_id="r")
    steps = [
        Step(status(EditState.PENDING), (), None),
        Step(submitted, (update("IN_QUEUE", position=2),), None),
        Step(submitted, (update("IN_PROGRESS", "[bold]a"), update("IN_PROGRESS", "b")), None),
        Step(status(EditState.READY, attempt=1), (update("COMPLETED", "c", seconds=7.4),), None),
        Step(status(EditState.STORED, attempt=1), (), None),
    ]
    assert print_steps(capsys, *steps) == (
        [
            "pending",
            "submitted  request r",
            "in the provider's queue, 2 ahead",
            "running at the provider",
            "  10:11:12  [bold]a",
            "  10:11:12  b",
            "  10:11:12  c",
            "made in 7 s",
            "ready",
            "stored",
        ],
        [],
    )


def test_attempts_that_fail(capsys: pytest.CaptureFixture[str]) -> None:
    """The last line of the log, then the error, then that it waits again."""
    error = {"type": "internal_error", "message": "no"}
    steps = [
        Step(status(EditState.SUBMITTED, attempt=1, request_id="r"), (), None),
        Step(status(EditState.PENDING, attempt=1, error=error), (update("COMPLETED", "oops"),), None),
    ]
    out, _ = print_steps(capsys, *steps)
    assert out[1:] == ["  10:11:12  oops", "attempt 1 failed  internal_error: no", "pending"]


@pytest.mark.parametrize("quiet", [False, True])
def test_nothing_moves(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, quiet: bool) -> None:
    """Why, as far as it is known, once, on standard error, also beside JSON."""
    monkeypatch.setattr(watch_edit, "STILL", 0)
    waiting = Step(status(EditState.PENDING), (), None)
    paused = Step(status(EditState.PENDING, paused="locked: no money"), (), None)
    gone = Step(status(EditState.SUBMITTED, request_id="r", attempt=1), (), Gone())
    out, err = print_steps(capsys, waiting, waiting, paused, paused, gone, gone, quiet=quiet)
    assert [line.partition(":")[0] for line in err] == [
        "Nothing has moved yet",
        "Nothing is submitted now",
        "No log lines",
    ]
    assert out == ([] if quiet else ["pending", "submitted  request r"])


def test_place_of_an_image() -> None:
    """A path on this machine, or an address in the store."""
    assert place("file:///a%20b/images", "x/0.png") == "/a b/images/x/0.png"
    assert place("s3://bucket/p", "x/0.png") == "s3://bucket/p/x/0.png"
