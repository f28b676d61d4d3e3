"""Whatever people hand in and type into the address: the page shows it as text, and nothing breaks."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine

import intake.pages
from models.verdict import Kind, Retry, Verdict
from tests.support.factories import success
from tests.support.pages import HTML, OLGA, create_batch, page_app, report, sign_in, store_images
from tests.support.receiving import rows

SCRIPT = "<script>alert('pwn')</script>"
TEXTS = [
    SCRIPT,
    "\"><img src=x onerror=alert('pwn')>",
    "' onmouseover='alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;b&gt; &amp;amp;",
    "\u202egnp.exe \u2066\u200f مرحبا שלום",
    "a" * 10_000,
    "😀" * 300,
    "first\nsecond\tthird",
    "javascript:alert(1)",
    "../../etc/passwd?a=b#c%00",
]
HEADERS = {
    "Content-Security-Policy",
    "X-Content-Type-Options",
    "Referrer-Policy",
    "Cross-Origin-Opener-Policy",
    "Cache-Control",
}
TEMPLATES = Path(str(intake.pages.__file__)).with_name("templates")


class Page(HTMLParser):
    """What a browser would make of a page: its elements, and the text that a reader has."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def assert_harmless(self) -> None:
        for tag, attributes in self.elements:
            assert not any(name.startswith("on") or name == "style" for name in attributes), (tag, attributes)
            for name in ("href", "src", "action"):
                assert re.match(r"/(?!/)|\?|#|$", attributes.get(name) or ""), (tag, attributes)
        assert sum(tag == "script" for tag, _ in self.elements) == 1  # ours
        assert "style" not in {tag for tag, _ in self.elements}


@pytest.fixture
def app(database_url: str, tmp_path: Path) -> Iterator[Flask]:
    with page_app(database_url, tmp_path) as app:
        yield app


@pytest.fixture
def olga(app: Flask) -> FlaskClient:
    return sign_in(app, OLGA)


def page_of(browser: FlaskClient, path: str, status: int = 200) -> Page:
    answer = browser.get(path, headers=HTML)
    assert (answer.status_code, answer.mimetype) == (status, "text/html"), answer.text
    assert set(answer.headers.keys()) >= HEADERS
    page = Page(answer.text)
    page.assert_harmless()
    return page


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text[:12])
def test_what_was_handed_in_is_text(text: str, olga: FlaskClient, engine: Engine, tmp_path: Path) -> None:
    """Prompt, names, client, metadata and messages of errors: shown as they are, on every page, and never run."""
    short = text[:255]
    with engine.begin() as connection:
        batch = create_batch(connection, [{"prompt": text}] * 2, client=short, name=short, metadata={text[:30]: [text]})
        failed = Verdict(Kind.FAILED, error_type=text[:64], message=text, retry=Retry.NEVER)
        report(connection, success(), failed)
        store_images(connection, tmp_path)

    whole = page_of(olga, f"/batches/{batch}/edits/0")
    assert text.strip() in whole.text
    for path in (f"/batches/{batch}", f"/batches/{batch}/edits/1", f"/batches/{batch}/cancel", "/"):
        assert short.strip() in page_of(olga, path).text, path


BATCHES = [
    "?name=%00",
    "?name=a%00b",
    "?name=%3Cscript%3Ealert(1)%3C/script%3E",
    f"?name={'x' * 3000}",
    "?name=%FF%FE",
    "?name=%25_%5C",
    "?state=%00",
    "?state=running'--",
    "?state=&name=",
    "?x=1&x=2&name=a&name=b",
]
OF_A_BATCH = [
    "?after=-1",
    "?after=20000",
    "?after=999999999",
    "?after=99999999999999999999",
    "?after=%D9%A3",
    "?after=1e3",
    "?after=%00",
    "?error=%00",
    "?error=%27%29%3B%20DROP%20TABLE%20edits",
    f"?error={'x' * 3000}",
    "?state=%00&error=a",
]


@pytest.mark.parametrize("query", BATCHES)
def test_odd_queries_of_the_list(query: str, olga: FlaskClient, engine: Engine) -> None:
    """A page, whatever stands in the address."""
    page_of(olga, f"/{query}")


@pytest.mark.parametrize("query", OF_A_BATCH)
def test_odd_queries_of_a_batch(query: str, olga: FlaskClient, engine: Engine) -> None:
    """A page, whatever stands in the address."""
    page_of(olga, f"/batches/{some_batch(engine)}{query}")


@pytest.mark.parametrize("cursor", ["x", "%00", "W10=", "WzEsMl0=", "bnVsbA==", "WyIyMDI2LTAxLTAxIiwieCJd", "e30="])
def test_odd_cursors(cursor: str, olga: FlaskClient) -> None:
    """422, said as a page."""
    assert "cursor" in page_of(olga, f"/?cursor={cursor}", 422).text


@pytest.mark.parametrize("number", ["1", "2147483648", "9223372036854775808", "9" * 40, "9" * 5000])
def test_numbers_that_no_column_holds(number: str, olga: FlaskClient, engine: Engine) -> None:
    """404, said as a page."""
    batch = some_batch(engine)
    for path in (f"edits/{number}", f"edits/{number}/inputs/0/thumbnail", f"edits/0/inputs/{number}/thumbnail",
                 f"images/{number}", f"images/{number}/thumbnail"):  # fmt: skip
        page_of(olga, f"/batches/{batch}/{path}", 404)


def some_batch(engine: Engine) -> UUID:
    with engine.begin() as connection:
        return create_batch(connection, [{}], client="alice")


def test_every_answer_is_guarded(app: Flask, olga: FlaskClient, engine: Engine, tmp_path: Path) -> None:
    """Redirects, refusals, images, style and script too: nothing foreign, nothing inline, in nobody's frame."""
    with engine.begin() as connection:
        batch = create_batch(connection, [{}], client="alice")
        report(connection, success())
        (image,) = store_images(connection, tmp_path)
    stranger = app.test_client()
    answers = [
        stranger.get("/", headers=HTML),
        stranger.get("/sign-in"),
        stranger.post("/sign-in", data={"key": "wrong"}),
        olga.get("/page/page.css"),
        olga.get("/page/live.js"),
        olga.get(f"/batches/{batch}/images/{image}"),
        olga.get(f"/batches/{batch}/images/{image}/thumbnail"),
        olga.get(f"/batches/{batch}/edits/0/inputs/0/thumbnail"),
        olga.post(f"/batches/{batch}/cancel", headers=HTML),
        olga.post("/sign-in", data={"key": OLGA}),
        olga.get("/nothing", headers=HTML),
        olga.put("/", headers=HTML),
    ]
    for answer in answers:
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert set(answer.headers.keys()) >= HEADERS, answer.request.path
        answer.close()


def test_templates_hold_nothing_inline() -> None:
    """The policy would keep the browser from it, and nobody would see why."""
    templates = list(TEMPLATES.glob("*.html"))
    assert len(templates) > 6
    for template in templates:
        text = template.read_text()
        assert not re.search(r"\son\w+=|\sstyle=|<style|javascript:|<script(?![^>]*\ssrc=)", text), template
        assert not re.search(r"\|\s*safe\b|autoescape false|Markup", text), template
        assert not re.search(r"https?://(?!www\.w3\.org)", text), template


def test_a_machine_is_still_told_in_json(olga: FlaskClient) -> None:
    """Whoever asks without a browser gets the problem as it is everywhere else."""
    assert olga.get("/batches/x").mimetype == "application/problem+json"
    assert olga.get("/v1/batches", headers=HTML).mimetype == "application/problem+json"


def test_the_prompt_of_an_edit_is_whole_and_its_inputs_are_not(olga: FlaskClient, engine: Engine) -> None:
    """An input may hold megabytes in its own address; the page says where it came from in one line."""
    batch = some_batch(engine)
    with engine.begin() as connection:
        large = "data:image/png;base64," + "A" * 3_000_000
        connection.exec_driver_sql(
            "UPDATE edits SET arguments = jsonb_set(arguments, '{image_urls}', jsonb_build_array(%s::text))", (large,)
        )
    assert len(olga.get(f"/batches/{batch}/edits/0", headers=HTML).data) < 20_000
    assert rows(engine, "SELECT count(*) FROM edits") == [(1,)]
