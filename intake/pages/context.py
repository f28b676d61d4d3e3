"""What every page shares: who looks, what it may load, and how it is rendered."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from flask import Blueprint, Flask, Response, current_app, g, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import Connection, Engine, RowMapping
from werkzeug.exceptions import TooManyRequests, Unauthorized

from core.errors import NotFound
from intake.api_keys import ApiKeys
from intake.pages import labels
from intake.pages.sessions import Sessions, Viewer
from intake.pages.thumbnails import Thumbnails
from intake.problems import MEDIA_TYPE, Problem
from intake.rate_limit import RateLimit
from intake.settings import IntakeSettings
from intake.stored_images import ImageReader
from models.queries.health import PROVIDER_PAUSE
from models.queries.page import BATCH_OF_CLIENT

page = Blueprint("page", __name__, template_folder="templates", static_folder="static", static_url_path="/page")

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
"""Nothing of anybody else's, nothing inline, in nobody's frame."""
OPEN = frozenset({"page.sign_in", "page.sign_in_form", "page.static"})
"""What whoever has not signed in may see."""
IMAGES = frozenset({"page.stored_image", "page.thumbnail", "page.input_thumbnail"})
"""Dozens come with one page; how many are made at one time is bounded anyway."""


class PageContext:
    """What the pages work with."""

    def __init__(
        self, settings: IntakeSettings, engine: Engine, keys: ApiKeys, rate_limit: RateLimit, images: ImageReader
    ) -> None:
        self.engine, self.keys, self.rate_limit, self.images = engine, keys, rate_limit, images
        self.sessions = Sessions(keys)
        self.thumbnails = Thumbnails(settings)


def install(app: Flask, context: PageContext) -> None:
    """Give the pages of one application their context."""
    app.extensions["darkroom_page"] = context
    app.jinja_env.filters |= labels.FILTERS
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.register_blueprint(page)
    app.after_request(_explain)


def context() -> PageContext:
    """Of this application."""
    found: PageContext = current_app.extensions["darkroom_page"]
    return found


@page.before_request
def _authenticate() -> ResponseReturnValue | None:
    here = context()
    g.viewer = here.sessions.viewer(request)
    if request.endpoint in OPEN:
        return None
    viewer: Viewer | None = g.viewer
    if viewer is None and not here.keys.required:
        viewer = g.viewer = g.opened = here.sessions.open_local()
    if not (viewer and request.endpoint in IMAGES):
        who = f"page {viewer.client}" if viewer else f"address {request.remote_addr}"
        if wait := here.rate_limit.wait(who):
            raise TooManyRequests("Too many requests.", retry_after=wait)
    if viewer is None:
        if request.method != "GET":
            raise Unauthorized("Sign in first.")
        return redirect(url_for("page.sign_in_form", next=request.full_path.rstrip("?")))
    if request.method == "POST":
        here.sessions.check_form(request, viewer)
    return None


@page.after_request
def _protect(response: Response) -> Response:
    if request.endpoint == "page.static":
        response.headers["Cache-Control"] = "no-cache"
    return secure(response)


def secure(response: Response) -> Response:
    """The response with the headers that each of the page has."""
    response.headers |= {
        "Content-Security-Policy": POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
    }
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def _explain(response: Response) -> Response:
    """A problem as a page, for whoever asked with a browser."""
    kinds = ["application/problem+json", "text/html"]
    if response.mimetype != MEDIA_TYPE or request.path.startswith("/v1/"):
        return response
    if request.accept_mimetypes.best_match(kinds) != "text/html":
        return response
    problem = Problem.model_validate_json(response.get_data())
    looks = g.get("viewer")
    token = context().sessions.token(looks) if looks else ""
    response.set_data(render_template("problem.html", problem=problem, viewer=looks, token=token))
    response.mimetype = "text/html"
    return secure(response)


def viewer() -> Viewer:
    """Who looks; somebody who has signed in."""
    found: Viewer = g.viewer
    return found


def render(template: str, **values: Any) -> Response:
    """A page, with what its frame shows."""
    body = render_template(template, viewer=viewer(), token=context().sessions.token(viewer()), **values)
    response = Response(body, mimetype="text/html")
    if opened := g.get("opened"):
        context().sessions.remember(opened, request, response)
    return response


def read(question: Callable[[Connection], dict[str, Any]]) -> dict[str, Any]:
    """What a page shows, read in one transaction, with what the frame of each shows."""
    with context().engine.begin() as connection:
        found = question(connection)
        pause = connection.exec_driver_sql(PROVIDER_PAUSE).mappings().first()
    return {**found, "account_pause": pause, "now": datetime.now(UTC)}


def find_batch(connection: Connection, batch_id: UUID) -> RowMapping:
    """A batch that the viewer may see.

    Raises:
        NotFound: there is none, or it is another client's.
    """
    found = connection.exec_driver_sql(BATCH_OF_CLIENT, {"batch": batch_id, "client": viewer().sees}).mappings().first()
    if found is None:
        raise NotFound(f"There is no batch {batch_id}.")
    return found
