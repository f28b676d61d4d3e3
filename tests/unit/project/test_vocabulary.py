"""One word, one meaning: what the glossary replaced stays out, and what it names is there."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FOLDERS = (
    *("benchmarks", "buffering", "cli", "core", "docs", "fal_emulator", "http_client", "intake"),
    *("models", "provider", "storage", "tests", "webhook_receiver", "worker"),
)
GLOSSARY = ROOT / "docs" / "glossary.md"
RETIRED = re.compile(
    r"\b(porch|Spool|Courier|courier|Fuse|Teller|Ruling|Standing|Steered|Commission|Studio|Letters|foresee|hopeless|"
    r"patiently|PATIENCE|doors?|Door|bury|rescue|linger|leash|go_on|flying|take_back|reveal_request|poll_again|"
    r"give_up_unknown|cancel_wished|cancel_heard|WATCHDOG|"
    r"IMAGES_MOST|record_answers|_tell_of_the_wish|pictures?|Pictures?|apply_reports|Warmth|fal-protocol|[Ss]tandin|"
    r"[Ss]tand-ins?)\b"
)
"""Words without any other meaning here; `PICTURE_MAX_BYTES` is a setting's name, which stays."""
PARTICIPLES = {
    "asked",
    "found",
    "judged",
    "looked",
    "made",
    "told",
    "written",
    "answered",
    "described",
    "validated",
    "given",
    "checked",
    "closed",
}
PLAIN_ENGLISH = {"README.md", "fal_emulator/__init__.py", "fal_emulator/catalogue.py"}
"""Where what the emulator is may be explained, once or on the wire, as a stand-in."""


def sources(*endings: str) -> Iterator[Path]:
    for folder in FOLDERS:
        for ending in endings:
            yield from (path for path in (ROOT / folder).rglob(f"*{ending}") if path != Path(__file__))


def test_retired_words_stay_out() -> None:
    """In code, comments, tests and documentation; the provider's own pages keep the provider's words."""
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}"
        for path in (*sources(".py", ".md"), ROOT / "README.md")
        if path.name not in ("provider-protocol.md", "CHANGELOG.md")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for match in RETIRED.finditer(line)
        if not (match[0] == "stand-in" and str(path.relative_to(ROOT)) in PLAIN_ENGLISH)
    ]
    assert found == []


def test_functions_are_verbs() -> None:
    """No function is called by a participle."""
    found = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in sources(".py")
        if "tests" not in path.parts
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.strip("_") in PARTICIPLES
    ]
    assert found == []


def rows() -> list[tuple[str, str]]:
    """(word, module) of each line of the glossary."""
    lines = [line for line in GLOSSARY.read_text().splitlines() if line.startswith("| ")][1:]
    return [(cells[1].strip(), cells[4].strip()) for cells in (line.split("|") for line in lines)]


def test_the_glossary_names_each_word_once() -> None:
    """And is not empty."""
    words = [word for cell, _ in rows() for word in cell.split(", ")]
    assert len(words) > 30
    assert len(set(words)) == len(words)


@pytest.mark.parametrize(("word", "modules"), rows())
def test_the_module_of_a_word_is_there(word: str, modules: str) -> None:
    """The glossary leads to a file or folder."""
    for module in re.findall(r"`([^`]+)`", modules):
        assert (ROOT / module).exists(), word
