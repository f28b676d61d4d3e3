"""What a person sees first: is the account paused, what stopped the batch, and was its caller told?"""

import pytest
from sqlalchemy import Connection, Engine

from cli.batches import watch_batches
from cli.batches.progress import progress_of
from models.provider import pause
from models.record_reports import record_reports
from models.states import Criterion
from models.transitions import DenialCount, NextPoll, cancel_batch, schedule_poll, settle_batches
from models.verdict import Retry
from tests.support.command_line import CommandLine
from tests.support.factories import POLICY, answer, claim, failure, make_batch, make_submitted, success

HOOK = "https://example.com/hook"


def ended(connection: Connection, **header: object) -> None:
    """A batch that failed and was finished."""
    [submission] = make_submitted(connection, **header)
    record_reports(connection, [answer(submission, failure("no_images", Retry.NEVER))], POLICY)
    settle_batches(connection)


@pytest.mark.parametrize("criterion", list(Criterion))
def test_why_the_rest_was_cancelled(run_cli: CommandLine, engine: Engine, criterion: Criterion) -> None:
    """Each criterion is a sentence in the status, a word in the list, a reason in the watching."""
    with engine.begin() as connection:
        cancel_batch(connection, make_batch(connection), criterion=criterion)
        settle_batches(connection)
    assert "; the rest was cancelled\n" in run_cli("status", "last").out
    assert f"stopped by its {criterion}" in run_cli("batches").out
    watched = run_cli("watch", "last")
    assert (watched.code, "stopped: " in watched.out) == (1, True)
    assert run_cli("status", "last", "--json").json["broken_criterion"] == criterion


def test_paused_account_comes_first(run_cli: CommandLine, engine: Engine) -> None:
    """The reason, since when, and the next try; in the list, in the status, in JSON."""
    with engine.begin() as connection:
        make_batch(connection)
        pause(connection, "rate_limited", "rate_limited: 429 Too many requests", retry_after=300)
    first = run_cli("status", "last").out.splitlines()[0]
    assert first.startswith("provider  paused since ")
    assert ", rate_limited: 429 Too many requests; next try " in first
    assert first.endswith(")")
    assert run_cli("batches").out.startswith("The provider's account is paused since ")
    shown = run_cli("status", "last", "--json").json
    assert (shown["provider"]["reason"], shown["provider_paused"]) == ("rate_limited", "rate_limited")
    assert run_cli("batches", "--json").lines[0]["provider_paused"] == "rate_limited"


def test_watching_says_why_nothing_moves(engine: Engine) -> None:
    """Not a rate, not silence."""
    with engine.begin() as connection:
        batch_id = make_batch(connection)
        pause(connection, "outage", "", retry_after=300)
    row = progress_of(engine, str(batch_id))
    assert "account is paused: outage" in watch_batches._outlook(row)


def test_ceiling_of_cost(run_cli: CommandLine, engine: Engine) -> None:
    """What is committed stands beside what is spent and what may be."""
    with engine.begin() as connection:
        first, _ = make_submitted(connection, 2, max_cost="0.5")
        record_reports(connection, [answer(first, success())], POLICY)
    assert "$0.03 for 2 submissions; $0.06 of at most $0.50 committed" in run_cli("status", "last").out
    shown = run_cli("status", "last", "--json").json
    assert (shown["max_cost"], shown["committed"], shown["cost"]) == (0.5, 0.06, 0.03)


def test_was_the_caller_told(run_cli: CommandLine, engine: Engine) -> None:
    """The last notification: owed, tried, delivered, given up; no line where nobody is to be told."""
    with engine.begin() as connection:
        ended(connection)
    assert "notified" not in run_cli("status", "last").out
    with engine.begin() as connection:
        ended(connection, notify_url=HOOK)
    assert "notified  batch.finished waits to be delivered\n" in run_cli("status", "last").out
    for change, shown in (
        ("attempt = 2, last_status = 500, last_error = 'answered 500'", "not delivered after 2 attempts: answered 500"),
        ("attempt = 3, delivered_at = now(), due_at = NULL, last_error = NULL", "batch.finished delivered 2"),
        ("delivered_at = NULL, due_at = NULL, last_error = 'gone'", "batch.finished given up after 3 attempts: gone"),
    ):
        with engine.begin() as connection:
            connection.exec_driver_sql(f"UPDATE notifications SET {change}")
        assert shown in run_cli("status", "last").out
    shown = run_cli("status", "last", "--json").json["notification"]
    assert (shown["event"], shown["attempt"], shown["last_error"]) == ("batch.finished", 3, "gone")


def test_why_an_outcome_is_still_unknown(run_cli: CommandLine, engine: Engine) -> None:
    """The reason, how many, and when the provider is asked again; in the status and in JSON."""
    with engine.begin() as connection:
        make_batch(connection, 2)
        submissions = claim(connection)
        schedule_poll(
            connection, [NextPoll(one.id, 300, "the listing answered 403", DenialCount.ADD) for one in submissions]
        )
    shown = run_cli("status", "last").out
    assert "outcome unknown" in shown
    assert "2 submissions: the listing answered 403; next question " in shown
    (shown,) = run_cli("status", "last", "--json").json["unanswered"]
    assert (shown["state"], shown["submissions"]) == ("outcome unknown", 2)
