"""`darkroom notify`: a message that was delivered, or given up, goes out again."""

import json
from uuid import UUID

import pytest
from psycopg.types.json import Jsonb
from sqlalchemy import Engine

from cli.batches.notify import without_secrets
from tests.support.factories import make_batch
from tests.support.running_stack import darkroom

URL = "https://me:hunter2@example.com/hook?token=hunter3"


def make_notified_batch(engine: Engine, *events: str, notify_url: str | None = URL) -> UUID:
    """A batch whose caller has been told of these events: delivered, or given up after the tenth attempt."""
    with engine.begin() as connection:
        batch_id = make_batch(connection, notify_url=notify_url)
        for number, event in enumerate(events):
            connection.exec_driver_sql(
                """
                INSERT INTO notifications (batch_id, event, url, payload, attempt, due_at, delivered_at, last_status,
                                           last_error, created_at)
                VALUES (%s, %s, %s, %s, 10, NULL, CASE WHEN %s THEN now() END, 500, 'the receiver answered 500',
                        now() + %s * interval '1 s')
                """,
                (batch_id, event, URL, Jsonb({}), event == "batch.failed", number),
            )
    return batch_id


def due(engine: Engine) -> list[tuple[str, int, bool, bool]]:
    query = "SELECT event, attempt, due_at <= now(), delivered_at IS NULL FROM notifications ORDER BY created_at"
    with engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query)]


def test_newest_goes_out_again(engine: Engine, database_url: str) -> None:
    """The newest notification of the batch is due again from its first attempt; the others stay as they are."""
    batch_id = make_notified_batch(engine, "batch.failed", "batch.finished")
    answer = darkroom("notify", str(batch_id)[:13], DATABASE_URL=database_url)
    assert answer.returncode == 0, answer.stderr
    place, notification = "https://***@example.com/hook?***", "until now: 10 attempts, the receiver answered 500"
    assert answer.stdout == f"batch.finished  {place}  due again; {notification}\n"
    assert due(engine) == [("batch.failed", 10, None, False), ("batch.finished", 0, True, True)]


def test_all_go_out_again(engine: Engine, database_url: str) -> None:
    """--all takes every one, delivered ones too; one object a line, and no password among it."""
    batch_id = make_notified_batch(engine, "batch.failed", "batch.finished")
    answer = darkroom("notify", "last", "--all", "--json", DATABASE_URL=database_url)
    lines = [json.loads(line) for line in answer.stdout.splitlines()]
    assert [(line["event"], line["attempt"], line["last_status"]) for line in lines] == [
        ("batch.failed", 10, 500),
        ("batch.finished", 10, 500),
    ]
    assert {line["batch_id"] for line in lines} == {str(batch_id)}
    assert "hunter" not in answer.stdout
    assert [row[1:] for row in due(engine)] == [(0, True, True)] * 2


@pytest.mark.parametrize(
    ("notify_url", "sentence"), [(None, "has no notify_url"), (URL, "has a notify_url, but has not ended yet")]
)
def test_nobody_to_tell(notify_url: str | None, sentence: str, engine: Engine, database_url: str) -> None:
    """One sentence, exit code 2."""
    make_notified_batch(engine, notify_url=notify_url)
    answer = darkroom("notify", "last", DATABASE_URL=database_url)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert sentence in answer.stderr
    assert len(answer.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://example.com:8443/a/b", "https://example.com:8443/a/b"),
        ("https://u:p@example.com/a?b=c&d#e", "https://***@example.com/a?***"),
        ("http://u@p@[::1]:80/", "http://***@[::1]:80/"),
        ("http://[bad", "***"),
    ],
)
def test_address_as_it_is_shown(url: str, shown: str) -> None:
    """Without user, password, query and fragment."""
    assert without_secrets(url) == shown
