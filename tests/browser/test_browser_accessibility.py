"""Every page passes axe-core, in the light and in the dark, wide and on a phone."""

from uuid import UUID

import pytest
from axe_playwright_python.sync_playwright import Axe
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_axe_finds_nothing(scheme: str, viewport: object, open_page: Open, batch: UUID, engine: Engine) -> None:
    """Names, roles, contrast, order of headings, landmarks: all of its rules, best practices too."""
    with engine.begin() as connection:
        finished = create_batch(connection, [{}], client="shop", name="over")
        connection.exec_driver_sql("UPDATE batches SET finished_at = now() WHERE id = %s", (finished,))
        connection.exec_driver_sql(
            "UPDATE provider_status SET paused_at = now(), reason = 'balance', message = 'no money', retry_at = now()"
        )
    window = {"color_scheme": scheme, "viewport": viewport, "bypass_csp": True}  # the script of axe is not ours
    stranger, olga = open_page("/sign-in", signed_in=False, **window), open_page("/", **window)
    found = {}
    for name, path in PAGES.items():
        page = stranger if name == "sign-in" else olga
        page.goto(path.format(batch=batch, finished=finished))
        results = Axe().run(page)
        assert len(results.response["passes"]) > 10
        if results.violations_count:
            found[name] = results.generate_report()
    assert found == {}, "\n".join(found.values())
