"""Deliveries that are recorded in one transaction: each does what it would do alone, and is answered by its commit."""

import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DBAPIError

from models.database import make_engine
from models.states import Effect
from tests.support.factories import POLICY, request_id, unbalanced
from tests.support.provider_callbacks import ACCOUNT, ok, refused
from tests.support.receiving import kept, rows, submitted, unanswered
from webhook_receiver.recording import Delivery, record_deliveries
from webhook_receiver.signature import Signed
from webhook_receiver.waves import WAVE_BYTES, WAVE_MOST, Waves

WITHIN = 60.0
"""Seconds for which a test waits for an answer."""


class Recorder:
    """Waves of which the first waits until it is let go, so that whatever comes meanwhile is the next one."""

    def __init__(self, engine: Engine) -> None:
        self.sizes: list[int] = []
        self._resume = threading.Event()
        self._waves = Waves(engine, self._record, alone=2)

    def _record(self, connection: Connection, deliveries: Sequence[Delivery]) -> list[Effect]:
        self._resume.wait(WITHIN)
        self.sizes.append(len(deliveries))
        return record_deliveries(connection, deliveries, POLICY)

    def together(self, deliveries: Sequence[Delivery]) -> "list[Future[Effect]]":
        """Record them in one wave."""
        self._resume.clear()
        first = self._waves.record(about("x", "x", ok("x")))
        futures = [self._waves.record(delivery) for delivery in deliveries]
        self._resume.set()
        assert first.result(WITHIN) is Effect.ORPHAN
        return futures


@pytest.fixture
def receiver_engine(database_url: str) -> Iterator[Engine]:
    """The receiver's own connections."""
    engine = make_engine(database_url, application="test", pool_size=4)
    yield engine
    engine.dispose()


@pytest.fixture
def recorder(receiver_engine: Engine) -> Recorder:
    """What records in waves."""
    return Recorder(receiver_engine)


def about(token: object, request: str, body: bytes, *, stale: bool = False) -> Delivery:
    """A delivery whose signature was found good."""
    return Delivery(str(token), body, {}, Signed(request, ACCOUNT, datetime.now(UTC), stale))


def success(submission: Any) -> Delivery:
    return about(submission.id, request_id(submission), ok(request_id(submission)))


@contextmanager
def trigger(database_url: str, body: str) -> Iterator[None]:
    """At each row that is inserted into `callbacks`."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"""
            CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NEW; END $$;
            CREATE TRIGGER trouble BEFORE INSERT ON callbacks FOR EACH ROW EXECUTE FUNCTION trouble();
        """)
        try:
            yield
        finally:
            connection.execute("DROP FUNCTION trouble CASCADE")


def mixture(known: Sequence[Any], lost: Sequence[Any]) -> list[Delivery]:
    """Every kind of delivery, several about the same submissions."""
    a, b, c, d = known
    e, f, g = lost
    return [
        success(a),
        success(a),
        about(b.id, request_id(b), ok(request_id(b))),
        about(b.id, request_id(b), refused(request_id(b))),
        about(c.id, request_id(c), refused(request_id(c), "internal_server_error")),
        about(c.id, request_id(c), ok("another")),
        about(d.id, "in vain", ok("in vain")),
        about(d.id, request_id(d), b"\xff no JSON"),
        about(e.id, request_id(d), ok(request_id(d))),
        about(e.id, request_id(e), ok(request_id(e), 3)),
        about(f.id, "revealed", ok("revealed"), stale=True),
        about(f.id, "revealed", ok("revealed")),
        about(g.id, "", b"[]"),
        about(uuid4(), "r", ok("r")),
        about(uuid4(), "r", ok("other")),
        about("no token", "r", ok("r")),
    ]


def outcome(engine: Engine, submissions: Sequence[Any]) -> list[tuple]:
    """What became of submissions and their edits, without the names that differ from run to run."""
    ids = ", ".join(f"'{one.id}'" for one in submissions)
    found = rows(
        engine,
        f"""
        SELECT s.id::text, s.outcome, s.request_id IS NOT NULL, s.cost::text, s.images_returned, s.set_number, e.state,
               e.errors -> 0 ->> 'type', (SELECT count(*) FROM images i WHERE i.submission_id = s.id),
               (SELECT count(*) FROM callbacks c WHERE c.submission_id = s.id)
        FROM submissions s JOIN edits e ON e.id = s.edit_id WHERE s.id IN ({ids})
        """,
    )
    places = {str(one.id): number for number, one in enumerate(submissions)}
    return sorted((places[row[0]], *row[1:]) for row in found)


@pytest.mark.parametrize("seed", range(12))
def test_each_does_what_it_would_do_alone(seed: int, engine: Engine, recorder: Recorder) -> None:
    """In whatever order they stand in a wave: the same effects, and the same rows, as one transaction for each."""
    worlds: list[list[Any]] = []
    effects = []
    for together in (True, False):
        known, lost = submitted(engine, 4), unanswered(engine, 3)
        deliveries = mixture(known, lost)
        random.Random(seed).shuffle(deliveries)
        if together:
            effects.append([future.result(WITHIN) for future in recorder.together(deliveries)])
        else:
            alone = []
            for delivery in deliveries:
                # a request id belongs to one submission: not to that of the wave before
                request = {"in vain": "in vain 2", "revealed": "revealed 2"}.get(delivery.signed.request_id)
                if request:
                    delivery = about(delivery.token, request, ok(request), stale=delivery.signed.stale)
                with engine.begin() as connection:
                    alone += record_deliveries(connection, [delivery], POLICY)
            effects.append(alone)
        worlds.append(outcome(engine, [*known, *lost]))

    assert recorder.sizes == [1, 16]
    assert effects[0] == effects[1]
    assert worlds[0] == worlds[1]
    with engine.connect() as connection:
        assert unbalanced(connection) == []


def test_a_request_that_is_named_in_vain_still_heals(engine: Engine, recorder: Recorder) -> None:
    """A delivery that is a mismatch takes the request it names from nobody in its wave."""
    (known,), (lost,) = submitted(engine), unanswered(engine)

    wrong, right = recorder.together([about(known.id, "r", ok("r")), about(lost.id, "r", ok("r"))])

    assert (wrong.result(WITHIN), right.result(WITHIN)) == (Effect.MISMATCH, Effect.APPLIED)


def test_one_that_cannot_be_recorded_fails_alone(engine: Engine, recorder: Recorder, database_url: str) -> None:
    """The others of its wave are recorded all the same, each once."""
    bad, *good = submitted(engine, 6)

    with trigger(
        database_url, f"IF NEW.submission_id = '{bad.id}' THEN RAISE EXCEPTION 'no' USING ERRCODE = '22000'; END IF;"
    ):
        failed, *futures = recorder.together([success(one) for one in (bad, *good)])
        with pytest.raises(DBAPIError):
            failed.result(WITHIN)
        assert [one.result(WITHIN) for one in futures] == [Effect.APPLIED] * 5

    assert recorder.sizes == [1, 6, *[1] * 6]
    assert sorted(kept(engine), key=str) == sorted([("orphan", None), *(("applied", one.id) for one in good)], key=str)
    assert rows(engine, f"SELECT outcome FROM submissions WHERE id = '{bad.id}'") == [(None,)]


def test_an_edit_that_is_held_holds_up_nobody_else(engine: Engine, recorder: Recorder) -> None:
    """While somebody has the row of one, the others of its wave are recorded; it is, once the row is free."""
    held, *others = submitted(engine, 6)

    with engine.begin() as connection:
        connection.exec_driver_sql(
            "SELECT FROM edits WHERE id = (SELECT edit_id FROM submissions WHERE id = %s) FOR UPDATE", (held.id,)
        )
        late, *futures = recorder.together([success(one) for one in (held, *others)])
        assert [one.result(WITHIN) for one in futures] == [Effect.APPLIED] * 5
        assert not late.done()

    assert late.result(WITHIN) is Effect.APPLIED


def test_the_database_goes_away_in_the_middle(engine: Engine, recorder: Recorder, database_url: str) -> None:
    """Nobody of the wave is told that it is recorded, and nothing is; when they come again they are taken."""
    submissions = submitted(engine, 5)

    with trigger(
        database_url, "IF NEW.submission_id IS NOT NULL THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;"
    ):
        for future in recorder.together([success(one) for one in submissions]):
            with pytest.raises(DBAPIError):
                future.result(WITHIN)
    assert recorder.sizes == [1, 5]
    assert rows(engine, "SELECT outcome FROM submissions WHERE outcome IS NOT NULL") == []

    assert [future.result(WITHIN) for future in recorder.together([success(one) for one in submissions])] == [
        Effect.APPLIED
    ] * 5


def test_nobody_is_told_before_the_commit(engine: Engine, receiver_engine: Engine) -> None:
    """Whoever hears of an effect finds its row with a connection of its own, though the commit takes its time."""
    event.listen(receiver_engine, "commit", lambda _: time.sleep(0.3))
    recorder = Recorder(receiver_engine)
    submissions = submitted(engine, 20)
    seen: list[int] = []
    for future in recorder.together([success(one) for one in submissions]):
        future.result(WITHIN)
        seen.append(rows(engine, "SELECT count(*) FROM callbacks WHERE effect = 'applied'")[0][0])
    assert seen == [20] * 20


@pytest.mark.parametrize(
    ("count", "pad", "most"),
    [(2 * WAVE_MOST + 5, 0, WAVE_MOST), (5, WAVE_BYTES // 2 - 1000, 2), (3, WAVE_BYTES + 1, 1)],
    ids=["deliveries", "bytes", "one too large"],
)
def test_waves_are_bounded(count: int, pad: int, most: int, recorder: Recorder) -> None:
    """In deliveries and in bytes; a body above the bound is a wave by itself."""
    deliveries = [about(f"t{n}", f"r{n}", ok(f"r{n}") + b" " * pad) for n in range(count)]

    assert {future.result(WITHIN) for future in recorder.together(deliveries)} == {Effect.ORPHAN}

    assert sum(recorder.sizes) == count + 1
    assert max(recorder.sizes) == most


def test_whoever_comes_alone_waits_for_nobody(engine: Engine, receiver_engine: Engine) -> None:
    """One after the other, each is a wave by itself, and the next begins a new one."""
    sizes: list[int] = []

    def record(connection: Connection, deliveries: Sequence[Delivery]) -> list[Effect]:
        sizes.append(len(deliveries))
        return record_deliveries(connection, deliveries, POLICY)

    waves = Waves(receiver_engine, record, alone=1)
    for one in submitted(engine, 4):
        assert waves.record(success(one)).result(WITHIN) is Effect.APPLIED
    assert sizes == [1] * 4
