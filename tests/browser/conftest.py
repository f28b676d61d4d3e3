"""What the tests in a browser share: Chromium, the intake as it is really served, a batch with images, who signs in.

Where there is no Chromium they are skipped; where `BROWSER_REQUIRED` is set, as in CI, they fail instead.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from sqlalchemy import Engine

from models.verdict import Retry
from tests.http.conftest import database_away, database_url, emptier, module_database_url, module_engine  # noqa: F401  # fixtures
from tests.support.api_client import intake_served
from tests.support.factories import failure, success
from tests.support.pages import OLGA, create_batch, image_file, report, store_images
from tests.support.servers import closed_port

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
SOON = 60_000
"""Milliseconds that anything on a page may take on a busy machine."""
Open = Callable[..., Page]


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """The browser; it ends with the tests of this folder, because others could run no event loop beside it."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        missing = "There is no Chromium on this machine to look at the page with (Debian: apt-get install chromium)."
        (pytest.fail if os.environ.get("BROWSER_REQUIRED") else pytest.skip)(missing)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store."""
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def served(module_database_url: str, images: Path) -> Iterator[str]:  # noqa: F811
    """Where the page is."""
    port = closed_port()
    given = {"STORAGE_URL": images.as_uri(), "DARKROOM_OPERATOR_KEYS": f"olga:{OLGA}", "INTAKE_RATE": "100000/minute"}
    with intake_served(module_database_url, port, **given):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def contexts(chromium: Browser, served: str) -> Iterator[Callable[..., BrowserContext]]:
    """Browser windows of people who have signed in; whatever one's console complained of fails the test."""
    opened: list[BrowserContext] = []
    complaints: list[str] = []

    def note(page: Page) -> None:
        page.on("console", lambda said: complaints.append(said.text) if "Content Security" in said.text else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))

    def start(*, signed_in: bool = True, **options: object) -> BrowserContext:
        context = chromium.new_context(base_url=served, **{"viewport": WIDE, **options})  # type: ignore[arg-type]
        context.set_default_timeout(SOON)
        context.on("page", note)
        opened.append(context)
        if signed_in:
            assert context.request.post("/sign-in", form={"key": OLGA}).ok
        return context

    yield start
    for context in opened:
        context.close()
    assert complaints == []


@pytest.fixture
def open_page(contexts: Callable[..., BrowserContext]) -> Open:
    """One address in a window of its own."""

    def start(path: str, **options: object) -> Page:
        page = contexts(**options).new_page()
        page.goto(path)
        return page

    return start


@pytest.fixture
def batch(engine: Engine, images: Path) -> UUID:
    """Thirty edits: three are stored, two failed, the rest is pending."""
    with engine.begin() as connection:
        edits = [{"custom_id": f"hat-{n:02}", "prompt": f"Put the hat on model {n}, in {n} colours"} for n in range(30)]
        batch = create_batch(connection, edits, client="shop", name="spring", max_cost=9)
        failed = [failure(type_, Retry.NEVER) for type_ in ("content_policy_violation", "file_too_large")]
        report(connection, success(), success(2), success(), *failed)
        store_images(connection, images, image_file(size=(800, 600), color="teal"))
    return batch
