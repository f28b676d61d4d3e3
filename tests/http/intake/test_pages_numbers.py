"""The page's numbers are those of the view, of the API and of the command line, and it stays bounded and standing."""

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import Engine, event

from intake.pages import routes
from models.verdict import Retry
from tests.http.conftest import Away
from tests.support.api_client import ALICE, edits
from tests.support.command_line import CommandLine
from tests.support.factories import failure, success
from tests.support.pages import HTML, OLGA, create_batch, page_app, report, sign_in, store_images

STATES = ("pending", "submitting", "submitted", "ready", "stored", "failed", "cancelled")


@pytest.fixture
def app(database_url: str, tmp_path: Path) -> Iterator[Flask]:
    with page_app(database_url, tmp_path) as app:
        yield app


@pytest.fixture
def batch(engine: Engine, tmp_path: Path) -> UUID:
    """Of nine edits three are stored (one with two images), one is ready, two failed, and the rest is pending."""
    with engine.begin() as connection:
        batch = create_batch(connection, [{} for _ in range(9)], client="alice", name="spring", max_cost=7)
        report(
            connection,
            success(),
            success(2),
            success(),
            failure("file_too_large", Retry.NEVER),
            failure("no_images", Retry.NEVER),
        )
        store_images(connection, tmp_path)
        report(connection, success())
    return batch


def text_of(html: str) -> str:
    """What a reader has of a page."""
    return " ".join(unescape(re.sub(r"<(style|script).*?</\1>|<[^>]+>", " ", html, flags=re.S)).split())


def test_page_view_api_and_command_line_agree(
    app: Flask, batch: UUID, engine: Engine, database_url: str, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    """Each promised number is one number, wherever it is looked up at the same moment."""
    with engine.connect() as connection:
        view = connection.exec_driver_sql("SELECT * FROM batch_progress").mappings().one()
    api = app.test_client().get(f"/v1/batches/{batch}", headers={"Authorization": f"Bearer {ALICE}"}).get_json()
    command = CommandLine(monkeypatch, capsys, tmp_path, DATABASE_URL=database_url)("status", batch, "--json").json
    page = sign_in(app, ALICE).get(f"/batches/{batch}", headers=HTML).text
    reader = text_of(page)
    listed = text_of(sign_in(app, ALICE).get("/", headers=HTML).text)

    assert view["stored"] == 3
    assert [view[state] for state in STATES] == [api["counts"][state] for state in STATES]
    assert [view[state] for state in STATES] == [command[state] for state in STATES]
    for state in STATES:
        assert re.search(rf"state={state}#edits\">{state}</a> {view[state]}\b", page), state
    assert f"{view['stored']} of {view['edits']} edits stored, {view['failed']} failed" in reader
    assert api["edits"] == command["edits"] == view["edits"] == 9
    assert float(view["cost"]) == float(api["cost"]) == float(command["cost"])
    assert f"Paid ${float(view['cost']):.2f}" in reader
    assert f"9 3 2 ${float(view['cost']):.2f}" in listed
    assert f"Submissions {view['submissions']}" in reader
    assert f"Images stored {api['images']['stored']}," in reader
    assert {row["type"]: row["edits"] for row in command["errors"]} == {"file_too_large": 1, "no_images": 1}
    assert re.search(r"file_too_large no 1 1", reader)


def test_filters_show_what_they_say(app: Flask, batch: UUID) -> None:
    """Of a state, of a type of error; and nothing where there is none."""
    alice = sign_in(app, ALICE)

    def shown(query: str) -> list[int]:
        page = alice.get(f"/batches/{batch}?{query}", headers=HTML).text
        return sorted({int(n) for n in re.findall(rf'<a href="/batches/{batch}/edits/(\d+)"', page)})

    assert shown("state=stored") == [0, 1, 2]
    assert shown("state=failed") == [3, 4]
    assert shown("state=ready") == [5]
    assert shown("state=pending") == [6, 7, 8]
    assert shown("state=cancelled") == []
    assert shown("error=no_images") == [4]
    assert shown("error=no_such_type") == []
    assert shown("after=6") == [7, 8]
    assert shown("state=nonsense") == list(range(9))


def statements_of(app: Flask, path: str, key: str = OLGA) -> tuple[str, list[str]]:
    """A page, and what was asked for it."""
    browser, asked = sign_in(app, key), []
    engine = app.extensions["darkroom"].engine

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        asked.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        answer = browser.get(path, headers=HTML)
    finally:
        event.remove(engine, "before_cursor_execute", note)
    assert answer.status_code == 200, answer.text
    return answer.text, asked


def test_a_page_is_bounded_however_large_the_batch(app: Flask, engine: Engine) -> None:
    """20 000 edits: as many statements as for nine, one page of tiles, and plots of a sample."""
    small, large = (hand_in(engine, count) for count in (9, 20_000))
    _, few = statements_of(app, f"/batches/{small}")
    page, many = statements_of(app, f"/batches/{large}")
    assert len(many) == len(few) <= 12
    assert page.count('<p class="name">') == 24
    assert len(page) < 100_000
    assert "20,000" in page
    seen, after = set(), ""
    for _ in range(3):
        page, _ = statements_of(app, f"/batches/{large}?{after}")
        seen |= set(re.findall(r"/edits/(\d+)\"", page))
        after = unescape(re.search(r'class="more" href="[^?]*\?([^#]*)#', page)[1])  # type: ignore[index]
    assert seen == {str(n) for n in range(72)}


def hand_in(engine: Engine, count: int) -> UUID:
    with engine.begin() as connection:
        return create_batch(connection, edits(count), client="alice")


def test_many_batches_come_in_pages(app: Flask, engine: Engine) -> None:
    """Each once, newest first, with as many statements as a single one takes."""
    for number in range(60):
        with engine.begin() as connection:
            create_batch(connection, [{}], client="alice", name=f"batch {number:02}")
    found, path = [], "/"
    while path:
        page, asked = statements_of(app, path)
        assert len(asked) <= 4
        found += re.findall(r">batch (\d\d)</a>", page)
        more = re.search(r'class="more" href="([^"]*)"', page)
        path = unescape(more[1]) if more else ""
    assert found == [f"{number:02}" for number in reversed(range(60))]


def test_without_the_database_a_page_says_so(app: Flask, batch: UUID, database_away: Away) -> None:
    """503 and when to come again, as a page, not a traceback; and afterwards all is well."""
    olga = sign_in(app, OLGA)
    with database_away():
        for path in ("/", "/system", f"/batches/{batch}", f"/batches/{batch}/edits/0", f"/batches/{batch}/cancel"):
            answer = olga.get(path, headers=HTML)
            assert (answer.status_code, answer.mimetype) == (503, "text/html")
            assert answer.headers["Retry-After"] == "5"
            assert "The database cannot take it now" in answer.text
    assert olga.get("/", headers=HTML).status_code == 200


def test_a_rare_state_is_looked_for_a_part_at_a_time(app: Flask, engine: Engine, monkeypatch: Any) -> None:
    """Few among many: no question reads them all, the page says how far it looked, and its links lead to each."""
    monkeypatch.setattr(routes, "LOOKED_EDITS", 40)
    monkeypatch.setattr(routes, "LOOKED_BATCHES", 10)
    batch = hand_in(engine, 130)
    for number in range(29):
        with engine.begin() as connection:
            create_batch(connection, [{}], client="bob", name=f"batch {number}")
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE edits SET state = 'failed', due_at = NULL, finished_at = now() WHERE position IN (41, 129)"
        )
    assert follow(app, f"/batches/{batch}?state=failed", r"/edits/(\d+)\"") == [[], ["41"], [], ["129"]]
    assert follow(app, "/", rf"{batch}", ALICE) == [[], [], [str(batch)] * 2]
    assert "The next 40 edits were looked through" in statements_of(app, f"/batches/{batch}?state=failed")[0]
    assert "The next 10 batches were looked through" in statements_of(app, "/", ALICE)[0]


def follow(app: Flask, path: str, wanted: str, key: str = OLGA) -> list[list[str]]:
    """What is found on a page and on those that it leads to."""
    found = []
    while path:
        page, _ = statements_of(app, path, key)
        found.append(sorted(set(re.findall(wanted, page)), key=int) if "edits" in wanted else re.findall(wanted, page))
        more = re.search(r'class="more" href="([^#"]*)', page)
        path = unescape(more[1]) if more else ""
    return found
