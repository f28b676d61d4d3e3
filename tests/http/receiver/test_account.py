"""Which account is ours: learned once, and only from a request that our own reply has named."""

from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine

from models.claims import claim_polls
from tests.http.conftest import Away
from tests.support.factories import accept, request_id
from tests.support.provider_callbacks import ACCOUNT, Provider, ok
from tests.support.receiving import deliver, effect, kept, rejected, rows, running_app, submitted, unanswered, world
from webhook_receiver.callbacks import Receiver
from webhook_receiver.settings import ReceiverSettings

OTHER_ACCOUNT = "github|666"


@pytest.fixture
def settings(settings: ReceiverSettings) -> ReceiverSettings:
    """Nobody has said which account is ours."""
    return settings.model_copy(update={"fal_user_id": None})


@pytest.fixture
def app(settings: ReceiverSettings) -> Iterator[Flask]:
    """The receiver of these settings."""
    with running_app(settings) as app:
        yield app


def account(engine: Engine) -> list[tuple]:
    return rows(engine, "SELECT user_id FROM provider_status WHERE user_id IS NOT NULL")


def test_learned_then_pinned(engine: Engine, client: FlaskClient, provider: Provider, app: Flask) -> None:
    """The first delivery about a request that our reply named tells who we are; from then on nobody else's is kept."""
    first, second = submitted(engine, 2)
    deliver(client, provider, first.id, ok("r"), "r", account=OTHER_ACCOUNT)
    assert kept(engine) == [("mismatch", first.id)]
    assert account(engine) == []

    deliver(client, provider, first.id, ok(request_id(first)), request_id(first))
    assert account(engine) == [(ACCOUNT,)]
    before = world(engine)
    body = ok(request_id(second))
    response = deliver(client, provider, second.id, body, request_id(second), account=OTHER_ACCOUNT)

    assert response.status_code == 403
    assert world(engine) == before
    receiver: Receiver = app.extensions["darkroom"]
    receiver.rejections.write()
    assert rejected(engine) == {"other_account": 1}
    assert effect(deliver(client, provider, second.id, body, request_id(second))) == "applied"


def test_who_knows_a_token_first_pins_nobody(engine: Engine, client: FlaskClient, provider: Provider) -> None:
    """A stranger's request under our token, before our reply was read: nothing of its body is believed, however often
    it comes, the provider is asked instead; and our own delivery still teaches our name."""
    stolen, other = unanswered(engine, 2)
    for _ in range(3):
        deliver(client, provider, stolen.id, ok("theirs"), "theirs", account=OTHER_ACCOUNT)

    assert account(engine) == []
    assert rows(engine, "SELECT outcome FROM submissions WHERE outcome IS NOT NULL") == []
    assert rows(engine, "SELECT FROM images") == []
    with engine.begin() as connection:
        assert [due.request_id for due in claim_polls(connection, limit=10, lease=60)] == ["theirs"]
        connection.exec_driver_sql(
            "UPDATE submissions SET request_id = 'ours', accepted_at = now() WHERE id = %s", (other.id,)
        )
    assert effect(deliver(client, provider, other.id, ok("ours"), "ours")) == "applied"
    assert account(engine) == [(ACCOUNT,)]


def test_our_own_reply_takes_the_place_of_what_a_stranger_named(
    engine: Engine, client: FlaskClient, provider: Provider
) -> None:
    """Else who knows a token first has our edit wait for a request of his, and what we paid for is never fetched."""
    (stolen,) = unanswered(engine, 1)
    deliver(client, provider, stolen.id, ok("theirs"), "theirs", account=OTHER_ACCOUNT)
    with engine.begin() as connection:
        accept(connection, [stolen])
    assert rows(engine, "SELECT request_id FROM submissions") == [(request_id(stolen),)]
    assert effect(deliver(client, provider, stolen.id, ok(request_id(stolen)), request_id(stolen))) == "applied"
    assert account(engine) == [(ACCOUNT,)]
    assert rows(engine, "SELECT state FROM edits") == [("ready",)]


def test_a_poll_that_was_faster_does_not_keep_us_nameless(
    engine: Engine, client: FlaskClient, provider: Provider
) -> None:
    """A delivery that comes too late to move anything still tells who we are."""
    (one,) = submitted(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            """
            UPDATE submissions SET outcome = 'failed', learned_by = 'poll', due_at = NULL, completed_at = now(),
            error_type = 'internal_error'
            """
        )
    assert effect(deliver(client, provider, one.id, ok(request_id(one)), request_id(one))) == "late"
    assert account(engine) == [(ACCOUNT,)]


def test_what_is_about_nothing_of_ours_is_counted_not_kept(
    engine: Engine, client: FlaskClient, provider: Provider, app: Flask
) -> None:
    """Anybody with an account at the provider can name our address: until ours is known, that fills no disk."""
    for number in range(3):
        name = f"r-{number}"
        assert effect(deliver(client, provider, "x", ok(name), name, account=OTHER_ACCOUNT)) == "orphan"
    receiver: Receiver = app.extensions["darkroom"]
    receiver.rejections.write()

    assert kept(engine) == []
    assert rejected(engine) == {"orphan_before_account_known": 3}
    assert account(engine) == []


def test_learned_once(engine: Engine, client: FlaskClient, provider: Provider) -> None:
    """Once the name is known no delivery writes to the one row that all of them would wait for."""
    first, second = submitted(engine, 2)
    deliver(client, provider, first.id, ok(request_id(first)), request_id(first))
    with engine.begin() as connection:
        connection.exec_driver_sql("SELECT FROM provider_status FOR UPDATE")  # whoever writes there now would wait
        assert effect(deliver(client, provider, second.id, ok(request_id(second)), request_id(second))) == "applied"


def test_learned_account_outlives_the_process(
    engine: Engine, client: FlaskClient, provider: Provider, settings: ReceiverSettings
) -> None:
    """What one process learned holds for the next."""
    (one,) = submitted(engine)
    deliver(client, provider, one.id, ok(request_id(one)), request_id(one))

    with running_app(settings) as other:
        response = deliver(other.test_client(), provider, "x", ok("r"), "r", account=OTHER_ACCOUNT)

    assert response.status_code == 403


def test_unknown_account_while_the_database_is_away(
    client: FlaskClient, provider: Provider, database_away: Away
) -> None:
    """Nobody can say whose delivery it is: it is to come again."""
    with database_away():
        assert deliver(client, provider, "x", ok("r"), "r").status_code == 503
