"""Rules of the house that no tool knows."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from models.due_work import IS_DUE
from worker.lane import load_lanes
from worker.lanes import LANES

ROOT = Path(__file__).parents[3]
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
    code = [path for folder in (*FOLDERS, "fal_emulator") for path in (ROOT / folder).rglob("*.py")]
    assert len(code) > 100
    assert [path for path in code if re.search(r"[\"']/proc/", path.read_text())] == []


def test_the_table_of_the_lanes_and_their_files_agree() -> None:
    """A lane without a line would never start, a line without a lane would stop every worker."""
    files = {path.stem for path in (ROOT / "worker" / "lanes").glob("*.py")} - {"__init__"}
    assert set(LANES) == files
    for name, lane in load_lanes().items():
        assert lane.__module__ == f"worker.lanes.{name}"
    assert set(IS_DUE) == files


def test_the_names_of_the_lanes_cost_no_heavy_import() -> None:
    """A command that only wants to know which programs there are imports no Celery, no database, no client."""
    heavy = ("celery", "sqlalchemy", "requests", "obstore", "aiohttp", "PIL", "pydantic")
    script = f"import cli.stack.processes, sys; print([name for name in {heavy} if name in sys.modules])"
    answer = subprocess.run((sys.executable, "-c", script), capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"


SQL = re.compile(
    r"^\s*(?:SELECT\s+\S|WITH\s+\w+\s+AS\b|INSERT\s+INTO\b|UPDATE\s+\w+\s+(?:\w+\s+)?SET\b|DELETE\s+FROM\b|COPY\s+\w+\s*\()"
    r"|\b(?:WHERE|AND|FROM)\s[^.]*%(?:s\b|\()|\bIS (?:NOT )?NULL\b|\b\w+\s*=\s*(?:ANY\(|now\(\))"
)
SQL_BUILDERS = {"delete", "insert", "select", "text", "update"}


def sql_in(tree: ast.AST) -> Iterator[int]:
    """Lines of literals that hold SQL, and of imports of what builds it; prose of docstrings is no SQL."""
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in prose and SQL.search(node.value):
                yield node.lineno
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sqlalchemy"):
            yield from (node.lineno for alias in node.names if alias.name in SQL_BUILDERS)


def sql_outside_models() -> set[str]:
    """Every module that holds SQL, of those whose SQL belongs into `models/`."""
    folders = set(FOLDERS) - {"benchmarks", "models"}
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert len(paths) > 100
    return {f"{path.relative_to(ROOT)}:{line}" for path in paths for line in sql_in(ast.parse(path.read_text()))}


def sql_in_functions() -> set[str]:
    """Functions of `models/` with SQL in their bodies, where no list shows it."""
    found = set()
    for path in (ROOT / "models").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and any(True for _ in sql_in(node)):
                found.add(f"{path.relative_to(ROOT)}: {node.name}")
    return found


def test_sql_has_one_address() -> None:
    """Whoever changes a column looks into models/ and nowhere else, and every statement can be listed."""
    assert sql_outside_models() == set()
    # fragments for a table of any name; and what reads statements in the server's messages
    assert {place.split(":")[0] for place in sql_in_functions()} <= {
        "models/predicates.py",
        "models/database_errors.py",
    }


def test_the_guard_knows_sql_and_prose() -> None:
    """A guard that finds nothing proves nothing."""
    sql = (
        'run("SELECT 1")',
        'query = f"{ROWS} WHERE batch_id = %s"',
        'run("UPDATE batches SET name = 1")',
        'change = "paused_at = now()"',
        'also = "due_at IS NOT NULL"',
        "from sqlalchemy import Connection, select",
    )
    prose = (
        '"""SELECT is what this does WHERE x = %s."""',
        'say("Select one with --limit.")',
        'say("Update the key from %s.")',
        "from sqlalchemy import Connection",
    )
    assert [bool(list(sql_in(ast.parse(code)))) for code in sql] == [True] * len(sql)
    assert [bool(list(sql_in(ast.parse(code)))) for code in prose] == [False] * len(prose)
