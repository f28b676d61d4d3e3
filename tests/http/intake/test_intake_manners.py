"""Who may ask, how often, and in what form every refusal comes."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine
from structlog.testing import LogCapture

from core.errors import SettingsError
from core.settings import load
from intake.api_keys import ApiKeys
from intake.app import create_app
from intake.settings import IntakeSettings
from tests.support.api_client import ALICE, BOB, EDIT, KEYS, hand_in, intake_app, lines, problem
from tests.support.receiving import rows


@pytest.fixture
def app(database_url: str) -> Iterator[Flask]:
    with intake_app(database_url, darkroom_api_keys=KEYS, bind_host="0.0.0.0", intake_rate="20/minute") as app:
        yield app


@pytest.fixture
def stranger(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Basic {ALICE}",
        ALICE,
        f"Bearer {ALICE}x",
        f"Bearer {ALICE[:-1]}",
        "Bearer alice",
    ],
)
def test_strangers_are_refused(header: str | None, stranger: FlaskClient) -> None:
    """No key, half a key, another scheme: 401 with how to ask, on every route under /v1."""
    response = stranger.get("/v1/batches", headers={} if header is None else {"Authorization": header})
    problem(response, 401)
    assert response.headers["WWW-Authenticate"] == "Bearer"


def test_document_and_health_are_open(stranger: FlaskClient) -> None:
    """Whoever writes a client, and whatever looks after the process, needs no key."""
    for path in ("/livez", "/openapi.json", "/docs"):
        assert stranger.get(path).status_code == 200


def test_page_fetches_nothing_from_elsewhere(stranger: FlaskClient) -> None:
    """What the page loads is served here."""
    page = stranger.get("/docs").text
    assert "//" not in page.replace("<!DOCTYPE", "")
    for asset in ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png"):
        assert f"docs/{asset}" in page
        with stranger.get(f"/docs/{asset}") as response:
            assert response.status_code == 200
    problem(stranger.get("/docs/../app.py"), 404)


def test_pace_is_each_clients_own(app: Flask) -> None:
    """Over the rate: 429 and when to come again; others are not held up, and health is always told."""
    client = app.test_client()
    statuses = [client.get("/v1/batches", headers={"Authorization": f"Bearer {ALICE}"}).status_code for _ in range(21)]

    response = client.get("/v1/batches", headers={"Authorization": f"Bearer {ALICE}"})

    assert statuses[:20] == [200] * 20
    assert problem(response, 429)
    assert 0 < int(response.headers["Retry-After"]) <= 60
    assert client.get("/v1/batches", headers={"Authorization": "Bearer bob-key-93ac"}).status_code == 200
    assert client.get("/livez").status_code == 200
    assert [client.get("/v1/batches").status_code for _ in range(21)].count(401) == 20


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/v1/batches/not-a-uuid", 404),
        ("GET", "/v1/batches/%00", 404),
        ("GET", "/v1/batches/" + "1" * 5000, 404),
        ("GET", "/v1/batches/00000000-0000-0000-0000-00000000000g/edits", 404),
        ("DELETE", "/v1/batches", 405),
        ("PUT", "/v1/batches/6a3e5e3c-0000-4000-8000-000000000001", 405),
        ("GET", "/v1//batches", 404),
    ],
)
def test_frameworks_refuse_in_the_same_form(method: str, path: str, status: int, stranger: FlaskClient) -> None:
    """What never reaches a route is a problem too, and never a redirect."""
    response = stranger.open(path, method=method, headers={"Authorization": f"Bearer {ALICE}"})
    problem(response, status)
    assert ("Allow" in response.headers) == (status == 405)


def test_our_own_error_tells_nothing_but_its_id(stranger: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer has an id; the log has the id and where it happened; neither has what was in somebody's hands."""

    def broken(*_: object) -> None:
        raise RuntimeError("SELECT secret_prompt FROM edits")

    capture = LogCapture()
    monkeypatch.setattr("intake.problems.log", structlog.wrap_logger(None, processors=[capture]))
    monkeypatch.setattr("intake.queries.list_batches", broken)
    response = stranger.get("/v1/batches", headers={"Authorization": f"Bearer {ALICE}"})

    found, logged = problem(response, 500), repr(capture.entries)
    assert found["instance"] in logged
    assert "broken" in logged
    assert "secret_prompt" not in response.text + logged


def test_only_this_machine_is_served_without_keys(database_url: str) -> None:
    """Without keys a name that leads here, as of a page in somebody's browser, is not answered."""
    with intake_app(database_url) as app:
        client = app.test_client()
        hand_in(client)
        for host in ("127.0.0.1:8001", "[::1]:8001", "localhost"):
            assert client.get("/v1/batches", headers={"Host": host}).status_code == 200
        problem(client.get("/v1/batches", headers={"Host": "evil.example"}), 400)
        problem(client.post("/v1/batches", json={"edits": [EDIT]}, headers={"Host": "evil.example:8001"}), 400)


FOREIGN = [
    {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-site"},
    {"Origin": "http://localhost", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "null", "Sec-Fetch-Site": "cross-site"},  # a frame in a sandbox, a file
    {"Sec-Fetch-Site": "something-new"},
    {"Origin": "https://evil.example"},  # a browser of the years before Sec-Fetch-Site
    {"Origin": "http://localhost:3000"},
    {"Origin": "null"},
    {"Origin": ""},
]
OWN = [{}, {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}]


@pytest.mark.parametrize("keys", [None, KEYS])
def test_a_page_of_another_site_changes_nothing(database_url: str, engine: Engine, keys: str | None) -> None:
    """It makes the operator's browser send a POST, which needs no leave of ours; programs and our own page may."""
    with intake_app(database_url, darkroom_api_keys=keys) as app:
        client, key = app.test_client(), {"Authorization": f"Bearer {ALICE}"}
        made = client.post("/v1/batches", json={"edits": [EDIT]}, headers=key).get_json()["links"]["self"]
        for path in (f"{made}/{name}" for name in ("cancel", "pause", "resume", "retry", "edits")):
            for headers in FOREIGN:
                problem(client.post(path, headers=headers | key), 403)
        problem(client.post("/v1/batches", data=lines({}, EDIT), headers=FOREIGN[0] | key), 403)
        problem(client.patch(made, json={"priority": 1}, headers=FOREIGN[0] | key), 403)
        assert rows(engine, "SELECT cancelled_at, paused_at, (SELECT count(*) FROM edits) FROM batches") == [
            (None, None, 1)
        ]
        assert client.get(made, headers=FOREIGN[0] | key).status_code == 200
        for headers in OWN:
            for name in ("pause", "resume"):
                assert client.post(f"{made}/{name}", headers=headers | key).status_code == 200


@pytest.mark.parametrize(
    ("host", "keys", "reason"),
    [
        ("0.0.0.0", None, "DARKROOM_API_KEYS is not set"),
        ("192.0.2.7", "", "DARKROOM_API_KEYS is not set"),
        ("example.com", " , ", "DARKROOM_API_KEYS is not set"),
        ("127.0.0.1", "alice", "comma list of name:key"),
        ("127.0.0.1", ":key", "comma list of name:key"),
        ("127.0.0.1", "a:twelve-chars,b:", "comma list of name:key"),
        ("127.0.0.1", "a:twelve-ch\u00e1rs", "ASCII"),
        ("127.0.0.1", "a:twelve-chars,b:twelve-chars", "key of another client"),
        ("127.0.0.1", "a:x", "fewer than 12 characters"),
        ("127.0.0.1", "a:twelve-chars,b:eleven-char", "b has a key of fewer than 12 characters"),
    ],
)
def test_start_is_refused_in_one_sentence(host: str, keys: str | None, reason: str) -> None:
    """Nobody is let in by a mistake in the settings, and no key is repeated in what is said about it."""
    settings = IntakeSettings(database_url="postgresql://x/y", bind_host=host, darkroom_api_keys=keys)
    with pytest.raises(SettingsError, match=reason) as caught:
        create_app(settings)
    assert "\n" not in str(caught.value)


def test_keys_come_from_a_file_and_stay_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NAME_FILE works; one client may have two keys, so that they can be changed; no key is shown anywhere."""
    one, two, colon = "the-first-key", "the-second-key", "a:key:of:colons"
    (tmp_path / "keys").write_text(f"alice:{one},alice:{two},bob:{colon}\n")
    monkeypatch.setenv("DARKROOM_API_KEYS_FILE", str(tmp_path / "keys"))
    settings = load(IntakeSettings, database_url="postgresql://x/y")
    keys = ApiKeys(settings)

    found = [keys.client(f"Bearer {key}") for key in (one, two, colon, "another-one")]

    assert found == ["alice", "alice", "bob", None]
    assert two not in repr(settings) + repr(vars(keys))


@pytest.mark.parametrize("bound", ["", "high", "press:5", "5,6", "5,press:5,press:6", "5,press:", "40000", "1e3", "٣"])
def test_a_wrong_bound_on_priority_is_refused(bound: str) -> None:
    """As one sentence; an empty one is the default."""
    if not bound:
        assert load(IntakeSettings, database_url="postgresql://x/y", intake_priority_max=" 7 ")
        return
    with pytest.raises(SettingsError, match="INTAKE_PRIORITY_MAX is wrong"):
        load(IntakeSettings, database_url="postgresql://x/y", intake_priority_max=bound)


def test_nobody_goes_before_the_others_by_wishing(database_url: str, engine: Engine) -> None:
    """A client's bound holds at every route of the API: a new batch in either form, and a change; lower is free."""
    with intake_app(database_url, darkroom_api_keys=KEYS, intake_priority_max="10,bob:50") as app:
        alice, bob = app.test_client(), app.test_client()
        for client, key in ((alice, ALICE), (bob, BOB)):
            client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {key}"
        for priority, status in ((10, 201), (11, 422), (-9, 201)):
            batch = {"priority": priority, "edits": [EDIT]}
            assert alice.post("/v1/batches", json=batch).status_code == status
            lines = f'{{"priority": {priority}}}\n{json.dumps(EDIT)}\n'
            ndjson = {"data": lines, "content_type": "application/x-ndjson"}
            assert alice.post("/v1/batches", **ndjson).status_code == status
        path = hand_in(alice)["links"]["self"]
        refused = problem(alice.patch(path, json={"priority": 11}), 422)
        assert "10 at most for alice" in json.dumps(refused)
        assert alice.patch(path, json={"priority": 10}).json["priority"] == 10
        assert hand_in(bob, priority=50)
        assert bob.post("/v1/batches", json={"priority": 51, "edits": [EDIT]}).status_code == 422
    assert rows(engine, "SELECT max(priority), count(*) FROM batches") == [(50, 6)]


def test_a_wrong_rate_is_refused() -> None:
    """As one sentence."""
    with pytest.raises(SettingsError, match="600/minute"):
        load(IntakeSettings, database_url="postgresql://x/y", intake_rate="often")


def test_document_describes_every_route(app: Flask) -> None:
    """Every route under /v1 with its answers; a key is named as needed exactly there."""
    client = app.test_client()
    document = client.get("/openapi.json").json
    routes = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/v1")
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    operations = {
        (path, method): what for path, methods in document["paths"].items() for method, what in methods.items()
    }
    assert document["openapi"].startswith("3.1")
    assert routes | {("/livez", "get")} == set(operations)
    for (path, _), what in operations.items():
        assert what["summary"]
        assert ("security" in what) == path.startswith("/v1") == ("401" in what["responses"])
        assert "429" in what["responses"]
