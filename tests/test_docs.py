"""Documentation is part of the product: commands, settings, states and queries in it are held against the code."""

import re
from importlib import import_module
from pathlib import Path

import pytest
from pydantic_core import PydanticUndefined
from sqlalchemy import Engine

from cli.main import darkroom
from cli.settings import CLISettings
from intake.settings import IntakeSettings
from models.monitor_role import ROLE, WITHHELD
from models.monitoring import VIEWS
from models.seedream import EditArguments
from models.states import EDIT_ARROWS, EDIT_STATES, FINAL, IMAGE_ARROWS, INPUT_ARROWS
from tests.http.storage import conformance
from tests.support.factories import make_submitted
from webhook_receiver.settings import ReceiverSettings
from worker.settings import WorkerSettings

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
SETTINGS = (CLISettings, WorkerSettings, ReceiverSettings, IntakeSettings)


NAMED_TEST = re.compile(r"`([\w./]+\.py)::(\w+)(?:\[([^`]+)\])?`")


def text(name: str) -> str:
    return (ROOT / name).read_text()


def blocks(language: str) -> list[tuple[str, str]]:
    """(page, text) of every fenced block of a language."""
    return [
        (page.name, block)
        for page in PAGES
        for block in re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    ]


def settings_table() -> str:
    """The table that docs/settings.md must hold: every field of every settings class."""
    rows: dict[str, str] = {}
    for cls in SETTINGS:
        for name, field in cls.model_fields.items():
            required = field.is_required()
            default = "" if field.default in (None, PydanticUndefined) or required else field.default
            shown = ",".join(default) if isinstance(default, tuple) else str(default).removesuffix(".0")
            rows[name.upper()] = f"| `{name.upper()}` | {f'`{shown}`' if shown else ''} | {field.description} |"
    return "\n".join(["| variable | default | |", "|---|---|---|", *(rows[name] for name in sorted(rows))])


def test_settings_page_has_every_setting() -> None:
    """docs/settings.md shows exactly the settings that exist, with their defaults."""
    assert settings_table() in text("docs/settings.md")


STORES_TABLE = re.compile(r"(?m)^\| \| a folder \|.*(\n\|.*)*")


def stores_table() -> str:
    """The table of docs/storage.md: every case of the suite, and every store that it is run against."""
    for suite in ("test_conformance", "test_credentials"):
        import_module(f"tests.http.storage.{suite}")
    return conformance.table()


def test_storage_page_has_every_case() -> None:
    """What is said of each store is what the suite holds it to."""
    (found,) = STORES_TABLE.finditer(text("docs/storage.md"))
    assert found[0] == stores_table()


def test_every_test_that_a_page_names_is_there() -> None:
    """A row that says what shows it can be followed."""
    named = {(page.name, *found) for page in PAGES for found in NAMED_TEST.findall(page.read_text())}
    assert named
    for page, file, test, variant in sorted(named):
        source = (ROOT / file).read_text()
        assert f"def {test}(" in source, f"{page} names {file}::{test}"
        assert not variant or f'"{variant}"' in source, f"{page} names {test}[{variant}]"


def test_storage_page_tells_of_many_bad_downloads() -> None:
    """What comes, what darkroom does, and the test that shows it."""
    rows = text("docs/storage.md").partition("## Bad downloads")[2].partition("| what comes |")[2].splitlines()[2:]
    assert len([row for row in rows if NAMED_TEST.search(row)]) == len(rows) >= 25


def test_readme_lists_every_command() -> None:
    """The README's table of commands is the command line's own list."""
    listed = set(re.findall(r"^\| `darkroom (\w[\w-]*)", text("README.md"), re.MULTILINE))
    assert listed == set(darkroom.commands)


@pytest.mark.parametrize("name", sorted(darkroom.commands))
def test_every_command_has_help(name: str) -> None:
    """Every command says what it does."""
    assert darkroom.commands[name].help


def test_readme_commands_exist() -> None:
    """Every `make` target and `darkroom` command that a page shows exists."""
    targets = set(re.findall(r"^([a-z-]+):.*## ", text("Makefile"), re.MULTILINE))
    for page, block in blocks("console"):
        for target in re.findall(r"^\$ make ([a-z-]+)", block, re.MULTILINE):
            assert target in targets, page
        for command in re.findall(r"^\$ \.venv/bin/darkroom ([a-z-]+)", block, re.MULTILINE):
            assert command in darkroom.commands, page


def test_state_diagram_is_the_code() -> None:
    """The diagram and the tables of docs/states.md show exactly the arrows and words of states.py."""
    page = text("docs/states.md")
    drawn = set(re.findall(r"^    (\w+) --> (\w+)$", page, re.MULTILINE))
    assert drawn == {(was.value, state.value) for was, state in EDIT_ARROWS}
    assert set(re.findall(r"^    (\w+) --> \[\*\]$", page, re.MULTILINE)) == {state.value for state in FINAL}
    for state, story in EDIT_STATES.items():
        assert f"| `{state}` | {' | '.join(story)} |" in page
    for (was, state), when in [*EDIT_ARROWS.items(), *IMAGE_ARROWS.items(), *INPUT_ARROWS.items()]:
        assert f"| `{was}` | `{state}` | {when} |" in page


@pytest.mark.parametrize(("page", "query"), blocks("sql"))
def test_queries_run(engine: Engine, page: str, query: str) -> None:
    """Every query that a page shows runs against the schema."""
    with engine.begin() as connection:
        make_submitted(connection)
        connection.exec_driver_sql(query).all()


def questions() -> list[tuple[str, str]]:
    """(query, columns as its output shows them) of every question that docs/monitoring.md answers."""
    shown = re.findall(r"^```sql\n(.*?)^```\n\n```text\n(.*?)\n", text("docs/monitoring.md"), re.MULTILINE | re.DOTALL)
    return [(query, columns) for query, columns in shown if "```" not in query]


@pytest.mark.parametrize(("query", "columns"), questions())
def test_questions_at_night(engine: Engine, query: str, columns: str) -> None:
    """Each runs as the role that may only look, and answers the columns that the page shows."""
    with engine.begin() as connection:
        make_submitted(connection)
        connection.exec_driver_sql(f"SET LOCAL ROLE {ROLE}")
        answer = connection.exec_driver_sql(query.replace("%", "%%"))
        assert list(answer.keys()) == [column.strip() for column in columns.split("|")]


def test_there_is_an_answer_to_most_questions() -> None:
    """At least 25."""
    assert len(questions()) >= 25


def test_monitoring_page_says_what_is_withheld() -> None:
    """docs/monitoring.md names each column that the role may not read, and no other view."""
    page = text("docs/monitoring.md").partition("## Page 6")[2].partition("## Page 7")[0]
    named = {tuple(name.split(".")) for name in re.findall(r"`(\w+\.\w+)`", page)}
    assert named == {(view, column) for view, columns in WITHHELD.items() for column in columns}


def test_monitoring_page_names_every_view() -> None:
    """docs/monitoring.md explains every view there is."""
    page = text("docs/monitoring.md")
    assert [view for view in VIEWS if f"`{view}`" not in page] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_tests_exist(page: Path) -> None:
    """Every test that a page names is there, by its file and its function."""
    for file, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page.read_text()):
        assert (ROOT / file).exists(), file
        assert not name or f"\ndef {name}(" in text(file), f"{file}::{name}"


def test_provider_page_has_every_field() -> None:
    """docs/provider.md says where each field of the model can be given, and no other; its options exist."""
    page = text("docs/provider.md").partition("## Fields")[2]
    rows = re.findall(r"^\| `(\w+)` \| `(--[\w-]+)", page, re.MULTILINE)
    assert {field for field, _ in rows} == set(EditArguments.model_fields)
    options = {option for parameter in darkroom.commands["edit"].params for option in parameter.opts}
    assert {option for _, option in rows} <= options


def test_screenshots_are_there_and_small() -> None:
    """Each of the operator's pages: wide, on a phone and in the dark; no page here takes long to load."""
    sizes = {shot.stem: shot.stat().st_size for shot in (ROOT / "docs" / "screenshots").iterdir()}
    pages = ("sign-in", "batches", "batch", "edit", "confirm", "system")
    assert set(sizes) == {f"{page}-{view}" for page in pages for view in ("wide", "phone", "dark")}
    assert {name: size for name, size in sizes.items() if size >= 200_000} == {}


def test_links_lead_somewhere() -> None:
    """Every relative link of every page names a file that exists."""
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
