"""What follows from each SQLSTATE that means "away": replies to paid POSTs are kept, the API and the receiver ask to
come again, a command says one sentence, and nothing is half written.

A trigger sends the SQLSTATE at the very statement that matters; that servers send them, and when, is tested in
tests/database/test_database_trouble.py.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine

from tests.support.api_client import counts, edits, intake_app, lines, problem
from tests.support.command_line import CommandLine
from tests.support.lane_runner import Emulator, all_are, lane_runner, make_edits
from tests.support.provider_callbacks import Provider
from tests.support.receiving import deliver, rows, submitted

AWAY = ("08006", "25006", "25P03", "25P04", "40001", "40P01", "53100", "53200", "53300", "55P03", "57014", "57P01",
        "57P02", "57P03", "57P05", "58030")  # fmt: skip
FIRST_SECONDS = ("53100", "57014", "40P01", "40001", "57P03", "25P03", "53300")
"""What the statement that records replies meets, one after the other."""


@contextmanager
def refusing(database_url: str, when: str, *states: str) -> Iterator[None]:
    """The statement fails with each of these in turn, then no more; or always, where there is one alone."""
    listed = ", ".join(f"'{state}'" for state in states)
    place = f"least(nextval('troubles'), {len(states) + 1})" if len(states) > 1 else "1"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"""
            CREATE SEQUENCE troubles;
            CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $$
            DECLARE state text := (ARRAY[{listed}])[{place}];
            BEGIN
                IF state IS NOT NULL THEN RAISE EXCEPTION 'of the test' USING ERRCODE = state; END IF;
                RETURN NEW;
            END $$;
            CREATE TRIGGER trouble BEFORE {when} FOR EACH STATEMENT EXECUTE FUNCTION trouble();
        """)
        try:
            yield
        finally:
            connection.execute("DROP FUNCTION trouble CASCADE; DROP SEQUENCE troubles")


@pytest.mark.usefixtures("balanced")
def test_replies_to_paid_posts_are_kept(engine: Engine, emulator: Emulator, database_url: str, tmp_path: Path) -> None:
    emulator.mark(latency=0.05)
    make_edits(engine, [f"edit {n}" for n in range(4)])
    with refusing(database_url, "UPDATE OF request_id ON submissions", *FIRST_SECONDS):
        with lane_runner(engine, emulator, tmp_path, without_callbacks=True) as worker:
            worker.work_until(all_are(engine, stored=4))
        assert rows(engine, "SELECT last_value FROM troubles")[0][0] > len(FIRST_SECONDS)
    assert [row["charges"] for row in emulator.rows] == [1] * 4
    assert rows(engine, "SELECT count(*), count(request_id), max(attempt) FROM submissions") == [(4, 4, 1)]


def test_a_service_is_asked_to_come_again(engine: Engine, database_url: str) -> None:
    with intake_app(database_url) as app:
        client = app.test_client()
        for state in AWAY:
            with refusing(database_url, "INSERT ON edits", state):
                response = client.post("/v1/batches", json={"edits": edits(2)})
                assert "nothing was written" in problem(response, 503)["detail"], state
                assert response.headers["Retry-After"] == "5"
        assert counts(engine) == (0, 0)
        assert client.post("/v1/batches", json={"edits": edits(2)}).status_code == 201


def test_a_person_is_told_in_one_sentence(
    engine: Engine,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    manifest = tmp_path / "m.jsonl"
    manifest.write_bytes(lines(*edits(2)))
    run_cli = CommandLine(monkeypatch, capsys, tmp_path, DATABASE_URL=database_url, REDIS_URL="redis://127.0.0.1:1/0")
    for state in AWAY:
        with refusing(database_url, "INSERT ON edits", state):
            said = run_cli("submit", manifest)
            assert (said.code, said.out, said.err.count("\n")) == (2, "", 1), state
            assert "The database " in said.err
    assert counts(engine) == (0, 0)
    assert run_cli("submit", manifest).code == 0


def test_a_callback_comes_again(client: FlaskClient, provider: Provider, engine: Engine, database_url: str) -> None:
    (submission,) = submitted(engine)
    for state in AWAY:
        with refusing(database_url, "INSERT ON callbacks", state):
            assert deliver(client, provider, submission.id, b"{}", "request-1").status_code == 503, state
    assert deliver(client, provider, submission.id, b"{}", "request-1").status_code == 200
