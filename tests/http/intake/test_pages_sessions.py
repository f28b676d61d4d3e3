"""Who may look at the page: signing in and out, the cookie, and forms that somebody else made."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient
from itsdangerous import URLSafeTimedSerializer
from sqlalchemy import Engine

from intake.api_keys import ApiKeys
from intake.pages.sessions import COOKIE, LASTS
from intake.settings import IntakeSettings
from tests.support.api_client import ALICE, BOB, problem
from tests.support.pages import HTML, OLGA, create_batch, page_app, sign_in, token_of
from tests.support.receiving import rows

ELSEWHERE = [
    "//evil.example",
    "///evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "https://evil.example/",
    "evil.example",
    "/\t/evil.example",
    "javascript:alert(1)",
    "//[",
    "http://[",
    "",
    "/a\r\nSet-Cookie: a=b",
    "/a\0b",
]
NOBODYS = ["", "alice", ALICE[:-1], f"{ALICE}x", f"alice:{ALICE}", "a\0b", "ключ-ключ-ключ", "x" * 9000]
PROTOCOLS = [({}, False), ({"X-Forwarded-Proto": "https"}, True), ({"X-Forwarded-Proto": "http"}, False)]


@pytest.fixture
def app(database_url: str, tmp_path: Path) -> Iterator[Flask]:
    with page_app(database_url, tmp_path) as app:
        yield app


@pytest.fixture
def stranger(app: Flask) -> FlaskClient:
    return app.test_client()


def test_a_stranger_is_led_to_the_sign_in_and_back(stranger: FlaskClient) -> None:
    """A link that a colleague sent ends where it points to, after the key."""
    asked = stranger.get("/?state=paused&name=spring", headers=HTML)
    form = stranger.get(asked.headers["Location"], headers=HTML)
    done = stranger.post("/sign-in", data={"key": f" {ALICE} ", "next": "/?state=paused&name=spring"}, headers=HTML)

    assert asked.status_code == 302
    assert 'value="/?state=paused&amp;name=spring"' in form.text
    assert (done.status_code, done.headers["Location"]) == (303, "/?state=paused&name=spring")
    assert stranger.get("/", headers=HTML).status_code == 200
    assert stranger.get("/sign-in", headers=HTML).status_code == 302


@pytest.mark.parametrize("wanted", ELSEWHERE)
def test_signing_in_leads_nowhere_else(wanted: str, stranger: FlaskClient) -> None:
    """A link to our sign-in that ends on a page that looks like ours takes the next key."""
    assert stranger.get("/sign-in", query_string={"next": wanted}).status_code == 200
    done = stranger.post("/sign-in", data={"key": ALICE, "next": wanted})
    assert (done.status_code, done.headers["Location"]) == (303, "/")


@pytest.mark.parametrize(
    "key", ["", "alice", ALICE[:-1], f"{ALICE}x", "alice:" + ALICE, "a\0b", "ключ-ключ-ключ", "x" * 9000]
)
def test_nobodys_key_is_refused(key: str, stranger: FlaskClient) -> None:
    """Said on the form itself, with its status, and no cookie."""
    answer = stranger.post("/sign-in", data={"key": key}, headers=HTML)
    assert answer.status_code == 401
    assert "nobody's key" in answer.text
    assert 'role="alert"' in answer.text
    assert key not in answer.text or not key
    assert "Set-Cookie" not in answer.headers


def test_keys_cannot_be_tried_out_quickly(database_url: str, tmp_path: Path) -> None:
    """As on the API: over the rate of one address 429, as a page, with when to come again."""
    with page_app(database_url, tmp_path, intake_rate="5/minute") as app:
        stranger = app.test_client()
        statuses = [stranger.post("/sign-in", data={"key": f"guess-{n}"}, headers=HTML) for n in range(6)]
    assert [answer.status_code for answer in statuses] == [401] * 5 + [429]
    assert statuses[-1].mimetype == "text/html"
    assert int(statuses[-1].headers["Retry-After"]) > 0


def test_only_pages_count_as_requests(database_url: str, tmp_path: Path, engine: Engine) -> None:
    """A page comes with dozens of images; they use up nobody's rate, but strangers' tries for them do."""
    with engine.begin() as connection:
        batch = create_batch(connection, [{}], client="alice")
    with page_app(database_url, tmp_path, intake_rate="5/minute") as app:
        alice, stranger = sign_in(app, ALICE), app.test_client()
        path = f"/batches/{batch}/edits/0/inputs/0/thumbnail"
        assert {alice.get(path).status_code for _ in range(20)} == {200}
        assert [alice.get("/").status_code for _ in range(6)] == [200] * 5 + [429]
        assert [stranger.get(path).status_code for _ in range(5)][-1] == 429


@pytest.mark.parametrize(("proto", "secure"), PROTOCOLS)
def test_the_cookie_stays_where_it_belongs(proto: dict[str, str], secure: bool, stranger: FlaskClient) -> None:
    """No script reads it, no other site sends it with a form, and behind TLS it never goes out in the clear."""
    cookie = stranger.post("/sign-in", data={"key": ALICE}, headers=proto).headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "Path=/" in cookie
    assert "Domain" not in cookie
    assert ("Secure" in cookie) is secure
    assert ALICE not in cookie
    behind = stranger.post("/sign-in", data={"key": ALICE}, base_url="https://darkroom.example")
    assert "Secure" in behind.headers["Set-Cookie"]


@pytest.mark.parametrize("value", ["", "x", "ü", "a.b.c", ".." * 1500, '["a","b"]', "eyJhIjoxfQ.Zx.y"])
def test_a_cookie_that_is_not_ours_is_nobody(value: str, stranger: FlaskClient) -> None:
    """Led to the sign-in, and nothing breaks."""
    stranger.set_cookie(COOKIE, value)
    assert stranger.get("/", headers=HTML).status_code == 302


def test_a_cookie_signed_with_another_secret_is_nobody(app: Flask, stranger: FlaskClient) -> None:
    """Whoever knows the code, but not the keys, makes no session; nor does a cookie of another shape, well signed."""
    sessions = app.extensions["darkroom_page"].sessions
    own = URLSafeTimedSerializer(sessions._secret)
    for value in (URLSafeTimedSerializer(b"guess").dumps(["olga", "n"]), own.dumps("olga"), own.dumps([1])):
        stranger.set_cookie(COOKIE, str(value))
        assert stranger.get("/", headers=HTML).status_code == 302


def test_a_session_ends_by_itself(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """A week later a forgotten browser shows nothing."""
    alice = sign_in(app, ALICE)
    now = URLSafeTimedSerializer.default_signer(b"").get_timestamp()
    monkeypatch.setattr("itsdangerous.timed.TimestampSigner.get_timestamp", lambda _: now + LASTS + 5)
    assert alice.get("/", headers=HTML).status_code == 302


def test_a_session_ends_with_its_key(database_url: str, tmp_path: Path) -> None:
    """Bob's key is taken away and the intake started again: his cookie is nobody's, and the operator's lives on only
    where the keys are the same."""
    with page_app(database_url, tmp_path) as app:
        cookies = {key: sign_in(app, key).get_cookie(COOKIE) for key in (BOB, OLGA)}
    with page_app(database_url, tmp_path) as app:
        assert [_status(app, cookies[key]) for key in (BOB, OLGA)] == [200, 200]
    with page_app(database_url, tmp_path, darkroom_api_keys=f"alice:{ALICE}") as app:
        assert _status(app, cookies[BOB]) == 302


def _status(app: Flask, cookie: object) -> int:
    browser = app.test_client()
    browser.set_cookie(COOKIE, cookie.value)  # type: ignore[attr-defined]
    return browser.get("/", headers=HTML).status_code


def test_signing_out(app: Flask) -> None:
    """The cookie goes, and the next page asks for a key; a link of somebody else's signs nobody out."""
    alice = sign_in(app, ALICE)
    page = alice.get("/", headers=HTML)
    assert alice.get("/sign-out", headers=HTML).status_code == 405
    assert alice.post("/sign-out", headers=HTML).status_code == 403
    assert alice.post("/sign-out", data={"token": token_of(page)}).status_code == 303
    assert alice.get_cookie(COOKIE) is None
    assert alice.get("/", headers=HTML).status_code == 302


def test_signing_out_works_from_a_page_about_a_problem_too(app: Flask) -> None:
    """Its form is like every other page's."""
    alice = sign_in(app, ALICE)
    missing = alice.get(f"/batches/{uuid4()}", headers=HTML)
    assert missing.status_code == 404
    assert alice.post("/sign-out", data={"token": token_of(missing)}).status_code == 303


FORGED = [
    ({}, {}),
    ({"token": ""}, {}),
    ({"token": "0" * 64}, {}),
    ({"token": "ü\0"}, {}),
    (None, {"Origin": "https://evil.example"}),
    (None, {"Origin": "http://localhost:8001"}),
    (None, {"Origin": "http://["}),
    (None, {"Origin": "localhost"}),
    (None, {"Sec-Fetch-Site": "cross-site"}),
    (None, {"Sec-Fetch-Site": "same-site"}),
    (None, {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"}),
    (None, {"Origin": "null"}),
]
"""Forms (None: with the token of the session) and headers."""


@pytest.mark.parametrize(("form", "headers"), FORGED)
@pytest.mark.parametrize("keys", [True, False])
def test_a_form_of_somebody_else_does_nothing(
    form: dict[str, str] | None, headers: dict[str, str], keys: bool, database_url: str, engine: Engine, tmp_path: Path
) -> None:
    """A page elsewhere that the operator opens in the same browser cancels nothing; also where no keys are needed."""
    with engine.begin() as connection:
        batch = create_batch(connection, [{}], client="alice")
    settings = {} if keys else {"darkroom_api_keys": None, "darkroom_operator_keys": None}
    with page_app(database_url, tmp_path, **settings) as app:
        browser = sign_in(app, OLGA) if keys else app.test_client()
        question = browser.get(f"/batches/{batch}/cancel", headers=HTML)
        sent = {"token": token_of(question)} if form is None else form
        answer = browser.post(f"/batches/{batch}/cancel", data=sent, headers=HTML | headers)
        assert (answer.status_code, answer.mimetype) == (403, "text/html")
        assert rows(engine, "SELECT cancelled_at FROM batches") == [(None,)]
        own = {"token": token_of(question)}
        hidden = {"Origin": "null", "Sec-Fetch-Site": "same-origin"}  # of our page behind a proxy with no-referrer
        asked = browser.post(f"/batches/{batch}/pause", data=own, headers=hidden)
        assert asked.status_code == 303
        done = browser.post(f"/batches/{batch}/cancel", data=own, headers={"Origin": "http://localhost"})
        assert done.status_code == 303


def test_a_token_of_another_session_is_not_taken(app: Flask, engine: Engine) -> None:
    """Nor one of the same client's other browser."""
    with engine.begin() as connection:
        batch = create_batch(connection, [{}], client="alice")
    one, other = sign_in(app, ALICE), sign_in(app, ALICE)
    token = token_of(other.get("/", headers=HTML))
    assert one.post(f"/batches/{batch}/pause", data={"token": token}).status_code == 403
    assert other.post(f"/batches/{batch}/pause", data={"token": token}).status_code == 303


def test_nobody_is_signed_in_from_elsewhere(stranger: FlaskClient) -> None:
    """Else one would work in the session of an attacker and not notice."""
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = stranger.post("/sign-in", data={"key": ALICE}, headers=headers)
        assert answer.status_code == 403
        assert "Set-Cookie" not in answer.headers


def test_a_stranger_acts_on_nothing(stranger: FlaskClient, engine: Engine) -> None:
    """Without a session 401, with nothing done."""
    with engine.begin() as connection:
        batch = create_batch(connection, [{}], client="alice")
    problem(stranger.post(f"/batches/{batch}/cancel", data={"token": "x"}), 401)
    assert rows(engine, "SELECT cancelled_at FROM batches") == [(None,)]


def test_without_keys_one_is_the_operator_of_this_machine(database_url: str, engine: Engine, tmp_path: Path) -> None:
    """No sign-in, everything is seen, and one session is kept, so that the forms of a second page work as well."""
    with engine.begin() as connection:
        create_batch(connection, [{}], client="alice", name="hers")
    with page_app(database_url, tmp_path, darkroom_api_keys=None, darkroom_operator_keys=None) as app:
        browser = app.test_client()
        first = browser.get("/", headers=HTML)
        assert "hers" in first.text
        assert "Sign out" not in first.text
        assert "HttpOnly" in first.headers["Set-Cookie"]
        assert "Set-Cookie" not in browser.get("/system", headers=HTML).headers
        assert browser.get("/sign-in").status_code == 302
        problem(browser.get("/", base_url="http://rebound.example"), 400)


def test_two_stacks_on_one_machine_are_two_sessions(database_url: str, engine: Engine, tmp_path: Path) -> None:
    """A browser sends the cookies of one port to all others of the machine; looking at one stack must not sign out of,
    or spoil the forms of, another one."""
    with engine.begin() as connection:
        batch = create_batch(connection, [{}], client="alice")
    keys = {"darkroom_api_keys": None, "darkroom_operator_keys": None}
    with page_app(database_url, tmp_path, **keys) as one, page_app(database_url, tmp_path, **keys) as other:
        here, there = one.test_client(), other.test_client()
        question = here.get(f"/batches/{batch}/pause", base_url="http://localhost:8001")
        for cookie in here._cookies.values():
            there.set_cookie(cookie.key, cookie.value)
        there.get("/", base_url="http://localhost:8101")
        for cookie in there._cookies.values():
            here.set_cookie(cookie.key, cookie.value)
        done = here.post(
            f"/batches/{batch}/pause", data={"token": token_of(question)}, base_url="http://localhost:8001"
        )
        assert done.status_code == 303


def test_making_the_secret_is_slow_and_knows_all_keys() -> None:
    """A cookie must not be a way to try out keys; who has one key, cannot sign for another."""
    one, same, more = (
        ApiKeys(IntakeSettings(database_url="postgresql://x/x", storage_url="/tmp", darkroom_api_keys=keys))
        for keys in (f"alice:{ALICE}", f"alice:{ALICE}", f"alice:{ALICE},bob:{BOB}")
    )
    assert one.derive_secret(b"page") == same.derive_secret(b"page") != more.derive_secret(b"page")
    assert one.derive_secret(b"page") != one.derive_secret(b"else")
