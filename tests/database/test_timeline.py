"""One edit's timeline shows every arrow that it took, in their order, though almost none is written down as such."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, Engine

from models.claims import claim_images
from models.database import make_engine
from models.events import ONWARD
from models.provider import resume
from models.queries.batches import PAUSE_BATCH, RESUME_BATCH
from models.queries.edits import TIMELINE_OF_EDIT
from models.record_reports import record_reports
from models.tables import metadata
from models.transitions import StoredImage, cancel_batch, record_stored, retry_failed, settle_batches
from models.verdict import Retry
from tests.database import test_machine
from tests.support.factories import POLICY, accept, answer, claim, failure, keep_callback, make_batch, success

RECORDER = """
CREATE TABLE IF NOT EXISTS arrows (id bigint GENERATED ALWAYS AS IDENTITY, edit_id bigint, was text, state text);
CREATE OR REPLACE FUNCTION record_arrow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO arrows (edit_id, was, state) VALUES (NEW.id, OLD.state, NEW.state); RETURN NULL; END $$;
CREATE OR REPLACE TRIGGER record_arrow AFTER UPDATE ON edits FOR EACH ROW WHEN (OLD.state <> NEW.state)
EXECUTE FUNCTION record_arrow()
"""
KEPT = ("provider_status", "retention")
"""What a database has from its beginning."""
SHOWN = """
SELECT edit_id, was, state FROM edit_timeline WHERE what = 'state' AND was IS NOT NULL ORDER BY edit_id, number
"""


def assert_every_arrow_is_shown(connection: Connection) -> set[tuple[str, str]]:
    """Which arrows there were."""
    taken = connection.exec_driver_sql("SELECT edit_id, was, state FROM arrows ORDER BY edit_id, id").all()
    assert connection.exec_driver_sql(SHOWN).all() == taken
    return {(was, state) for _, was, state in taken}


class Life(test_machine.Machine):
    """The provider, network and workers of the state machine, one step after the other and committed: what happens has
    its own time."""

    def begin(self, engine: Engine, isolation: str) -> None:
        """Batches of a few edits, and nothing else."""
        self.connection = engine.connect().execution_options(isolation_level=isolation)
        with engine.begin() as connection:
            connection.exec_driver_sql("SET LOCAL session_replication_role = replica")  # no trigger counts what goes
            for table in (*(table.name for table in metadata.sorted_tables), "arrows"):
                if table not in KEPT:
                    connection.exec_driver_sql(f"DELETE FROM {table}")
        resume(self.connection)
        self.connection.commit()
        self.provider = test_machine.Provider()
        with engine.begin() as connection:
            for count in (2, 5, 3):
                make_batch(connection, count)

    def submit(self, fates: list[str], verdict: str) -> None:
        """Committed, before anything is told of what was submitted."""
        super().submit(fates, verdict)
        self.connection.commit()

    def answer_of(self, request: test_machine.Request) -> None:
        """Committed, before anything is done with the answer."""
        super().answer_of(request)
        self.connection.commit()

    def step(self, choice: random.Random) -> None:
        """One of its rules, at random."""
        pick = choice.randrange(1000)
        verdict, fates = choice.choice(sorted(test_machine.VERDICTS)), choice.choices(test_machine.FATES, k=3)
        steps: list[Callable[[], object]] = [
            lambda: self.submit(fates, verdict),
            lambda: self.submit(["accepted"] * 3, verdict),
            lambda: self.deliver([pick, pick + 1]),
            lambda: self.become_readable(pick, "one"),
            lambda: self.late_reply(pick),
            self.poll,
            lambda: self.pass_unknown_deadline(pick % 2 == 0),
            self.resubmit_what_arrived_after_all,
            lambda: self.show_itself(pick % 2 == 0, "transient"),
            self.retry_what_is_paid_for,
            lambda: self.keep_the_spare_set(pick % 2 == 0),
            lambda: self.download(pick % 3 == 0, 3),
            self.finish_a_slow_download,
            self.retry_failed,
            lambda: self.cancel(pick) if pick % 5 == 0 else None,
            self.settle,
        ]
        choice.choice(steps)()
        self.connection.commit()


@pytest.mark.parametrize("isolation", ["AUTOCOMMIT", "READ COMMITTED"])
def test_timeline_of_every_order(engine: Engine, isolation: str) -> None:
    """Whatever the order of steps, each arrow stands in the timeline of its edit, and in its place: each statement a
    transaction of its own, so that all have times of their own, or each step, so that many have the same."""
    with engine.begin() as connection:
        connection.exec_driver_sql(RECORDER)
    kinds: set[tuple[str, str]] = set()
    for seed in range(12):
        life, choice = Life(), random.Random(seed)
        life.begin(engine, isolation)
        try:
            for _ in range(5):
                for _ in range(5):
                    life.step(choice)
                kinds |= assert_every_arrow_is_shown(life.connection)
        finally:
            life.connection.close()
    assert len(kinds) > 10


def read_timeline(connection: Connection, edit_id: int) -> list[Any]:
    return list(connection.exec_driver_sql(TIMELINE_OF_EDIT, (edit_id, 1000)))


def shown(connection: Connection, edit_id: int) -> list[tuple[str, str | None]]:
    """What the timeline says happened, and which state that led to."""
    return [(row.what, row.state) for row in read_timeline(connection, edit_id)]


def test_timeline_of_a_stored_edit(engine: Engine) -> None:
    """From its creation to its image in storage, with the callback, and without one row written for it."""
    with engine.begin() as connection:
        make_batch(connection)
    with engine.begin() as connection:
        (submission,) = claim(connection)
    with engine.begin() as connection:
        accept(connection, [submission])
    with engine.begin() as connection:
        record_reports(connection, [answer(submission, success())], POLICY)
        keep_callback(connection, str(submission.id), "request")
    with engine.begin() as connection:
        (due,) = claim_images(connection, limit=1, lease=60)
        record_stored(connection, [StoredImage(due.id, f"{due.name}.png", "ab", 1000, "image/png", 2, 1)])
    with engine.begin() as connection:
        settle_batches(connection)
    with engine.connect() as connection:
        edit_id = submission.edit_id
        assert shown(connection, edit_id) == [
            ("state", "pending"),
            ("posted", None),
            ("state", "submitting"),
            ("accepted", None),
            ("state", "submitted"),
            ("callback", None),
            ("ended", None),
            ("state", "ready"),
            ("image returned", None),
            ("image stored", None),
            ("state", "stored"),
            ("batch finished", None),
        ]
        details = [row.detail for row in read_timeline(connection, edit_id) if row.what in ("ended", "image stored")]
        assert details == ["succeeded, learned by callback", "image 0: 1000 bytes, image/png 2 x 1"]
        assert connection.exec_driver_sql("SELECT count(*) FROM edit_events").scalar_one() == 0


def test_timeline_names_who_did_it(engine: Engine, database_url: str) -> None:
    """A failure, a retry by hand while the batch was paused, a cancel: by which program each was done."""
    with engine.begin() as connection:
        batch = make_batch(connection)
        (submission,) = claim(connection)
    with engine.begin() as connection:
        bad = failure("content_policy_violation", Retry.NEVER)
        record_reports(connection, [answer(submission, bad)], POLICY)
    by_hand = make_engine(database_url, application="darkroom cli")
    with by_hand.begin() as connection:
        connection.exec_driver_sql(PAUSE_BATCH, (batch,))
    with by_hand.begin() as connection:
        retry_failed(connection, batch)
    with by_hand.begin() as connection:
        connection.exec_driver_sql(RESUME_BATCH, (batch,))
    with engine.begin() as connection:
        cancel_batch(connection, batch)
    by_hand.dispose()
    with engine.connect() as connection:
        rows = read_timeline(connection, submission.edit_id)
        assert [(row.what, row.was, row.state, row.detail) for row in rows if row.detail or row.state][3:] == [
            ("ended", None, None, "failed, content_policy_violation, learned by callback"),
            ("error", None, None, "content_policy_violation"),
            ("state", "submitting", "failed", None),
            ("batch paused", None, None, "darkroom cli"),
            ("state", "failed", "pending", "darkroom cli"),
            ("batch resumed", None, None, "darkroom cli"),
            ("state", "pending", "cancelled", "darkroom test"),
            ("batch cancelled", None, None, "darkroom test"),
        ]
        assert [row.message for row in rows if row.what == "error"] == ["no"]


def test_first_lives_are_the_arrows_onward() -> None:
    """What is not written down leads from `pending` to an end, and never back."""
    assert all(state != "pending" and was not in ("stored", "failed", "cancelled") for was, state in ONWARD)
    assert len(ONWARD) == 12
