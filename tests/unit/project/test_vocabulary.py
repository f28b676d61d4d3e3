"""One word, one meaning: what the glossary replaced stays out, and what it names is there."""

import ast
import re
from collections.abc import Iterator
from enum import Enum
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[3]
FOLDERS = (
    *("benchmarks", "buffering", "cli", "core", "docs", "fal_emulator", "http_client", "intake"),
    *("models", "provider", "storage", "tests", "webhook_receiver", "worker"),
)
GLOSSARY = ROOT / "docs" / "glossary.md"
OTHER_FILES = ("README.md", "CONTRIBUTING.md", "Makefile", "Dockerfile", "docker-compose.yml", ".env.example")
NOT_OURS = ("provider-protocol.md", "CHANGELOG.md", Path(__file__).name)
"""The provider's own pages keep the provider's words, the past keeps its own."""


class As(Enum):
    """As what a retired word is looked for."""

    ANYTHING = "in no code, comment, test or page, nor as a part of a name"
    NAME = "no function, class, variable, parameter, attribute or module of ours is called so"
    DEFINITION = "no function, class or module of ours is called so; a variable may be, for it means something else"
    MODULE = "no module or folder is called so"


class Retired(NamedTuple):
    """Words, as what each is looked for, where, and why not everywhere."""

    words: str
    held: As
    folder: str = ""
    why: str = ""


RETIRED = (
    # the buffering server
    Retired("porch Spool", As.ANYTHING),
    Retired("Front front Room room Bounds", As.NAME, why="`in front of`, `has room`, `bounds of` are plain English"),
    # intake, worker, receiver, CLI, domain
    Retired("door doors Door desk ear", As.ANYTHING),
    Retired("hands", As.NAME, why="who hands in a batch; see METAPHORS"),
    Retired("words", As.MODULE, why="words of a sentence; as the domain it was a folder"),
    Retired("admit", As.NAME, why="a verb"),
    # the intake's modules
    Retired("answers questions looking pace keys steering writing spreadsheet documents", As.MODULE, why="plain nouns"),
    Retired("bodies", As.MODULE, "intake", "bounded bodies of HTTP are in http_client/bodies.py"),
    Retired("the_batch some_batches one_batch", As.NAME, why="tests that end the batch, or spoil one batch, say so"),
    Retired("Steered Asked", As.NAME, why="participles are plain English"),
    Retired("steered asked carried judged", As.DEFINITION, why="a variable may be what was asked"),
    Retired("Keys", As.NAME, why="an API key, a storage key and a signing key are said in full"),
    Retired("taken", As.DEFINITION, why="what a loop has taken so far"),
    # decisions
    Retired("rulings", As.MODULE, why="the heading of the architecture's table"),
    Retired("Ruling Standing standing Answer", As.NAME, why="plain nouns; Flask's and the provider's answers"),
    Retired("rule look", As.DEFINITION, why="Flask's URL rules; `look` is a parameter that asks something"),
    Retired("take_back reveal_request poll_again give_up_unknown", As.ANYTHING),
    Retired("cancel_wished cancel_asked_at cancel_heard tell_of_the_wish", As.ANYTHING),
    Retired("wished heard", As.DEFINITION, why="a variable may be what was heard"),
    Retired("patience PATIENCE WATCHDOG IMAGES_MOST flying patiently", As.ANYTHING),
    # the lanes
    Retired("waves", As.MODULE, "worker", "a wave is what the receiver records in one transaction"),
    Retired("flow land go_on", As.NAME, why="verbs"),
    Retired("rescue linger courier Courier hopeless Fuse fuse edit_steps wiring", As.ANYTHING),
    Retired("word reach", As.DEFINITION, why="a word of a line is plain English"),
    Retired("lost live", As.MODULE, why="lost edits and live submissions are spoken of"),
    Retired("crash", As.MODULE, why="crashes are spoken of"),
    Retired("prices pricing", As.MODULE, why="what the provider asks for"),
    Retired("clock turn", As.DEFINITION, why="this machine's clock; the glossary's turn is taken with `take_turn`"),
    Retired("Clock TURN", As.NAME, why="the same"),
    # the command line
    Retired("leash bury Teller foresee descendants grounds", As.ANYTHING),
    Retired("tell told aside", As.NAME, why="verbs and adverbs"),
    Retired("watching", As.MODULE, why="what `darkroom watch` does"),
    Retired("looks", As.DEFINITION, why="a number of them"),
    Retired("findings", As.MODULE, why="what is found is spoken of"),
    Retired("fault", As.NAME, "cli/doctor", "elsewhere a manifest's lines have faults, and the emulator injects some"),
    # the emulator
    Retired("Studio studio Commission", As.ANYTHING),
    Retired("Letters Line complaint", As.NAME, why="letters of a font, lines of a file, what an account hears"),
    Retired("gate", As.MODULE, why="a verb"),
    Retired("picture pictures Picture Pictures", As.ANYTHING),
    # retired later
    Retired("record_answers apply_reports Warmth fal-protocol standin Standin", As.ANYTHING),
    Retired("stand-in stand-ins Stand-in Stand-ins", As.ANYTHING),
)
METAPHORS = re.compile(
    r"(?i)\bin (the|our|its) hands\b|"
    r"\bthe (hands|words|ear|desk|door|porch)(?= (claims?|records?|works?|takes?|imports?)\b)"
)
"""Prose in which a part of the house stands for a program."""
ALLOWED = {
    "picture": ("PICTURE_MAX_BYTES", "picture_max_bytes"),
    "stand-in": ("README.md", "fal_emulator/__init__.py", "fal_emulator/catalogue.py"),
}
"""A setting's name, which stays; the pages that say, once or on the wire, what the emulator is."""
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


class Found(NamedTuple):
    """A name of ours, and what it is the name of."""

    name: str
    kind: str
    line: int


def sources(*endings: str) -> Iterator[Path]:
    for folder in FOLDERS:
        for ending in endings:
            yield from (path for path in (ROOT / folder).rglob(f"*{ending}") if path.name not in NOT_OURS)


@cache
def texts() -> dict[str, str]:
    """Code, tests, pages and the files beside them, by path."""
    paths = (*sources(".py", ".md", ".html"), *(ROOT / name for name in OTHER_FILES))
    return {str(path.relative_to(ROOT)): path.read_text() for path in paths}


@cache
def names() -> dict[str, list[Found]]:
    """What the code calls its own things, by path."""
    return {path: list(definitions(path, text)) for path, text in texts().items() if path.endswith(".py")}


def definitions(path: str, text: str) -> Iterator[Found]:
    """Every name that a file gives; what it calls by the names of others is theirs."""
    yield from (Found(part, "module", 0) for part in Path(path).with_suffix("").parts)
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield Found(node.name, "function", node.lineno)
            case ast.ClassDef():
                yield Found(node.name, "class", node.lineno)
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield Found(name, "variable", node.lineno)
            case ast.arg(arg=name):
                yield Found(name, "variable", node.lineno)


def uses(retired: Retired, word: str) -> list[str]:
    """Where a retired word is used as it must not be."""
    if retired.held is As.ANYTHING:
        return in_texts(word)
    kinds = {
        As.NAME: ("function", "class", "module", "variable"),
        As.DEFINITION: ("function", "class", "module"),
        As.MODULE: ("module",),
    }[retired.held]
    return [
        f"{path}:{found.line}: {found.name}"
        for path, all_names in names().items()
        if path.startswith(retired.folder)
        for found in all_names
        if found.kind in kinds and found.name.strip("_") == word
    ]


def in_texts(word: str) -> list[str]:
    """Lines with the word, by itself or as a part of a name."""
    pattern = re.compile(rf"(?<![A-Za-z]){re.escape(word)}(?![a-z])")
    allowed = ALLOWED.get(word, ())
    return [
        f"{path}:{number}: {line.strip()}"
        for path, text in texts().items()
        if path not in allowed and word in text and pattern.search(text)
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line) and not any(name in line for name in allowed)
    ]


EACH = [(retired, word) for retired in RETIRED for word in retired.words.split()]


@pytest.mark.parametrize(("retired", "word"), EACH, ids=[word for _, word in EACH])
def test_retired_words_stay_out(retired: Retired, word: str) -> None:
    """In code, comments, tests and pages; the way in which each word is held is shown where it fails."""
    assert uses(retired, word) == [], retired.held.value


def test_metaphors_stay_out() -> None:
    """Programs are called by their names in prose, too."""
    found = [
        f"{path}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]}"
        for path, text in texts().items()
        for match in METAPHORS.finditer(text)
    ]
    assert found == []


def test_why_a_word_is_not_held_everywhere_is_said() -> None:
    """And no word is listed twice."""
    words = [word for _, word in EACH]
    assert len(words) > 100
    assert len(set(words)) == len(words)
    assert [retired.words for retired in RETIRED if retired.held is not As.ANYTHING and not retired.why] == []


def test_functions_are_verbs() -> None:
    """No function is called by a participle."""
    found = [
        f"{path}:{found.line}: {found.name}"
        for path, all_names in names().items()
        if "tests" not in Path(path).parts
        for found in all_names
        if found.kind == "function" and found.name.strip("_") in PARTICIPLES
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
