"""The intake API's application (`create_app`); granian serves the buffering server before it (`create_server`)."""

from typing import Any
from urllib.parse import urlsplit

from flask import Flask, Response, jsonify, request, send_from_directory
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import BadRequest, Unauthorized

from buffering import BufferingServer, Limits
from core.logs import configure_logs
from core.settings import load
from core.tracing import start_tracing
from intake import api, problems
from intake.api_keys import ApiKeys, is_loopback
from intake.docs_page import ASSETS, PAGE
from intake.file_routes import files
from intake.metrics import write_metrics
from intake.openapi import Operation, describe_route, document
from intake.pages import PageContext, install_page
from intake.pages.thumbnails import THREADS as THUMBNAIL_THREADS
from intake.responses import Alive
from intake.settings import IntakeSettings
from models.database import make_engine
from models.progress_health import find_stalled
from models.queries.health import PING

THREADS, LARGE_THREADS = 6, 2
"""Requests served at one time; bodies too large for memory have threads of their own, so that nobody waits for them.
Each may need a connection, and so may each thumbnail of an input that is being made."""
BODY_WITHIN, IDLE_WITHIN = 600.0, 30.0
"""Seconds for a whole body, and without a byte of it."""
IN_MEMORY = 256 * 1024
"""Bytes of one body or answer in memory; the rest goes to disk."""
FORM, FORM_MAX = "application/x-www-form-urlencoded", 16 * 1024
"""A form of the page, and its bytes: all that is taken of whoever carries no key."""
HELD_MAX = 4 * 2**30
"""Bytes of all bodies and answers at one time, most of them on disk."""


def create_app(settings: IntakeSettings | None = None) -> Flask:
    """The intake API, from the environment unless settings are handed in.

    Raises:
        SettingsError: a setting is missing or wrong.
    """
    settings = settings or load(IntakeSettings)
    keys = ApiKeys(settings)
    app = Flask("intake", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.intake_max_bytes
    if not keys.required:
        app.before_request(_require_local_name)
    app.url_map.strict_slashes = app.url_map.merge_slashes = False
    connections = THREADS + LARGE_THREADS + THUMBNAIL_THREADS
    engine = make_engine(settings.database_url, application="darkroom intake", pool_size=connections)
    problems.install(app)
    context = api.ApiContext(settings, engine, keys)
    api.install(app, context)
    app.register_blueprint(files)
    install_page(app, PageContext(settings, engine, keys, context.rate_limit, context.images))
    _install_service_routes(app)
    return app


def create_server() -> BufferingServer:
    """What granian serves: the application behind its buffering server. Of strangers no more than a form is taken.

    Raises:
        SettingsError: a setting is missing or wrong.
    """
    settings = load(IntakeSettings)
    configure_logs()
    provider = start_tracing("darkroom-intake", settings)
    app = create_app(settings)
    if provider is not None:
        from intake.traced_requests import trace_requests

        trace_requests(app, provider)
    context: api.ApiContext = app.extensions["darkroom"]
    limits = Limits(
        body_max=lambda headers: _bound_body(headers, context),
        in_memory=IN_MEMORY,
        held_max=HELD_MAX,
        whole_within=BODY_WITHIN,
        idle_within=IDLE_WITHIN,
        chunked=False,
    )
    return BufferingServer(app, limits, threads=THREADS, large=LARGE_THREADS)


def _bound_body(headers: Any, context: api.ApiContext) -> int:
    if context.keys.client(headers.get("authorization")):
        return context.settings.intake_max_bytes
    return FORM_MAX if headers.get("content-type") == FORM else 0


def _require_local_name() -> None:
    """Where no key is needed, a page in somebody's browser could else reach us under a name of its own."""
    name = urlsplit(f"//{request.host}").hostname
    if name is None or not is_loopback(name):
        raise BadRequest("Without API keys only requests to this machine by its own name are answered.")


def _install_service_routes(app: Flask) -> None:
    context: api.ApiContext = app.extensions["darkroom"]

    @app.get("/livez")
    @describe_route(Operation({200: (Alive,)}))
    def livez() -> Response:
        """Say whether the API and its database answer."""
        with context.engine.begin() as connection:
            connection.exec_driver_sql(PING)
        return jsonify(Alive().model_dump())

    @app.get("/healthz")
    def healthz() -> tuple[Response, int]:
        """Say whether the work gets done: whether what is due is taken."""
        with context.engine.begin() as connection:
            stalled = find_stalled(connection)
        return jsonify(status="stalled" if stalled else "ok", stalled=stalled), 503 if stalled else 200

    @app.get("/metrics")
    def metrics() -> Response:
        """For Prometheus; with keys, for operators only."""
        client = context.keys.identify(request.headers.get("Authorization"))
        if client is None or not client.operator:
            wanted = WWWAuthenticate("bearer")
            raise Unauthorized("Send Authorization: Bearer KEY, that of an operator.", www_authenticate=wanted)
        body, content_type = write_metrics(context.engine, request.headers.get("Accept", ""))
        return Response(body, content_type=content_type)

    made = document(app, keys=context.keys.required)

    @app.get("/openapi.json")
    def openapi() -> Response:
        return jsonify(made)

    @app.get("/docs")
    def docs() -> Response:
        return Response(PAGE, mimetype="text/html")

    @app.get("/docs/<path:name>")
    def docs_asset(name: str) -> Response:
        return send_from_directory(ASSETS, name)
