"""Every page passes axe-core, in the light and in the dark, wide and on a phone."""

from itertools import product
from uuid import UUID

from axe_playwright_python.base import AxeResults
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page
from sqlalchemy import Engine

from tests.browser.conftest import PHONE, WIDE, Open
from tests.support.pages import create_batch

PAGES = {
    "sign-in": "/sign-in?next=/system",
    "batches": "/",
    "no batch": "/?state=paused",
    "batch": "/batches/{batch}",
    "finished batch": "/batches/{finished}",
    "stored edit": "/batches/{batch}/edits/1",
    "failed edit": "/batches/{batch}/edits/3",
    "pending edit": "/batches/{batch}/edits/20",
    "question": "/batches/{batch}/cancel",
    "system": "/system",
    "problem": "/batches/x",
}

AXE = Axe().axe_script
SIZES = {"wide": WIDE, "phone": PHONE}
RULES = {"light": "{}", "dark": "{runOnly: ['color-contrast', 'link-in-text-block']}"}
"""Of all rules those about colours alone see whether it is dark."""


def look_at(page: Page) -> dict[str, str]:
    """What axe says against a page, by how one looks at it; the page is loaded once, as axe is."""
    page.evaluate(AXE)
    found = {}
    for (size, viewport), (scheme, rules) in product(SIZES.items(), RULES.items()):
        page.set_viewport_size(viewport)  # type: ignore[arg-type]
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        results = AxeResults(page.evaluate(f"axe.run({{resultTypes: ['violations'], ...{rules}}})"))
        assert len(results.response["passes"]) > (10 if scheme == "light" else 0)
        if results.violations_count:
            found[f"{size}, {scheme}"] = results.generate_report()
    return found


def test_axe_finds_nothing(open_page: Open, batch: UUID, engine: Engine) -> None:
    """Names, roles, contrast, order of headings, landmarks: all of its rules, best practices too."""
    with engine.begin() as connection:
        finished = create_batch(connection, [{}], client="shop", name="over")
        connection.exec_driver_sql("UPDATE batches SET finished_at = now() WHERE id = %s", (finished,))
        connection.exec_driver_sql(
            "UPDATE provider_status SET paused_at = now(), reason = 'balance', message = 'no money', retry_at = now()"
        )
    window = {"bypass_csp": True}  # the script of axe is not ours
    stranger, olga = open_page("/sign-in", signed_in=False, **window), open_page("/", **window)
    found = {}
    for name, path in PAGES.items():
        page = stranger if name == "sign-in" else olga
        page.goto(path.format(batch=batch, finished=finished))
        found |= {f"{name}, {how}": report for how, report in look_at(page).items()}
    assert found == {}, "\n".join(f"{where}:\n{report}" for where, report in found.items())
