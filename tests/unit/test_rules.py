"""Rules of the house that no tool knows."""

import re
import subprocess
import sys
from pathlib import Path

from worker.lane import load_lanes
from worker.lanes import LANES

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


def test_the_table_of_the_lanes_and_their_files_agree() -> None:
    """A lane without a line would never start, a line without a lane would stop every worker."""
    files = {path.stem for path in (ROOT / "worker" / "lanes").glob("*.py")} - {"__init__"}
    assert set(LANES) == files
    for name, lane in load_lanes().items():
        assert lane.__module__ == f"worker.lanes.{name}"
        assert lane.is_due.strip()


def test_the_names_of_the_lanes_cost_no_heavy_import() -> None:
    """A command that only wants to know which programs there are imports no Celery, no database, no client."""
    heavy = ("celery", "sqlalchemy", "requests", "obstore", "aiohttp", "PIL", "pydantic")
    script = f"import cli.stack.processes, sys; print([name for name in {heavy} if name in sys.modules])"
    answer = subprocess.run((sys.executable, "-c", script), capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"
