"""What must never be read in a log: the tokens of submissions, which are what lets a callback in; keys; prompts."""

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from core.logs import configure_logs
from models.database import make_engine
from tests.support.lane_runner import KEY, Emulator, lane_runner, make_edits, stand
from tests.support.receiving import rows

SECRET_PROMPT = "a hat for the unreleased catalogue"
FAULTS = ("reset_after_accept", "nginx_502_after", "drop_webhook", "null_payload", "reset_before_accept")


@pytest.fixture
def fresh_loggers(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Each module's logger keeps the stream that it wrote to first, in a test before this one perhaps; and what it
    writes to here is closed afterwards."""
    forget_loggers()
    yield
    structlog.reset_defaults()
    forget_loggers()
    logging.basicConfig(handlers=[logging.NullHandler()], force=True)


def forget_loggers() -> None:
    for module in list(sys.modules.values()):
        logger = getattr(module, "log", None)
        if isinstance(logger, structlog._config.BoundLoggerLazyProxy):
            logger.__dict__.pop("bind", None)


@pytest.mark.usefixtures("fresh_loggers")
def test_no_token_in_a_log(
    engine: Engine, emulator: Emulator, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Lost replies, refused requests, cancels and unanswered polls: whatever is said about them names no token."""
    configure_logs()
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # the test's own server; granian keeps no such log
    batch = make_edits(engine, [f"{SECRET_PROMPT} [[fault:{kind}]]" for kind in FAULTS])
    make_edits(engine, [f"{SECRET_PROMPT} [[fail:content_policy_violation]]"])
    with lane_runner(
        engine, emulator, tmp_path, poll_after=0.2, submit_start_timeout=2, run_allowance=1, delivery_allowance=1
    ) as worker:
        worker.work_until(lambda: "submitted" in stand(engine))
        with engine.begin() as connection:
            connection.exec_driver_sql("UPDATE edits SET cancel_requested_at = now() WHERE batch_id = %s", (batch,))
            connection.exec_driver_sql("UPDATE submissions SET due_at = now() WHERE outcome IS NULL")
        worker.work_until(lambda: not {"submitted", "pending"} & set(stand(engine)))

    text = "".join(capfd.readouterr())
    assert "submit_failed" in text
    tokens = [str(row[0]) for row in rows(engine, "SELECT id FROM submissions")]
    assert tokens
    assert [token for token in tokens if token in text or token.replace("-", "") in text] == []
    assert SECRET_PROMPT not in text
    assert KEY not in text


def test_a_database_error_shows_no_parameters(engine: Engine) -> None:
    """Its text ends in a log; the parameters are prompts, tokens and URLs."""
    ours = make_engine(engine.url.render_as_string(hide_password=False), application="test")
    with ours.connect() as connection, pytest.raises(DBAPIError) as caught:
        connection.exec_driver_sql("SELECT 1 / 0 WHERE %s <> ''", (SECRET_PROMPT,))
    ours.dispose()
    assert SECRET_PROMPT not in str(caught.value)
