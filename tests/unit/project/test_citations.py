"""Whoever reads "(provider-protocol 4.2)" or "(architecture: rulings)" in the code finds it on a page of docs/."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from models import (
    monitoring_tables,  # noqa: F401  # they belong to the metadata
    states,
)
from models.tables import metadata
from worker.lanes import LANES

ROOT = Path(__file__).parents[3]
ROOMS = (
    "benchmarks",
    "buffering",
    "cli",
    "core",
    "docs",
    "fal_emulator",
    "http_client",
    "intake",
    "migrations",
    "models",
)
ROOMS += ("provider", "storage", "tests", "webhook_receiver", "worker")
PROTOCOL = (ROOT / "docs" / "provider-protocol.md").read_text()
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()

NUMBERS = r"\d+(?:\.\d+)*(?:(?:,| and| to|, and) (?:section )?\d+(?:\.\d+)*)*"
PROTOCOL_CITED = re.compile(
    rf"provider-protocol\b(?!\.md)(?:,? (?:the )?(?:end of )?(?:section )?({NUMBERS})(?![-\w]))?"
)
ARCHITECTURE_CITED = re.compile(r"\(architecture\b([^)]*)\)")
"""Every word in brackets that begins so is meant as a citation."""


def prose(text: str) -> str:
    """A file on one line, without the marks of its comments, so that a citation may be broken over two lines."""
    return re.sub(r"\s*\n\s*(?:#:? ?|\| )?", " ", text)


def cited(pattern: re.Pattern[str], text: str) -> list[tuple[str, str | None]]:
    """(the whole citation, what it names) of every citation in a file."""
    return [(match[0], match[1]) for match in pattern.finditer(prose(text))]


def files() -> Iterator[Path]:
    """Every file of ours that may cite, but this one."""
    for room in ROOMS:
        for ending in ("*.py", "*.md", "*.env", "*.css"):
            yield from (path for path in (ROOT / room).rglob(ending) if path != Path(__file__))
    for ending in ("*.md", "*.yml", "*.toml", "Makefile", "Dockerfile", ".env.example"):
        yield from ROOT.glob(ending)


def sections(page: str) -> dict[str, str]:
    """Number -> text of every numbered section, its points numbered beneath it, as in 14.3."""
    found: dict[str, str] = {}
    for heading, text in re.findall(r"^## (\d+)\. .*?\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL):
        found[heading] = text
        found |= dict.fromkeys(re.findall(r"^### (\d+\.\d+) ", text, re.MULTILINE), text)
        if not re.search(r"^### ", text, re.MULTILINE):
            found |= {f"{heading}.{point}": text for point in re.findall(r"^(\d+)\. ", text, re.MULTILINE)}
    return found


SECTIONS = sections(PROTOCOL)
HEADINGS = {heading.lower() for heading in re.findall(r"^## (.+)$", ARCHITECTURE, re.MULTILINE)}
CASES = {case.lower() for case in re.findall(r"^\| ([^|]+?) \|", ARCHITECTURE, re.MULTILINE)}


def unresolved(text: str) -> list[str]:
    """What a text cites and no page has."""
    lost = []
    for whole, numbers in cited(PROTOCOL_CITED, text):
        named = re.findall(r"\d+(?:\.\d+)*", numbers or "")
        if not named or any(number not in SECTIONS for number in named):
            lost.append(whole)
    for whole, rest in cited(ARCHITECTURE_CITED, text):
        heading = re.fullmatch(r': ([\w ,]+?)(?:, "([^"]+)")?', rest or "")
        known = heading and heading[1].lower() in HEADINGS and (not heading[2] or heading[2].lower() in CASES)
        if not known:
            lost.append(whole)
    return lost


def test_every_citation_leads_somewhere() -> None:
    """No comment cites a section, a heading or a ruling that is not there."""
    assert {str(path.relative_to(ROOT)): lost for path in files() if (lost := unresolved(path.read_text()))} == {}


def test_citations_are_found() -> None:
    """The test before this one looks at something: dozens of citations, in both forms."""
    found = [
        name
        for path in files()
        for pattern in (PROTOCOL_CITED, ARCHITECTURE_CITED)
        for name in cited(pattern, path.read_text())
    ]
    assert len(found) > 90


@pytest.mark.parametrize(
    "text",
    [
        "(provider-protocol 4.9)",
        "(provider-protocol 15)",
        "(provider-protocol 14.32)",
        "the rule of provider-protocol",
        "(provider-protocol 5.3, 5.9)",
        "as said\n    # in (provider-protocol\n    # 2.7)",
        "(architecture: ruling)",
        '(architecture: rulings, "paused\naccounts")',
        "(architecture, section 4)",
    ],
)
def test_a_wrong_citation_is_noticed(text: str) -> None:
    """A citation that leads nowhere is one, however it is broken over lines."""
    assert len(unresolved(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "(provider-protocol 4.2)",
        "(provider-protocol 14.31)",
        "(provider-protocol, end of section 13)",
        "provider-protocol 2.2 to 2.5",
        "provider-protocol 6, 7.2 and 7.3.",
        "[the page](docs/provider-protocol.md)",
        '(architecture: rulings, "paused\naccount")',
        "(architecture: the idea)",
    ],
)
def test_a_right_citation_passes(text: str) -> None:
    """Both names of the page, several sections at one time, headings and rulings."""
    assert unresolved(text) == []


def test_sections_keep_their_numbers() -> None:
    """0 to 14, in order, and what the code relies on beneath them."""
    assert [number for number in SECTIONS if "." not in number] == [str(number) for number in range(15)]


def table(heading: str) -> list[str]:
    """The first column of the table beneath a heading of the architecture."""
    (text,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", ARCHITECTURE, re.MULTILINE | re.DOTALL)
    return re.findall(r"^\| `([\w/]+)` \|", text, re.MULTILINE)


def test_architecture_has_every_table() -> None:
    """Each table of the database is explained once."""
    assert sorted(table("Tables")) == sorted(metadata.tables)


def test_architecture_has_every_lane() -> None:
    """Each lane of the workers is explained once."""
    assert sorted(table("Lanes")) == sorted(LANES)


def test_architecture_has_every_effect() -> None:
    """The ruling on the receiver's answers names every effect that a callback can have."""
    (ruling,) = re.findall(r"^\| the receiver's answers \| .*$", ARCHITECTURE, re.MULTILINE)
    assert [effect for effect in states.Effect if effect not in ruling] == []


def test_architecture_names_columns_that_exist() -> None:
    """The columns of the contract are there."""
    (contract,) = re.findall(r"^## Contract of names\n(.*?)(?=^## )", ARCHITECTURE, re.MULTILINE | re.DOTALL)
    named = prose(contract).partition("these columns:")[2]
    for part in named.strip(" .").split(";"):
        name, _, first = re.findall(r"`([\w.]+)`", part)[0].partition(".")
        columns = {first, *re.findall(r"`(\w+)`", part)}
        assert columns <= set(metadata.tables[name].columns.keys()), name


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "decisions").glob("*.md")), ids=lambda path: path.stem)
def test_decisions_have_one_shape(path: Path) -> None:
    """A decision says why, what, and what follows; half a page."""
    text = path.read_text()
    assert text.startswith(f"# {int(path.stem[:4])}. ")
    parts = [text.index(f"**{part}.**") for part in ("Context", "Decision", "Consequences")]
    assert parts == sorted(parts)
    assert len(text.split()) < 350
