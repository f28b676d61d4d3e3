"""What one delivery does to us: the ruling table, against the real database and a real key server."""

import hashlib
import json
import threading
from datetime import UTC, datetime

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine

from models.claims import claim_polls
from models.deliveries import REQUEST_ID, SIGNED
from models.record_reports import record_reports
from models.states import LearnedBy
from tests.support.factories import POLICY, answer, request_id, states, success, unbalanced
from tests.support.provider_callbacks import Provider, ok, refused
from tests.support.receiving import deliver, deliveries, effect, kept, rows, submitted, unanswered, world
from webhook_receiver.signature import verify

UNREADABLE = [b"", b"\xff\xfe\x00\x80 not text", b"[]", b"null", b'{"status": "OK"}', b"[" * 5000, b'{"request_id": "r']


def due_for_poll(engine: Engine) -> list[str]:
    with engine.begin() as connection:
        return [due.request_id for due in claim_polls(connection, limit=10, lease=60)]


def test_success_is_applied(engine: Engine, client: FlaskClient, provider: Provider) -> None:
    """A success ends the submission, makes its edit ready and notes its images, waiting."""
    (one,) = submitted(engine)

    assert effect(deliver(client, provider, one.id, ok(request_id(one), images=2), request_id(one))) == "applied"

    assert kept(engine) == [("applied", one.id)]
    assert rows(engine, "SELECT outcome, learned_by, images_returned, cost::text FROM submissions") == [
        ("succeeded", "callback", 2, "0.06")
    ]
    assert rows(engine, "SELECT state FROM edits") == [("ready",)]
    assert rows(engine, "SELECT index, state, url, file_size, width FROM images ORDER BY index") == [
        (0, "waiting", "https://v3b.fal.media/files/b/x/0.png", 1234, 2048),
        (1, "waiting", "https://v3b.fal.media/files/b/x/1.png", 1234, 2048),
    ]


def test_failure_is_applied(engine: Engine, client: FlaskClient, provider: Provider) -> None:
    """A refusal fails the edit with the provider's own word."""
    (one,) = submitted(engine)

    assert effect(deliver(client, provider, one.id, refused(request_id(one)), request_id(one))) == "applied"

    assert rows(engine, "SELECT state, errors -> 0 ->> 'type' FROM edits") == [("failed", "content_policy_violation")]


def test_delivery_heals_an_unknown_submit(engine: Engine, client: FlaskClient, provider: Provider) -> None:
    """A request id that nobody knew, with the token of a submission that has none: applied, the id is kept."""
    (one,) = unanswered(engine)

    assert effect(deliver(client, provider, one.id, ok("never seen"), "never seen")) == "applied"

    assert rows(engine, "SELECT request_id, outcome FROM submissions") == [("never seen", "succeeded")]
    assert rows(engine, "SELECT state FROM edits") == [("ready",)]


@pytest.mark.parametrize("body", [ok("r", 3), b" " + ok("r") + b"\n\n", *UNREADABLE, bytes(range(256)) * 300])
def test_delivery_is_kept_verbatim(body: bytes, engine: Engine, client: FlaskClient, provider: Provider) -> None:
    """Byte for byte, with its hash and what signs it: whoever has the keys can verify it again."""
    (one,) = unanswered(engine)
    before = datetime.now(UTC)

    response = deliver(client, provider, one.id, body, "r", age=100)

    assert response.status_code == 200
    ((token, request, signed_at, received_at, sha256),) = rows(
        engine, "SELECT coalesce(token, submission_id::text), request_id, signed_at, received_at, sha256 FROM callbacks"
    )
    (found,) = deliveries(engine)
    headers = found.headers
    assert found.body == body
    assert verify(found.body, headers, [bytes(provider.key.verify_key)], received_at).signed_at == signed_at
    assert sha256 == hashlib.sha256(body).hexdigest()
    assert (token, request) == (str(one.id), "r")
    assert headers["x-fal-webhook-timestamp"] == str(int(signed_at.timestamp()))
    assert len(headers["x-fal-webhook-signature"]) == 128
    assert abs((before - signed_at).total_seconds() - 100) < 2
    assert abs((received_at - before).total_seconds()) < 5


def test_odd_headers_do_no_harm(engine: Engine, client: FlaskClient, provider: Provider) -> None:
    """A header that is no ASCII does not lose the delivery."""
    (one,) = submitted(engine)
    body = ok(request_id(one))
    headers = {**provider.headers(body, request_id(one)), "X-Odd": "caf\xe9 \x80"}

    assert effect(client.post(f"/webhooks/fal/{one.id}", data=body, headers=headers)) == "applied"

    assert set(deliveries(engine)[0].headers) == {REQUEST_ID, *SIGNED}


def test_second_delivery_is_a_duplicate(engine: Engine, client: FlaskClient, provider: Provider) -> None:
    """The same delivery again, or another verdict after it, moves nothing."""
    (one,) = submitted(engine)
    deliver(client, provider, one.id, ok(request_id(one)), request_id(one))
    before = world(engine)

    assert effect(deliver(client, provider, one.id, ok(request_id(one)), request_id(one))) == "duplicate"
    assert effect(deliver(client, provider, one.id, refused(request_id(one)), request_id(one))) == "duplicate"

    assert world(engine) == before
    assert kept(engine) == [("applied", one.id), ("duplicate", one.id), ("duplicate", one.id)]


def test_delivery_after_a_poll_is_late(engine: Engine, client: FlaskClient, provider: Provider) -> None:
    """Who asked first wins; the delivery that follows is kept and moves nothing."""
    (one,) = submitted(engine)
    with engine.begin() as connection:
        record_reports(connection, [answer(one, success(), LearnedBy.POLL)], POLICY)
    before = world(engine)

    assert effect(deliver(client, provider, one.id, ok(request_id(one)), request_id(one))) == "late"

    assert world(engine) == before


@pytest.mark.parametrize(
    "token",
    [
        "6a3e5e3c-0000-4000-8000-000000000001",
        "not-a-uuid",
        "0",
        "%00",
        "{token}%00%00",
        "..",
        "' OR 1=1 --",
        "%F0%9F%A6%8A",
        "%ff%fe",
        "x" * 5_000,
        "1" * 200,
    ],
    ids=lambda token: token[:20],
)
@pytest.mark.parametrize("body", [ok("r"), ok("other"), UNREADABLE[1]], ids=["good", "disagreeing", "unreadable"])
def test_token_that_is_not_ours_is_an_orphan(
    token: str, body: bytes, engine: Engine, client: FlaskClient, provider: Provider
) -> None:
    """Whatever stands in the path and whatever the body says: kept, without a submission, and nothing moves."""
    submitted(engine)
    before = world(engine)

    assert (
        effect(deliver(client, provider, token.format(token="6a3e5e3c-0000-4000-8000-000000000001"), body, "r"))
        == "orphan"
    )

    assert world(engine) == before
    assert kept(engine) == [("orphan", None)]
    assert rows(engine, "SELECT length(token) <= 200 FROM callbacks") == [(True,)]


def test_other_request_id_is_a_mismatch(engine: Engine, client: FlaskClient, provider: Provider) -> None:
    """A submission whose request id is known is moved by no other request."""
    (one,) = submitted(engine)
    before = world(engine)

    assert effect(deliver(client, provider, one.id, ok("another"), "another")) == "mismatch"

    assert world(engine) == before
    assert kept(engine) == [("mismatch", one.id)]


@pytest.mark.parametrize("known", [True, False])
def test_header_and_body_that_disagree_are_a_mismatch(
    known: bool, engine: Engine, client: FlaskClient, provider: Provider
) -> None:
    """One request in the signed header, another in the body: neither is believed, nor revealed."""
    (one,) = submitted(engine) if known else unanswered(engine)
    before = world(engine)

    assert effect(deliver(client, provider, one.id, ok("another"), request_id(one))) == "mismatch"
    assert effect(deliver(client, provider, one.id, ok(request_id(one)), "another")) == "mismatch"

    assert world(engine) == before
    assert kept(engine) == [("mismatch", one.id)] * 2


@pytest.mark.parametrize("age", [0, 400], ids=["fresh", "stale"])
def test_request_id_of_another_submission_is_a_mismatch(
    age: int, engine: Engine, client: FlaskClient, provider: Provider
) -> None:
    """A borrowed request id heals nothing: it belongs to the submission that carries it."""
    (owner,) = submitted(engine)
    (one,) = unanswered(engine)
    before = world(engine)

    response = deliver(client, provider, one.id, ok(request_id(owner)), request_id(owner), age=age)

    assert effect(response) == "mismatch"
    assert world(engine) == before


@pytest.mark.parametrize("age", [310, -310, 86_400])
def test_stale_delivery_only_reveals_its_request(
    age: int, engine: Engine, client: FlaskClient, provider: Provider
) -> None:
    """It may be a replay: its verdict is not believed, its signed request id is asked about at once."""
    (one,) = unanswered(engine)

    assert effect(deliver(client, provider, one.id, ok("r"), "r", age=age)) == "stale"

    assert kept(engine) == [("stale", one.id)]
    assert rows(engine, "SELECT state FROM edits") == [("submitted",)]
    assert rows(engine, "SELECT request_id, outcome, cost FROM submissions") == [("r", None, None)]
    assert rows(engine, "SELECT count(*) FROM images") == [(0,)]
    assert due_for_poll(engine) == ["r"]


@pytest.mark.parametrize("body", UNREADABLE)
def test_unreadable_delivery_only_reveals_its_request(
    body: bytes, engine: Engine, client: FlaskClient, provider: Provider
) -> None:
    """A signed body that says nothing we know is kept, and its request is asked about at once."""
    (one,) = unanswered(engine)

    assert effect(deliver(client, provider, one.id, body, "r")) == "unreadable"

    assert rows(engine, "SELECT request_id, outcome FROM submissions") == [("r", None)]
    assert due_for_poll(engine) == ["r"]


def test_known_request_is_asked_about_at_once(engine: Engine, client: FlaskClient, provider: Provider) -> None:
    """Where the request id is known already, a stale delivery or one without payload brings the poll forward."""
    stale, empty = submitted(engine, 2)
    assert due_for_poll(engine) == []
    nothing = json.dumps({"request_id": request_id(empty), "status": "OK", "payload": None}).encode()

    deliver(client, provider, stale.id, ok(request_id(stale)), request_id(stale), age=400)
    assert effect(deliver(client, provider, empty.id, nothing, request_id(empty))) == "applied"

    assert sorted(due_for_poll(engine)) == sorted([request_id(stale), request_id(empty)])


def test_stale_delivery_of_what_is_known_is_a_duplicate(
    engine: Engine, client: FlaskClient, provider: Provider
) -> None:
    """A replay after the fact opens nothing again."""
    (one,) = submitted(engine)
    deliver(client, provider, one.id, ok(request_id(one)), request_id(one))
    before = world(engine)

    assert effect(deliver(client, provider, one.id, ok(request_id(one)), request_id(one), age=400)) == "duplicate"

    assert world(engine) == before


def test_forty_deliveries_twice_from_eight_threads(engine: Engine, app: Flask, provider: Provider) -> None:
    """Each of forty is applied exactly once and found known once; every account balances."""
    submissions = submitted(engine, 20) + unanswered(engine, 20)
    letters = [(one.id, request_id(one)) for one in submissions] * 2
    effects: list[tuple[object, str]] = []

    def postman(number: int) -> None:
        client = app.test_client()
        for token, request in letters[number::8]:
            effects.append((token, effect(deliver(client, provider, token, ok(request, images=2), request))))

    threads = [threading.Thread(target=postman, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(effects, key=str) == sorted(
        [(one.id, word) for one in submissions for word in ("applied", "duplicate")], key=str
    )
    with engine.connect() as connection:
        assert states(connection) == {"ready": 40}
        assert unbalanced(connection) == []
    assert rows(engine, "SELECT count(*), sum(cost)::text FROM submissions WHERE outcome = 'succeeded'") == [
        (40, "2.40")
    ]
    assert rows(engine, "SELECT count(*) FROM images") == [(80,)]
