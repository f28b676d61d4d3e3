"""The routes: `POST /webhooks/fal/<token>`, `GET /livez` and `GET /healthz`, and what each answer asks of the provider.

200: kept, whatever it did to us. 401, 403, 413: not kept, only counted. 503: we cannot judge or keep it now;
the provider delivers again. Never a redirect: the provider takes a 3xx for a permanent failure (provider-protocol 4.3).
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from functools import partial
from typing import Any

import structlog
from flask import Blueprint, Flask, Response, current_app, jsonify, request
from flask.typing import ResponseReturnValue
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import RequestEntityTooLarge

from buffering import ANSWER_LATER, NEEDS_THREAD
from core.errors import KeysUnavailable, SignatureError
from core.tracing import is_tracing
from models.database_errors import original, reason, sqlstate
from models.progress_health import find_stalled
from models.provider import user_id
from models.queries.health import PING
from models.states import Effect
from webhook_receiver.jwks import KeySet
from webhook_receiver.recording import Delivery, record_deliveries, record_first_delivery
from webhook_receiver.rejections import Rejections
from webhook_receiver.settings import ReceiverSettings
from webhook_receiver.signature import Signed, verify
from webhook_receiver.waves import Trace, Waves

log = structlog.get_logger()

routes = Blueprint("callbacks", __name__)

TOKEN_MAX = 200
"""Characters of the path that are kept; a token of ours has 36."""
ALONE = 6
"""Deliveries recorded by themselves at one time."""


class Receiver:
    """What the routes work with."""

    def __init__(self, settings: ReceiverSettings, engine: Engine, keys: KeySet) -> None:
        self.settings, self.engine, self.keys = settings, engine, keys
        self.rejections = Rejections(engine)
        self._waves = Waves(
            engine,
            lambda connection, set_: record_deliveries(connection, set_, settings),
            alone=ALONE,
            trace=_delivery_tracer(engine) if is_tracing() else None,
        )
        self._account = settings.fal_user_id

    def verify_at_once(self, body: bytes, headers: Mapping[str, str]) -> Signed | None:
        """The signed facts where nothing has to be waited for: the keys and our account are known, and it is ours."""
        keys = self.keys.at_hand()
        if keys is None or self._account is None:
            return None
        try:
            signed = verify(body, headers, keys, datetime.now(UTC))
        except SignatureError:
            return None
        return signed if signed.user_id == self._account else None

    def verify(self, body: bytes, headers: Mapping[str, str]) -> Signed:
        """The signed facts of a delivery, with one look for newer keys on a miss."""
        now, keys = datetime.now(UTC), self.keys.current()
        try:
            return verify(body, headers, keys, now)
        except SignatureError:
            newer = self.keys.refresh_after_miss(keys)
            if newer is None:
                raise
            return verify(body, headers, newer, now)

    def account(self) -> str | None:
        """What the provider calls our account; None while nobody knows."""
        if self._account is None:
            with self.engine.begin() as connection:
                self._account = user_id(connection)
        return self._account

    def record(self, delivery: Delivery, *, account_known: bool) -> "Future[Effect]":
        """Have one delivery written down and applied; the effect is there once that is committed."""
        if account_known:
            return self._waves.record(delivery)
        return self._waves.record_alone(self._record_first, delivery)

    def _record_first(self, connection: Connection, deliveries: Sequence[Delivery]) -> list[Effect]:
        return [record_first_delivery(connection, delivery, self.settings) for delivery in deliveries]


def _delivery_tracer(engine: Engine) -> Trace:
    from webhook_receiver.traced_deliveries import DeliveryTracer  # imports OpenTelemetry, which may not be installed

    return DeliveryTracer(engine)


def install(app: Flask, receiver: Receiver) -> None:
    """Hand the receiver to the routes of one application."""
    app.extensions["darkroom"] = receiver
    app.register_blueprint(routes)


@routes.post("/webhooks/fal/<token>")
def receive(token: str) -> ResponseReturnValue:
    """One callback: verify, record, answer."""
    receiver: Receiver = current_app.extensions["darkroom"]
    body = request.get_data(cache=False)  # the raw bytes, before anything else touches the request
    if len(body) > receiver.settings.callback_max_bytes:
        raise RequestEntityTooLarge
    headers = dict(_headers(request.environ))
    needs_thread = request.environ.get(NEEDS_THREAD)
    signed = receiver.verify_at_once(body, headers) if needs_thread else receiver.verify(body, headers)
    if signed is None:
        return needs_thread()  # type: ignore[misc, no-any-return]
    account = receiver.account()
    if account not in (None, signed.user_id):
        receiver.rejections.count("other_account")
        return {"error": "This delivery is for another account."}, 403
    delivery = Delivery(token.replace("\0", "")[:TOKEN_MAX], body, headers, signed)
    effect = receiver.record(delivery, account_known=account is not None)
    answer = partial(_answer, receiver, account_known=account is not None)
    if (later := request.environ.get(ANSWER_LATER)) is not None:
        return later(effect, answer)  # type: ignore[no-any-return]
    return answer(effect.result())


def _headers(environ: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names in lower case; of the environment itself, because `request.headers` spells every name twice."""
    for key, value in environ.items():
        name = key[5:] if key.startswith("HTTP_") else key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else None
        if name:
            yield name.replace("_", "-").lower(), value.replace("\0", "")


def _answer(receiver: Receiver, effect: Effect, *, account_known: bool) -> Response:
    if effect is Effect.ORPHAN and not account_known:
        receiver.rejections.count("orphan_before_account_known")
    return _ANSWERS[effect]


_ANSWERS = {effect: Response(f'{{"effect":"{effect.value}"}}\n', mimetype="application/json") for effect in Effect}


@routes.get("/livez")
def livez() -> ResponseReturnValue:
    """200 while the receiver can take deliveries: its database answers."""
    receiver: Receiver = current_app.extensions["darkroom"]
    with receiver.engine.begin() as connection:
        connection.exec_driver_sql(PING)
    return jsonify(status="ok")


@routes.get("/healthz")
def healthz() -> ResponseReturnValue:
    """200 while the work gets done: what is due is taken."""
    receiver: Receiver = current_app.extensions["darkroom"]
    with receiver.engine.begin() as connection:
        stalled = find_stalled(connection)
    return {"status": "stalled" if stalled else "ok", "stalled": stalled}, 503 if stalled else 200


@routes.app_errorhandler(SignatureError)
def _forged(error: SignatureError) -> ResponseReturnValue:
    current_app.extensions["darkroom"].rejections.count("bad_signature")
    return {"error": str(error)}, 401


@routes.app_errorhandler(RequestEntityTooLarge)
def _too_large(_: RequestEntityTooLarge) -> ResponseReturnValue:
    current_app.extensions["darkroom"].rejections.count("too_large")
    return {"error": "The body is too large."}, 413


@routes.app_errorhandler(KeysUnavailable)
def _no_keys(error: KeysUnavailable) -> ResponseReturnValue:
    return {"error": str(error)}, 503


@routes.app_errorhandler(SQLAlchemyError)
def _no_database(error: SQLAlchemyError) -> ResponseReturnValue:
    log.error(
        "callback_not_recorded",
        reason=type(original(error)).__name__,
        sqlstate=sqlstate(error),
        detail=reason(error)[:300],
    )
    return {"error": "The database cannot take it now."}, 503
