"""Each finished batch is held against its rows once, and `accounting` tells what was found."""

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from models.audits import audit_batch, unaudited_batches
from models.due_work import RETENTION_DUE
from models.transitions import cancel_batch, retry_failed, settle_batches
from tests.support.factories import make_batch
from tests.support.finished_batches import audited, finished
from tests.support.receiving import rows

DIFFERENCE = "SELECT audit_difference FROM batches"
ACCOUNT = "SELECT difference FROM accounting WHERE identity = 'finished batches that differed from their rows'"


def due(engine: Engine) -> bool:
    """Whether the tick would start the lane."""
    return bool(rows(engine, RETENTION_DUE)[0][0])


def test_a_finished_batch_is_audited_once(engine: Engine) -> None:
    """It is due when it finishes, and no more afterwards."""
    with engine.begin() as connection:
        batch = make_batch(connection, 2)
        assert unaudited_batches(connection, 10) == []
        cancel_batch(connection, batch)
        settle_batches(connection)
    assert due(engine)
    audited(engine)
    assert not due(engine)
    assert rows(engine, "SELECT audit_difference, audited_at >= finished_at FROM batches") == [(None, True)]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ("UPDATE batch_counters SET stored = stored + 1", "counters = their rows"),
        ("UPDATE batch_counters SET cost = cost + 1", "counters = their rows"),
        ("UPDATE error_counters SET edits = edits + 1", "counters of errors = their rows"),
        ("UPDATE batches SET edit_count = edit_count + 1", "edits = their rows"),
        (
            "UPDATE images SET state = 'discarded' WHERE id = (SELECT min(id) FROM images)",
            "stored edits with an image that is not stored, or without any",
        ),
    ],
)
def test_a_difference_is_named(engine: Engine, wrong: str, named: str) -> None:
    """What does not agree stands on the batch and in `accounting`, until it is mended and audited again."""
    finished(engine, failed=1)
    assert rows(engine, DIFFERENCE) == [(None,)]
    with engine.begin() as connection:
        connection.exec_driver_sql(wrong)
        connection.exec_driver_sql("UPDATE batches SET audited_at = NULL")
    audited(engine)
    assert rows(engine, DIFFERENCE) == [(named,)]
    assert rows(engine, ACCOUNT) == [(1,)]


def test_opened_again_it_is_audited_again(engine: Engine) -> None:
    """A retry makes the audit void; the next one is due when the batch has finished again."""
    batch = finished(engine, failed=1)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE batches SET audit_difference = 'old'")
        assert retry_failed(connection, batch) == 1
    assert not due(engine)
    with engine.begin() as connection:
        cancel_batch(connection, batch)
        settle_batches(connection)
    assert due(engine)
    assert rows(engine, ACCOUNT) == [(0,)]
    audited(engine)
    assert rows(engine, DIFFERENCE) == [(None,)]


def test_a_change_meanwhile_makes_it_void(engine: Engine) -> None:
    """What was found of a batch that is opened again at this moment is not written down."""
    batch = finished(engine, failed=1)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE batches SET audited_at = NULL")
    serial = engine.connect().execution_options(isolation_level="REPEATABLE READ")
    with serial as connection, connection.begin() as transaction:
        (found,) = unaudited_batches(connection, 1)
        with engine.begin() as other:
            retry_failed(other, batch)
        with pytest.raises(OperationalError, match="could not serialize"):
            audit_batch(connection, found)
        transaction.rollback()
    assert rows(engine, "SELECT audited_at, finished_at FROM batches") == [(None, None)]
