"""What is over goes after its time, in steps that may be cut off anywhere, and nothing that is still wanted goes."""

import os
import signal
import subprocess
import sys
import threading
from decimal import Decimal
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError

from core.errors import Conflict
from intake import batch_actions
from models import retention
from models.retention import (
    count_kept,
    prune_batches,
    prune_callback_bodies,
    prune_moments,
    prune_orphans,
    prune_uploads,
)
from models.states import Kept
from models.transitions import retry_failed
from tests.support.factories import accept, claim, make_batch, unbalanced
from tests.support.finished_batches import KEPT, age, called_back, finished
from tests.support.locks import wait_for_a_lock
from tests.support.provider_callbacks import ok
from tests.support.receiving import deliveries, rows

PROGRESS = """
SELECT batch_id, edits, stored, failed, submissions, cost, bytes_stored FROM batch_progress ORDER BY batch_id
"""
OWN = "SELECT s.id, s.request_id FROM submissions s JOIN edits e ON e.id = s.edit_id ORDER BY e.position"
ROWS = ("edits", "submissions", "images", "callbacks")


def prune(engine: Engine, kept: float | None = KEPT) -> int:
    """Every step until nothing more is due; how many edits went."""
    removed = 0
    while True:
        with engine.begin() as connection:
            step = prune_batches(connection, kept)
        removed += step.removed
        if not step.more:
            return removed


def counts(engine: Engine) -> list[int]:
    return [rows(engine, f"SELECT count(*) FROM {table}")[0][0] for table in ROWS]


def money(engine: Engine) -> list[tuple]:
    """What people read of it, but for times."""
    return [
        *rows(engine, PROGRESS),
        *rows(engine, "SELECT batch_id, paid, wasted, uncertain FROM batch_costs ORDER BY batch_id"),
        *rows(engine, "SELECT * FROM client_costs"),
        *rows(engine, "SELECT day, client, paid, wasted FROM daily_costs ORDER BY day"),
        *rows(engine, "SELECT type, edits FROM error_counters ORDER BY batch_id"),
    ]


def accounts(engine: Engine) -> list[tuple[str, int]]:
    with engine.connect() as connection:
        return unbalanced(connection)


def test_a_finished_batch_goes_and_its_figures_stay(engine: Engine) -> None:
    """Its rows are gone, all of them; progress, errors, costs and every account say what they said before."""
    batch = finished(engine, 7, failed=2, max_cost=Decimal(5))
    before = money(engine)
    assert counts(engine) == [7, 7, 5, 5]

    assert prune(engine) == 7

    assert counts(engine) == [0, 0, 0, 0]
    assert money(engine) == before
    assert accounts(engine) == []
    assert rows(engine, "SELECT id, pruned_at <= prune_ended_at FROM batches") == [(batch, True)]
    assert rows(engine, "SELECT images_stored, bytes_stored, paid, wasted FROM pruned_days") == [
        (5, 5000, Decimal("0.15"), 0)
    ]
    assert rows(engine, "SELECT effect, callbacks::int FROM pruned_callbacks") == [("applied", 5)]


def test_what_is_young_stays(engine: Engine) -> None:
    """Nothing goes before its time, and nothing at all where it is kept for ever."""
    finished(engine)
    assert (prune(engine, 3 * 3600.0), prune(engine, None)) == (0, 0)
    assert counts(engine) == [3, 3, 3, 3]


@pytest.mark.parametrize("heard_of", [True, False])
def test_what_may_be_told_from_a_lost_request_stays(heard_of: bool, engine: Engine) -> None:
    """While a submit of its time is unheard of: once its submissions are gone, a batch's requests in the provider's
    listing are nobody's, and one of the same input would be taken for the lost one."""
    finished(engine)
    with engine.begin() as connection:
        make_batch(connection, 1)
        (lost,) = claim(connection)
        connection.exec_driver_sql(
            "UPDATE submissions SET posted_at = now() - interval '3 h' WHERE id = %s", (lost.id,)
        )
    assert prune(engine) == 0
    with engine.begin() as connection:
        if heard_of:
            accept(connection, [lost])
        else:
            connection.exec_driver_sql("UPDATE submissions SET posted_at = now() WHERE id = %s", (lost.id,))
    assert prune(engine) == 3


def test_what_is_begun_is_ended(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the setting was taken back in the middle: half a batch is of no use to anybody."""
    monkeypatch.setattr(retention, "EDITS_AT_ONCE", 2)
    finished(engine, 5)
    with engine.begin() as connection:
        prune_batches(connection, KEPT)
    with engine.begin() as connection:
        assert prune_batches(connection, KEPT).removed == 2
    assert accounts(engine) == []
    assert prune(engine, None) == 3
    assert counts(engine) == [0] * 4


@pytest.mark.parametrize(
    "still_wanted",
    [
        "UPDATE batches SET finished_at = NULL",
        "UPDATE batches SET audited_at = NULL",
        "UPDATE batches SET audit_difference = 'counters = their rows'",
        "UPDATE batch_counters SET unknown = 1",
        "UPDATE batch_counters SET images_waiting = 1",
        "INSERT INTO notifications (batch_id, event, url, payload) SELECT id, 'batch.finished', '', '{}' FROM batches",
    ],
)
def test_what_is_still_wanted_stays(engine: Engine, still_wanted: str) -> None:
    """Unfinished, not audited, differing, with a submission nobody heard of, an image or a message that waits."""
    finished(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql(still_wanted)
    assert prune(engine) == 0
    assert counts(engine) == [3, 3, 3, 3]


def test_the_same_key_creates_no_second_batch(engine: Engine) -> None:
    """What was paid for is not paid for again because its rows are gone."""
    batch = finished(engine, idempotency_key="once", name="hats")
    prune(engine)
    with engine.begin() as connection:
        assert make_batch(connection, 3, idempotency_key="once", name="hats") == batch
    assert rows(engine, "SELECT count(*) FROM batches") == [(1,)]
    assert counts(engine) == [0] * 4


@pytest.mark.parametrize("action", ["retry", "cancel", "append"])
def test_a_pruned_batch_is_not_opened_again(engine: Engine, action: str) -> None:
    """A sentence says why."""
    batch = finished(engine, failed=1)
    prune(engine)
    arguments = ([],) if action == "append" else ()
    with pytest.raises(Conflict, match="pruned"), engine.begin() as connection:
        getattr(batch_actions, action)(connection, batch, *arguments)


def test_a_late_callback_is_an_orphan(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is answered and kept, and moves nothing: of a batch that is gone, and of one whose rows are just going."""
    monkeypatch.setattr(retention, "EDITS_AT_ONCE", 1)
    finished(engine, 2)
    tokens = rows(
        engine, "SELECT s.id, s.request_id FROM submissions s JOIN edits e ON e.id = s.edit_id ORDER BY position"
    )
    with engine.begin() as connection:
        prune_batches(connection, KEPT)
    for number in range(2):
        with engine.begin() as connection:
            assert [called_back(connection, *token) for token in tokens] == ["orphan"] * 2
            prune_batches(connection, KEPT)
        assert accounts(engine) == [], number
    prune(engine)
    assert counts(engine) == [0, 0, 0, 4]
    age(engine)
    with engine.begin() as connection:
        assert prune_orphans(connection, KEPT).removed == 4
    assert accounts(engine) == []


def test_a_callback_that_is_just_being_written_is_counted(engine: Engine) -> None:
    """One that locks no edit, as a mismatch does, is either there when the step looks, or finds no submission."""
    finished(engine, 1)
    ((token, request),) = rows(engine, OWN)
    with engine.begin() as connection:
        prune_batches(connection, KEPT)
    with engine.connect() as connection:
        assert called_back(connection, token, request, ok("another")) == "mismatch"
        pruning = threading.Thread(target=prune, args=(engine,))
        pruning.start()
        wait_for_a_lock(engine, pruning)
        connection.commit()
        pruning.join(60)
    assert counts(engine) == [0] * 4
    assert accounts(engine) == []


def test_a_late_result_of_what_is_being_pruned_is_refused_whole(engine: Engine) -> None:
    """Whoever has read an edit before its batch was pruned cannot open the batch afterwards."""
    batch = finished(engine, failed=1)
    with engine.begin() as connection:
        prune_batches(connection, KEPT)
    with pytest.raises(IntegrityError, match="pruned_at"), engine.begin() as connection:
        connection.exec_driver_sql("UPDATE batches SET finished_at = NULL WHERE id = %s", (batch,))


def test_a_retry_that_is_first_wins(engine: Engine) -> None:
    """While it is not committed yet the batch is passed by; afterwards it is not finished any more."""
    batch = finished(engine, failed=1)
    with engine.connect() as connection, connection.begin():
        assert retry_failed(connection, batch) == 1
        assert prune(engine) == 0
        connection.commit()
    assert prune(engine) == 0
    assert counts(engine) == [3, 3, 2, 2]
    assert accounts(engine) == []


def test_a_retry_that_is_second_is_refused(engine: Engine) -> None:
    """It had taken the batch's edits already: nothing of it remains."""
    batch = finished(engine, failed=1)

    with engine.connect() as connection, connection.begin() as transaction:
        batch_actions._batch(connection, batch)
        connection.exec_driver_sql("SELECT FROM edits WHERE batch_id = %s FOR UPDATE", (batch,))
        with engine.begin() as other:
            assert prune_batches(other, KEPT).more
        with pytest.raises(Conflict):
            retry_failed(connection, batch)
        transaction.rollback()
    assert rows(engine, "SELECT count(*) FROM edits WHERE state = 'failed'") == [(1,)]
    assert prune(engine) == 3


def test_retries_and_pruning_at_one_time(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of twenty batches each is retried or pruned, none is both, and nobody waits in a ring."""
    monkeypatch.setattr(retention, "EDITS_AT_ONCE", 2)
    batches = [finished(engine, 4, failed=4) for _ in range(20)]
    retried: list[UUID] = []

    def retry() -> None:
        for batch in reversed(batches):
            try:
                with engine.begin() as connection:
                    retried.extend([batch] if batch_actions.retry(connection, batch) else [])
            except Conflict:
                pass

    threads = [threading.Thread(target=work) for work in (retry, lambda: prune(engine), lambda: prune(engine))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    prune(engine)
    pruned = {row[0] for row in rows(engine, "SELECT id FROM batches WHERE pruned_at IS NOT NULL")}
    assert pruned == set(batches) - set(retried)
    assert rows(engine, "SELECT count(*) FROM edits WHERE state = 'pending'") == [(4 * len(retried),)]
    assert counts(engine)[0] == 4 * len(retried)
    assert rows(engine, "SELECT count(*) FROM batches WHERE pruned_at IS NOT NULL AND prune_ended_at IS NULL") == [(0,)]
    assert accounts(engine) == []


PRUNER = """
import sys
from models import retention
from models.database import make_engine

retention.EDITS_AT_ONCE = 1
engine = make_engine(sys.argv[1], application="pruner")
while True:
    with engine.begin() as connection:
        step = retention.prune_batches(connection, 3600.0)
    print(step.removed, flush=True)
    if not step.more:
        break
"""


def test_killed_anywhere_it_goes_on(engine: Engine, database_url: str) -> None:
    """Killed again and again in the middle: after each death all accounts balance, and in the end all is gone."""
    for _ in range(3):
        finished(engine, 12, failed=4)
    before, killed = money(engine), 0
    while counts(engine)[0]:
        process = subprocess.Popen(
            (sys.executable, "-c", PRUNER, database_url), stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": "."}
        )
        assert process.stdout is not None
        for _ in range(9):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        process.stdout.close()
        killed += 1
        assert accounts(engine) == []
    assert killed > 3
    prune(engine)
    assert counts(engine) == [0] * 4
    assert money(engine) == before


def test_bodies_of_callbacks_go(engine: Engine) -> None:
    """Of an old callback remain effect, request, hash and times; a young one, and the edit, are as they were."""
    finished(engine, 3)
    with engine.begin() as connection:
        called_back(connection, uuid4(), "young", b'{"request_id": "young"}')
        hashes = rows(engine, "SELECT sha256 FROM callbacks ORDER BY id LIMIT 3")
        assert prune_callback_bodies(connection, KEPT).removed == 3
        assert prune_callback_bodies(connection, KEPT).removed == 0
    assert [kept.body for kept in deliveries(engine)] == [b'{"request_id": "young"}']
    gone = "SELECT sha256 FROM callbacks WHERE delivery IS NULL AND effect = 'applied' AND request_id IS NOT NULL"
    assert sorted(rows(engine, gone)) == sorted(hashes)
    assert rows(engine, "SELECT reached FROM retention WHERE kind = 'callback_bodies'") == [(3,)]
    age(engine)
    with engine.begin() as connection:
        assert prune_callback_bodies(connection, KEPT).removed == 1
    assert accounts(engine) == []


def test_bodies_of_the_release_before_go_too(engine: Engine) -> None:
    """Headers and body, which it kept as they were."""
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO callbacks (effect, token, signed_at, received_at, headers, body, sha256)"
            " VALUES ('orphan', 'x', now(), now() - interval '2 h', '{\"a\": \"b\"}', 'x', 'h')"
        )
    assert [(kept.headers, kept.body) for kept in deliveries(engine)] == [({"a": "b"}, b"x")]
    with engine.begin() as connection:
        assert prune_callback_bodies(connection, KEPT).removed == 1
    assert rows(engine, "SELECT headers, body, sha256 FROM callbacks") == [(None, None, "h")]


def test_uploads_that_expired_go(engine: Engine) -> None:
    """Those that the provider has deleted long since; not those that it keeps, or may."""
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO uploads (sha256, cdn_url, url, content_type, bytes, expires_at) VALUES"
            " ('gone', '', '', '', 1, now() - interval '2 h'), ('just gone', '', '', '', 1, now()),"
            " ('there', '', '', '', 1, now() + interval '2 h'), ('for ever', '', '', '', 1, NULL)"
        )
        assert prune_uploads(connection, KEPT).removed == 1
    assert sorted(rows(engine, "SELECT sha256 FROM uploads")) == [("for ever",), ("just gone",), ("there",)]


def test_an_appended_batch_keeps_its_keys(engine: Engine) -> None:
    """Edits that were appended under a key are not appended again once they are pruned."""
    batch = finished(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO additions (batch_id, idempotency_key, content_sha256, edit_count, skipped)"
            " VALUES (%s, 'more', 'h', 1, 0)",
            (batch,),
        )
    prune(engine)
    assert rows(engine, "SELECT idempotency_key FROM additions") == [("more",)]


def test_old_minutes_and_hours_go_and_totals_stay(engine: Engine) -> None:
    """Totals since the beginning say what they said; what is young is as fine as before."""
    finished(engine, 3)
    totals = rows(engine, "SELECT * FROM event_totals")
    with engine.begin() as connection:
        assert prune_moments(connection, KEPT).removed == 0
        for table, time in (("minute_counters", "minute"), ("latency_counters", "hour")):
            connection.exec_driver_sql(f"UPDATE {table} SET {time} = {time} - interval '1 day'")
        assert prune_moments(connection, None).removed == 0
        old = count_kept(connection, Kept.MOMENTS, KEPT)
        assert old > 3
        assert prune_moments(connection, KEPT).removed == old
        assert prune_moments(connection, KEPT).removed == 0
    assert rows(engine, "SELECT * FROM event_totals") == totals
    assert rows(engine, "SELECT * FROM throughput") == rows(engine, "SELECT * FROM latency") == []
