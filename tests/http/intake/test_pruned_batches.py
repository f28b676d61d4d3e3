"""What callers are told of a batch whose edits are no longer kept."""

from collections.abc import Iterator
from uuid import UUID

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine

from core.errors import Pruned
from intake import results as result_pages
from intake.image_links import link_files
from intake.results import results
from models.retention import prune_batches
from tests.support.api_client import EDIT, intake_app, problem
from tests.support.finished_batches import KEPT, finished


@pytest.fixture
def client(database_url: str) -> Iterator[FlaskClient]:
    with intake_app(database_url) as app:
        yield app.test_client()


def prune(engine: Engine) -> None:
    while True:
        with engine.begin() as connection:
            if not prune_batches(connection, KEPT).more:
                return


@pytest.mark.parametrize("begun", [True, False], ids=["being pruned", "pruned"])
def test_its_edits_are_gone(engine: Engine, client: FlaskClient, *, begun: bool) -> None:
    """410 for edits and results; the batch itself is there, with its counts."""
    batch = finished(engine, 3, failed=1)
    if begun:
        with engine.begin() as connection:
            prune_batches(connection, KEPT)
    else:
        prune(engine)
    for what in ("edits", "results", "results?state=failed"):
        assert "no longer kept" in problem(client.get(f"/v1/batches/{batch}/{what}"), 410)["detail"]
    found = client.get(f"/v1/batches/{batch}").json
    assert (found["state"], found["counts"]["stored"], found["images"]["stored"]) == ("finished", 2, 2)
    assert found["pruned_at"] is not None
    assert client.get("/v1/batches").json["batches"][0]["pruned_at"] == found["pruned_at"]


def test_nothing_can_be_done_to_it(engine: Engine, client: FlaskClient) -> None:
    """409, and why."""
    batch = finished(engine, 3, failed=1)
    prune(engine)
    for action, body in (("retry", None), ("cancel", None), ("edits", {"edits": [EDIT]})):
        found = problem(client.post(f"/v1/batches/{batch}/{action}", json=body), 409)
        assert "pruned" in found["detail"], action


def test_its_page_says_so(engine: Engine, client: FlaskClient) -> None:
    """Nothing is offered that would be refused."""
    batch = finished(engine, 3, failed=1)
    assert "Retry what failed" in client.get(f"/batches/{batch}").text
    prune(engine)
    page = client.get(f"/batches/{batch}").text
    assert "They are no longer kept" in page
    assert "Retry what failed" not in page
    assert "More edits" not in page


def test_results_that_are_pruned_under_the_reader_break_off(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads is told, and does not take what he has for the whole."""
    monkeypatch.setattr(result_pages, "PAGE_EDITS", 2)
    batch: UUID = finished(engine, 6)
    pages = results(engine, batch, link_files("file:///images"))
    next(pages)
    prune(engine)
    with pytest.raises(Pruned):
        list(pages)
