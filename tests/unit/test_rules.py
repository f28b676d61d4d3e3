"""Rules of the house that no tool knows."""

import re
from pathlib import Path

from benchmarks.faults import VICTIMS
from cli.doctor.lane_checks import LOOKS
from cli.stack.processes import LANES as WORKERS
from models.claims import Lanes
from worker.celery import LANES

ROOT = Path(__file__).parent.parent.parent
FOLDERS = (
    *("benchmarks", "buffering", "cli", "core", "http_client", "intake"),
    *("models", "provider", "storage", "webhook_receiver", "worker"),
)
SET_CLAUSE = re.compile(r"\bSET\s+(.*?)(?=\bFROM\b|\bWHERE\b|\bRETURNING\b|\"\"\"|\"\n)", re.DOTALL)


def writers_of_state() -> set[str]:
    """Every module with an UPDATE that sets a `state`."""
    found = set()
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            clauses = SET_CLAUSE.findall(path.read_text())
            if any(re.search(r"\bstate\s*=", clause) for clause in clauses):
                found.add(str(path.relative_to(ROOT)))
    return found


def test_only_the_transitions_write_a_state() -> None:
    """A state is written in models/transitions/ and nowhere else."""
    found = writers_of_state()
    assert "models/transitions/submission_ends.py" in found
    assert {path for path in found if not path.startswith("models/transitions/")} == set()


def test_nothing_of_ours_reads_proc() -> None:
    """macOS has no /proc: processes are asked for through psutil."""
    code = [path for folder in (*FOLDERS, "fal_emulator", "front") for path in (ROOT / folder).rglob("*.py")]
    assert len(code) > 100
    assert [path for path in code if re.search(r"[\"']/proc/", path.read_text())] == []


def test_every_lane_is_known_everywhere() -> None:
    """Started by the tick, served by a worker, looked at by the doctor, killed by chaos."""
    lanes = set(LANES)
    assert set(Lanes._fields) == lanes
    assert set(LOOKS) == lanes
    assert {queue for queues, _ in WORKERS.values() for queue in queues} == {*lanes, "intake"}
    assert lanes <= set(VICTIMS)
