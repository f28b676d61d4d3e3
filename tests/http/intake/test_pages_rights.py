"""Who sees and steers what on the page: a client what is its own, an operator all; and what each action does."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine

from intake.api_keys import ApiKeys
from intake.batches import BatchHeader, create
from intake.manifest import read_jsonl
from models.verdict import Retry
from tests.support.api_client import ALICE, BOB, lines
from tests.support.factories import failure, success
from tests.support.pages import HTML, INPUT, OLGA, create_batch, page_app, report, sign_in, store_images, token_of
from tests.support.receiving import rows

DONE = failure("content_policy_violation", Retry.NEVER)


@pytest.fixture
def app(database_url: str, tmp_path: Path) -> Iterator[Flask]:
    with page_app(database_url, tmp_path) as app:
        yield app


@pytest.fixture
def batch(engine: Engine, tmp_path: Path) -> UUID:
    """Alice's: an edit is stored, one failed, one is pending; and another one of Bob's."""
    with engine.begin() as connection:
        batch = create_batch(connection, [{"custom_id": "hat"}, {}, {}], client="alice", name="spring", priority=5)
        create_batch(connection, [{}], client="bob", name="his own")
        report(connection, success(), DONE)
        store_images(connection, tmp_path)
    return batch


@pytest.fixture
def paths(batch: UUID, engine: Engine) -> list[str]:
    """Everything of Alice's batch that has an address."""
    image = rows(engine, "SELECT id FROM images")[0][0]
    parts = ["", "/edits/0", "/edits/0/inputs/0/thumbnail", f"/images/{image}", f"/images/{image}/thumbnail"]
    return [f"/batches/{batch}{part}" for part in (*parts, "/pause", "/resume", "/cancel", "/retry")]


def test_a_client_sees_its_own_and_an_operator_all(app: Flask, paths: list[str]) -> None:
    """Another client's batch is no different from one that is not there, down to its last thumbnail."""
    for key, status in ((ALICE, 200), (OLGA, 200), (BOB, 404)):
        browser = sign_in(app, key)
        assert {path: browser.get(path, headers=HTML).status_code for path in paths} == dict.fromkeys(paths, status)
    stranger = app.test_client()
    assert {stranger.get(path, headers=HTML).status_code for path in paths} == {302}


def test_the_list_is_ones_own(app: Flask, batch: UUID) -> None:
    """Bob's list has no trace of Alice's batch, however he looks for it; the operator's has both and says whose."""
    alice, bob, olga = (sign_in(app, key).get("/", headers=HTML).text for key in (ALICE, BOB, OLGA))
    assert ("spring" in alice, "his own" in alice) == (True, False)
    assert ("spring" in bob, "his own" in bob) == (False, True)
    assert ("<small>alice</small>" in olga, "<small>bob</small>" in olga) == (True, True)
    for query in (f"name={batch}", "name=SPR", "state=running&name=spring"):
        assert "spring</a>" not in sign_in(app, BOB).get(f"/?{query}", headers=HTML).text
        assert "spring</a>" in sign_in(app, OLGA).get(f"/?{query}", headers=HTML).text


def test_nobody_acts_on_anothers_batch(app: Flask, batch: UUID, engine: Engine) -> None:
    """Bob's own token does not help him."""
    bob = sign_in(app, BOB)
    token = token_of(bob.get("/", headers=HTML))
    for name in ("pause", "resume", "cancel", "retry"):
        assert bob.post(f"/batches/{batch}/{name}", data={"token": token}).status_code == 404
    assert rows(engine, "SELECT paused_at, cancelled_at FROM batches WHERE client = 'alice'") == [(None, None)]
    assert rows(engine, "SELECT count(*) FROM edits WHERE state = 'failed'") == [(1,)]


def test_a_key_with_both_rights_is_refused(database_url: str, tmp_path: Path) -> None:
    """One key that is a client's and an operator's would be one of them by chance."""
    from core.errors import SettingsError
    from intake.settings import IntakeSettings

    given = {"darkroom_api_keys": f"alice:{ALICE}", "darkroom_operator_keys": f"alice:{ALICE}"}
    with pytest.raises(SettingsError, match="DARKROOM_OPERATOR_KEYS is wrong"):
        ApiKeys(IntakeSettings(database_url=database_url, storage_url=tmp_path.as_uri(), **given))


def act(browser: FlaskClient, batch: UUID, name: str) -> Any:
    """First the question, then the deed; answers both."""
    question = browser.get(f"/batches/{batch}/{name}", headers=HTML)
    return question, browser.post(f"/batches/{batch}/{name}", data={"token": token_of(question)}, headers=HTML)


def test_each_action_asks_first_and_then_does_it(app: Flask, batch: UUID, engine: Engine) -> None:
    """The question says what it means for this batch and changes nothing; the deed leads back to the batch."""
    alice = sign_in(app, ALICE)
    state = "SELECT paused_at IS NOT NULL, cancelled_at IS NOT NULL FROM batches WHERE client = 'alice'"

    for name, said, after in (
        ("pause", "None of its 1 pending edits", [(True, False)]),
        ("resume", "1 pending edits are submitted again", [(False, False)]),
        ("retry", "Its 1 failed edits are tried again", [(False, False)]),
        ("cancel", "Its 2 pending edits end as cancelled", [(False, True)]),
    ):
        before = rows(engine, state)
        assert said in alice.get(f"/batches/{batch}/{name}", headers=HTML).text
        assert rows(engine, state) == before
        _, done = act(alice, batch, name)
        assert (done.status_code, done.headers["Location"]) == (303, f"/batches/{batch}")
        assert rows(engine, state) == after
    counts = "SELECT stored, failed, cancelled, pending FROM batch_progress WHERE client = 'alice'"
    assert rows(engine, counts) == [(1, 0, 2, 0)]


def test_only_what_fits_is_offered(app: Flask, batch: UUID) -> None:
    """A button that could do nothing is not there; a question that no longer fits says so, without a button."""
    alice = sign_in(app, ALICE)

    def offered() -> set[str]:
        text = alice.get(f"/batches/{batch}", headers=HTML).text
        return {name for name in ("pause", "resume", "cancel", "retry") if f"/batches/{batch}/{name}" in text}

    assert offered() == {"pause", "cancel", "retry"}
    act(alice, batch, "pause")
    assert offered() == {"resume", "cancel", "retry"}
    act(alice, batch, "cancel")
    assert offered() == set()
    question = alice.get(f"/batches/{batch}/pause", headers=HTML).text
    assert "nothing to be done" in question
    assert "<button>" not in question


def test_what_does_not_fit_any_more_is_explained(app: Flask, batch: UUID, engine: Engine) -> None:
    """Two people at once: the second's button comes too late, which a page says; a second click does no harm."""
    alice, olga = sign_in(app, ALICE), sign_in(app, OLGA)
    token = token_of(olga.get("/", headers=HTML))
    assert act(alice, batch, "cancel")[1].status_code == 303
    again = olga.post(f"/batches/{batch}/cancel", data={"token": token}, headers=HTML)
    retry = olga.post(f"/batches/{batch}/retry", data={"token": token}, headers=HTML)
    assert again.status_code == 303
    assert (retry.status_code, retry.mimetype) == (409, "text/html")
    assert "The batch is cancelled" in retry.text
    assert rows(engine, "SELECT count(*) FROM edits WHERE state = 'failed'") == [(1,)]


def test_a_batch_that_is_not_there(app: Flask) -> None:
    """A page, with its status, for every address that leads nowhere."""
    olga = sign_in(app, OLGA)
    token = token_of(olga.get("/", headers=HTML))
    batch = uuid4()
    images = ("/images/1", "/images/1/thumbnail", "/edits/0/inputs/0/thumbnail")
    for part in ("", "/edits/0", "/edits/x", "/x", "/cancel", *images):
        answer = olga.get(f"/batches/{batch}{part}", headers=HTML)
        assert (answer.status_code, answer.mimetype) == (404, "text/html")
    assert olga.post(f"/batches/{batch}/cancel", data={"token": token}).status_code == 404


def test_faulty_lines_are_not_offered_to_be_tried_again(app: Flask, engine: Engine) -> None:
    """They stay failed whatever one does; a button that pays for nothing is not there."""
    with engine.begin() as connection:
        entries = read_jsonl(BytesIO(lines({"prompt": "a", "image_urls": [INPUT]}, {"prompt": ""})))
        made = create(connection, BatchHeader(client="alice"), entries, on_invalid="skip")
    alice = sign_in(app, ALICE)
    page = alice.get(f"/batches/{made.batch_id}", headers=HTML).text
    assert "Faulty lines skipped" in page
    assert "Retry what failed" not in page
