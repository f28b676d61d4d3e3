"""The page in a browser: people look around, act, watch it live, without scripts, and by keyboard alone."""

import re
from pathlib import Path
from uuid import UUID

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import Engine

from tests.browser.conftest import PHONE, SOON, Open
from tests.http.conftest import Away
from tests.support.factories import success
from tests.support.pages import INPUT, OLGA, create_batch, report, store_images
from tests.support.receiving import rows

expect.set_options(timeout=SOON)


def test_from_the_sign_in_to_an_edit_and_back(open_page: Open, batch: UUID) -> None:
    """A link to a batch ends there after the key; every image that is shown has loaded."""
    page = open_page(f"/batches/{batch}", signed_in=False)
    page.get_by_label("API key").fill("not a key of ours")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_have_text("This is nobody's key.")
    page.get_by_label("API key").fill(OLGA)
    page.get_by_role("button", name="Sign in").click()

    expect(page.get_by_role("heading", level=1)).to_have_text("spring")
    expect(page.locator("#progress")).to_contain_text("3 of 30 edits stored, 2 failed")
    assert_images_loaded(page)
    page.get_by_role("link", name="hat-01", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("hat-01")
    expect(page.locator(".prompt.whole")).to_have_text("Put the hat on model 1, in 1 colours")
    expect(page.get_by_role("img")).to_have_count(3)
    assert_images_loaded(page)
    page.get_by_role("link", name="spring").click()
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Batches").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")


def assert_images_loaded(page: Page) -> None:
    for image in page.get_by_role("main").locator("img").all():
        image.scroll_into_view_if_needed()
        image.evaluate("image => image.decode()")
        assert image.evaluate("image => image.naturalWidth") > 1


@pytest.mark.parametrize("scripts", [True, False])
def test_an_action_asks_and_then_is_done(scripts: bool, open_page: Open, batch: UUID, engine: Engine) -> None:
    """Pause, with a question in between; the same without JavaScript. To leave it as it is changes nothing."""
    page = open_page("/", java_script_enabled=scripts)
    page.get_by_role("link", name="spring").click()
    page.get_by_role("link", name="Cancel the batch").click()
    expect(page.locator("main")).to_contain_text("Its 25 pending edits end as cancelled, for good")
    page.get_by_role("link", name="Leave it as it is").click()
    page.get_by_role("link", name="Pause", exact=True).click()
    assert rows(engine, "SELECT paused_at, cancelled_at FROM batches") == [(None, None)]
    page.get_by_role("button", name="Pause").click()

    expect(page.locator("#progress .state")).to_have_text("paused")
    expect(page.get_by_role("link", name="Resume")).to_be_visible()
    assert rows(engine, "SELECT paused_at IS NOT NULL, cancelled_at FROM batches") == [(True, None)]
    expect(page.get_by_role("button", name="Stop updating")).to_have_count(int(scripts))


def test_filters_work_without_scripts(open_page: Open, batch: UUID) -> None:
    """A state in the list, a type of error in the batch, the next page of edits: plain links and a plain form. Without
    JavaScript the browser comes again by itself."""
    page = open_page("/", java_script_enabled=False)
    assert page.locator("noscript meta").count() + page.locator("head > meta[http-equiv=refresh]").count() > 0
    page.get_by_label("State").select_option("paused")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_role("main")).to_contain_text("No batch like that.")
    page.goto(f"/batches/{batch}")
    page.get_by_role("link", name="content_policy_violation").click()
    expect(page.locator(".gallery li")).to_have_count(1)
    page.get_by_role("link", name="Show all").click()
    page.get_by_role("link", name="More edits").click()
    expect(page.locator(".gallery li")).to_have_count(6)


def test_a_batch_is_seen_to_go_on_and_to_finish(open_page: Open, batch: UUID, engine: Engine, images: Path) -> None:
    """Its numbers, bar, tiles and title follow; scrolling and focus stay; once it is over nothing is asked any more."""
    page = open_page(f"/batches/{batch}")
    link = page.get_by_role("link", name="hat-07", exact=True)
    link.focus()
    top = page.evaluate("scrollY")
    assert top > 0
    with engine.begin() as connection:
        report(connection, *(success() for _ in range(5)))
        store_images(connection, images)
    expect(page.locator("#progress")).to_contain_text("8 of 30 edits stored")
    expect(page.locator("#progress svg")).to_have_attribute("aria-label", "8 of 30 edits stored, 2 failed")
    expect(page.locator("#edit-7 .state")).to_have_text("stored")
    expect(page.locator("#edit-7 img[alt^=Result]")).to_be_visible()
    expect(link).to_be_focused()
    assert page.evaluate("scrollY") == pytest.approx(top, abs=60)

    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE batches SET finished_at = now(), paused_at = NULL")
    expect(page.locator("#progress .state")).to_have_text("finished")
    expect(page.get_by_role("button", name="Stop updating")).to_be_hidden()
    expect(page.get_by_role("link", name="Pause")).to_have_count(0)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(3000)
    assert asked == []


def test_the_list_is_live_until_it_is_stopped(open_page: Open, batch: UUID, engine: Engine) -> None:
    """A new batch comes in above, under a focus that stays, and what is being typed is not lost."""
    page = open_page("/")
    page.get_by_label("Name or id").fill("hal")
    spring = page.get_by_role("link", name="spring")
    spring.focus()
    with engine.begin() as connection:
        create_batch(connection, [{}], client="press", name="autumn")
    expect(page.locator("tbody tr")).to_have_count(2)
    assert page.locator("tbody th a").all_inner_texts() == ["autumn", "spring"]
    expect(spring).to_be_focused()
    expect(page.get_by_label("Name or id")).to_have_value("hal")

    page.get_by_role("button", name="Stop updating").click()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    with engine.begin() as connection:
        create_batch(connection, [{}], client="press", name="winter")
    page.wait_for_timeout(4000)
    assert asked == []
    expect(page.locator("tbody tr")).to_have_count(2)
    page.get_by_role("button", name="Go on updating").click()
    expect(page.locator("tbody tr")).to_have_count(3)


def test_a_server_that_is_away_is_told_of_and_waited_for(
    open_page: Open, batch: UUID, engine: Engine, database_away: Away
) -> None:
    """The page keeps what it shows, says that it is old, and goes on by itself."""
    page = open_page(f"/batches/{batch}")
    page.get_by_role("button", name="Stop updating").wait_for()
    with database_away():
        expect(page.locator("#trouble")).to_contain_text("the server does not answer")
        expect(page.get_by_role("heading", level=1)).to_have_text("spring")
    engine.dispose()
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE batches SET paused_at = now()")
    expect(page.locator("#progress .state")).to_have_text("paused", timeout=SOON)
    expect(page.locator("#trouble")).to_be_empty()


def test_a_session_that_ends_leads_to_the_sign_in(open_page: Open, batch: UUID) -> None:
    """Not to a page that silently grows old; and back to where one was."""
    page = open_page(f"/batches/{batch}?state=failed")
    page.context.clear_cookies()
    page.wait_for_url(re.compile("/sign-in"))
    page.get_by_label("API key").fill(OLGA)
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"state=failed"))


def test_everything_is_reached_by_keyboard(open_page: Open, batch: UUID, engine: Engine) -> None:
    """The first stop skips to the content; each stop is seen; a batch is paused without a mouse."""
    page = open_page(f"/batches/{batch}")
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    assert page.locator(".skip").bounding_box()["x"] >= 0  # type: ignore[index]
    page.keyboard.press("Enter")
    seen: list[str] = []
    for _ in range(4):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.textContent.trim()"))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert seen == ["Batches", "Pause", "Cancel the batch", "Retry what failed"]
    page.get_by_role("link", name="Pause").focus()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Pause").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#progress .state")).to_have_text("paused")
    assert rows(engine, "SELECT paused_at IS NOT NULL FROM batches") == [(True,)]


def test_a_phone_needs_no_scrolling_to_the_side(open_page: Open, batch: UUID, engine: Engine) -> None:
    """At 360 pixels, also with a name of one long word."""
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE batches SET name = repeat('W', 200)")
        create_batch(connection, [{"image_urls": [INPUT] * 10, "prompt": "W" * 900}], client="shop")
    page = open_page("/", viewport=PHONE, has_touch=True, is_mobile=True)
    of_batch = [f"/batches/{batch}{part}" for part in ("", "/edits/1", "/edits/3", "/cancel")]
    for address in (*of_batch, "/", "/system", "/sign-in", "/nothing"):
        page.goto(address)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], address


def test_printed_it_is_what_was_looked_at(open_page: Open, batch: UUID) -> None:
    """On paper there is no navigation and no button, and dark does not use up the ink."""
    page = open_page(f"/batches/{batch}", color_scheme="dark")
    page.emulate_media(media="print")
    expect(page.get_by_role("navigation", name="Main")).to_be_hidden()
    expect(page.locator(".actions")).to_be_hidden()
    expect(page.locator("#progress")).to_be_visible()
    for element in ("body", "h1", ".gallery li", ".facts dt", "a"):
        color = page.locator(element).first.evaluate("part => getComputedStyle(part).color")
        assert max(map(int, re.findall(r"\d+", color)[:3])) < 160, (element, color)
        paper = page.locator(element).first.evaluate("part => getComputedStyle(part).backgroundColor")
        assert paper in ("rgb(255, 255, 255)", "rgba(0, 0, 0, 0)"), (element, paper)
    assert page.pdf().startswith(b"%PDF")
