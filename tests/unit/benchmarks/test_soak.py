"""A soak goes on where it was stopped, counts what it may count, and takes no run for clean that did not end."""

import json
from pathlib import Path

from benchmarks import soak

RUN = {"seed": 1001, "clean": True, "kills": {"submit": 3, "flush": 2}, "injected": {"wrong_key": 5, "drop_webhook": 7}}


def test_it_goes_on_behind_the_last_line(tmp_path: Path) -> None:
    """Half a line, of a soak that was killed while it wrote, is no run; the next one stands on a line of its own."""
    file = tmp_path / "runs.jsonl"
    assert (soak.read(file), soak.next_seed([])) == ([], 1001)
    soak.append(file, RUN)
    with file.open("a") as lines:
        lines.write('{"seed": 1002, "cle')
    assert soak.next_seed(soak.read(file)) == 1002
    soak.append(file, {**RUN, "seed": 1002})
    assert [run["seed"] for run in soak.read(file)] == [1001, 1002]


def test_what_is_counted() -> None:
    """A callback that was sent again and spoilt counts once; emptying Redis is no kill."""
    assert (soak.faulted(RUN), soak.killed(RUN)) == (12, 3)
    assert soak.faulted({**RUN, "resent": 4}) == 12
    assert soak.faulted({**RUN, "resent": 40}) == 47
    assert soak.faulted({"seed": 1, "clean": False}) == 0
    assert soak.enough([RUN, RUN], 24, 6)
    assert not soak.enough([RUN, RUN], 25, 6)
    assert not soak.enough([RUN, RUN], 24, 7)


def test_a_run_that_breaks_is_not_clean(monkeypatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """It says so, and its seed, and the table names it."""
    monkeypatch.setattr(soak.sys, "executable", "/bin/false")
    run = soak.chaos(1005, 10, 0)
    assert (run["clean"], run["seed"]) == (False, 1005)
    soak.append(tmp_path / "runs.jsonl", {"began": "", **RUN})
    soak.append(tmp_path / "runs.jsonl", json.loads(json.dumps(run)))
    cells = [str(cell) for column in soak.table(soak.read(tmp_path / "runs.jsonl")).columns for cell in column.cells]
    assert "1005" in cells
