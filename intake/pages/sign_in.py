"""Signing in with an API key, and out."""

from flask import g, make_response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import TooManyRequests

from intake.pages.context import context, page
from intake.pages.sessions import cookie_of


@page.get("/sign-in")
def sign_in_form() -> ResponseReturnValue:
    """Ask for a key."""
    if g.viewer or not context().keys.required:
        return redirect(url_for("page.batches"))
    return render_template("sign_in.html", wrong=False, next=_next())


@page.post("/sign-in")
def sign_in() -> ResponseReturnValue:
    """Take the key, and lead to where one came from."""
    here = context()
    if wait := here.rate_limit.wait(f"address {request.remote_addr}"):
        raise TooManyRequests("Too many requests.", retry_after=wait)
    here.sessions.check_form(request, None)
    response = make_response(redirect(_next(), 303))
    if here.sessions.sign_in(request.form.get("key", "").strip(), request, response):
        return response
    return render_template("sign_in.html", wrong=True, next=_next()), 401


@page.post("/sign-out")
def sign_out() -> ResponseReturnValue:
    """Forget who looks."""
    response = make_response(redirect(url_for("page.sign_in_form"), 303))
    response.delete_cookie(cookie_of(request))
    return response


def _next() -> str:
    """A path of this page; never an address elsewhere."""
    wanted = request.values.get("next", "/")
    here = wanted.startswith("/") and wanted[1:2] not in ("/", "\\") and wanted.isprintable()
    return wanted if here else "/"
