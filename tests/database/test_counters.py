"""Counters beside every change: what people poll is what a count over the rows says, whoever writes at one time."""

import re
import threading

import pytest
from sqlalchemy import Connection, Engine

from models.claims import claim_images
from models.record_reports import record_reports
from models.transitions import (
    ImageFault,
    StoredImage,
    Submission,
    cancel_batch,
    record_image_faults,
    record_stored,
    retry_failed,
    settle_batches,
)
from models.verdict import Retry
from tests.support.factories import (
    POLICY,
    accept,
    answer,
    claim,
    failure,
    fall_due,
    make_batch,
    success,
    unbalanced,
)

COUNTED = """
SELECT (SELECT count(*) FROM edits WHERE state = 'pending'), (SELECT count(*) FROM edits WHERE state = 'submitting'),
       (SELECT count(*) FROM edits WHERE state = 'submitted'), (SELECT count(*) FROM edits WHERE state = 'ready'),
       (SELECT count(*) FROM edits WHERE state = 'stored'), (SELECT count(*) FROM edits WHERE state = 'failed'),
       (SELECT count(*) FROM edits WHERE state = 'cancelled'),
       (SELECT count(*) FROM edits WHERE state = 'failed' AND attempt = 0),
       count(*), count(*) FILTER (WHERE outcome = 'unknown'), count(*) FILTER (WHERE doubled),
       coalesce(sum(cost), 0), coalesce(sum(images_returned), 0),
       (SELECT count(*) FROM images WHERE state = 'waiting'), (SELECT count(*) FROM images WHERE state = 'stored'),
       (SELECT count(*) FROM images WHERE state = 'failed'),
       (SELECT coalesce(sum(stored_bytes), 0) FROM images WHERE state = 'stored'),
       (SELECT min(stored_at) FROM images WHERE state = 'stored'),
       (SELECT max(stored_at) FROM images WHERE state = 'stored')
FROM submissions
"""
"""One batch, counted the plain way."""
KEPT = """
SELECT pending, submitting, submitted, ready, stored, failed, cancelled, skipped, submissions, unknown, doubled, cost,
       images_returned, images_waiting, images_stored, images_failed, bytes_stored, first_stored_at, last_stored_at
FROM batch_progress
"""


def assert_counted(connection: Connection) -> None:
    assert tuple(connection.exec_driver_sql(KEPT).one()) == tuple(connection.exec_driver_sql(COUNTED).one())
    assert unbalanced(connection) == []


def errors(connection: Connection) -> list[tuple]:
    query = "SELECT type, sum(edits), sum(failed) FROM error_counters GROUP BY type HAVING sum(edits) > 0 ORDER BY 1"
    return [tuple(row) for row in connection.exec_driver_sql(query)]


def store_half(connection: Connection) -> None:
    """Of the waiting images every other one is stored, the rest cannot be."""
    due = claim_images(connection, limit=100, lease=60)
    kept, lost = due[::2], due[1::2]
    record_stored(connection, [StoredImage(i.id, f"{i.name}.png", "ab", 1000, "image/png", 1, 1) for i in kept])
    record_image_faults(connection, [ImageFault(i.id, "not_an_image", "no", None) for i in lost])


def test_counters_follow_every_change(engine: Engine) -> None:
    """Accepted, refused, stored, not stored, cancelled, retried: after each step, as a count would say."""
    with engine.begin() as connection:
        batch = make_batch(connection, 30)
        assert_counted(connection)
        submissions = claim(connection, limit=20)
        assert_counted(connection)
        accept(connection, submissions)
        bad = failure("content_policy_violation", Retry.NEVER)
        reports = [answer(s, success(2) if n % 3 else bad) for n, s in enumerate(submissions)]
        record_reports(connection, reports, POLICY)
        assert_counted(connection)
        store_half(connection)
        assert_counted(connection)
        fall_due(connection)
        cancel_batch(connection, batch)
        assert_counted(connection)
        assert errors(connection) == [("content_policy_violation", 7, 7), ("not_an_image", 13, 13)]
        retry_failed(connection, batch)
        assert_counted(connection)
        settle_batches(connection)
        assert_counted(connection)


def test_what_is_rolled_back_is_not_counted(engine: Engine) -> None:
    """A counter is part of the transaction that changed what it counts."""
    with engine.begin() as connection:
        make_batch(connection, 3)
    with engine.connect() as connection, connection.begin() as transaction:
        claim(connection, limit=2)
        transaction.rollback()
    with engine.connect() as connection:
        assert_counted(connection)


def test_writers_of_one_batch_do_not_wait_for_each_other(engine: Engine) -> None:
    """While one transaction that changed a batch is open, others change the same batch, each in its own row."""
    with engine.begin() as connection:
        make_batch(connection, 3)
        submissions = claim(connection)
    with engine.connect() as first, engine.connect() as second, engine.connect() as third:
        for connection, submission in zip((first, second, third), submissions, strict=True):
            connection.exec_driver_sql("SET lock_timeout = '2s'")
            accept(connection, [submission])
        for connection in (third, first, second):
            connection.commit()
    with engine.connect() as connection:
        assert_counted(connection)
        assert connection.exec_driver_sql("SELECT count(*) FROM batch_counters").scalar_one() == 3


def test_many_writers_at_one_time(engine: Engine) -> None:
    """Eight threads claim, accept and answer edits of two batches: no deadlock, and nothing miscounted."""
    with engine.begin() as connection:
        for _ in range(2):
            make_batch(connection, 80)
    raised: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(10):
                with engine.begin() as connection:
                    submissions: list[Submission] = claim(connection, limit=2, window=1000)
                with engine.begin() as connection:
                    for submission in submissions[:: 1 if number % 2 else -1]:
                        accept(connection, [submission])
                        record_reports(connection, [answer(submission, success())], POLICY)
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert raised == []
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT sum(ready) FROM batch_progress").scalar_one() == 160
        assert unbalanced(connection) == []


@pytest.mark.parametrize(
    ("statement", "identity"),
    [
        ("UPDATE batch_counters SET stored = stored + 1", "counters of batches = their rows"),
        ("UPDATE batch_counters SET cost = cost + 0.03", "counters of batches = their rows"),
        ("INSERT INTO error_counters (batch_id, type, edits, failed) SELECT id, 'x', 1, 0 FROM batches",
         "counters of errors = their rows"),
        ("INSERT INTO callback_counters (effect, callbacks) VALUES ('late', 1)", "counters of callbacks = their rows"),
    ],
)  # fmt: skip
def test_the_audit_finds_what_is_miscounted(engine: Engine, statement: str, identity: str) -> None:
    """A counter that does not say what the rows say is named, whichever it is."""
    with engine.begin() as connection:
        make_batch(connection, 2)
        connection.exec_driver_sql(statement)
        assert identity in dict(unbalanced(connection))


def test_no_trigger_reads_all_old_rows_for_each_new_one(engine: Engine) -> None:
    """A session's first change may be of one row, and a plan made for it would take a second for two thousand."""
    with engine.connect() as connection:
        bodies = connection.exec_driver_sql(
            "SELECT proname, prosrc FROM pg_proc WHERE prosrc LIKE '%%old_rows%%'"
        ).all()
    joins = {name: re.findall(r"(\w+) JOIN (?:new_rows|old_rows)", body) for name, body in bodies}
    assert {"note_arrows", "count_edits_update", "count_submissions_update"} <= set(joins)
    assert {join for found in joins.values() for join in found} == {"FULL"}
