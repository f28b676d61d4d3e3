"""Writes into docs/settings.md and .env.example what the settings classes say: `python -m tests.write_settings`.

What the tests then compare is the same text; this only saves typing it.
"""

import re
from pathlib import Path

from tests.test_docs import settings_table
from tests.unit.project.test_compose import example_lines

ROOT = Path(__file__).parent.parent
FIRST = example_lines().partition("\n")[0] + "\n"


def write() -> None:
    """Replace the table of the one, and everything from the first setting on of the other."""
    page, example = ROOT / "docs" / "settings.md", ROOT / ".env.example"
    page.write_text(re.sub(r"(?m)^\| variable \|.*\n(\|.*\n)*", lambda _: settings_table() + "\n", page.read_text()))
    example.write_text(example.read_text().partition(FIRST)[0] + example_lines())


if __name__ == "__main__":
    write()
