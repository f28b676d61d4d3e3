"""Runs every case of docs/storage.md against every store, and writes its table: `python -m tests.write_stores`.

A case that fails, or is left out because its store is not here, leaves the page as it is.
"""

import sys
from pathlib import Path

import pytest

from tests.test_docs import STORES_TABLE, stores_table

PAGE = Path(__file__).parent.parent / "docs" / "storage.md"
SUITE = ("tests/http/storage/test_conformance.py", "tests/http/storage/test_credentials.py")


class Outcomes:
    """What did not pass."""

    def __init__(self) -> None:
        self.not_passed: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed:
            self.not_passed.append(report.nodeid)


def write() -> int:
    """The suite's exit code; 1 where a case was left out."""
    outcomes = Outcomes()
    code = int(pytest.main([*SUITE, "-q"], plugins=[outcomes]))
    if code or outcomes.not_passed:
        print(f"{PAGE.name} stays as it is: {len(outcomes.not_passed)} cases did not pass.", file=sys.stderr)
        return code or 1
    PAGE.write_text(STORES_TABLE.sub(lambda _: stores_table(), PAGE.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(write())
