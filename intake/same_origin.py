"""Who made the browser send this: a page of ours, or one of another site?

Without keys whoever reaches us is the operator, and a browser lets any page send a POST without a body anywhere. It
says where the page is from, though, in headers that no page can write. Programs send neither; they pass. A name that
was made to lead here (DNS rebinding) is our own to the browser: `_require_local_name` in `app.py` refuses it where no
key is needed, and where one is, such a page has neither a key nor the cookie of our name.
"""

from flask import Request
from werkzeug.exceptions import Forbidden

OWN = frozenset({"same-origin", "none"})
"""Values of `Sec-Fetch-Site` of what our page, or the person, made the browser send."""
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""


def refuse_foreign(request: Request) -> None:
    """Make sure that a request that changes something was not sent by a page of another site.

    Raises:
        Forbidden: it was.
    """
    if request.method not in SAFE and _is_foreign(request):
        raise Forbidden("A page of another site sent this; nothing was done.")


def _is_foreign(request: Request) -> bool:
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None and site not in OWN:
        return True
    if origin is None:
        return False
    if (
        origin == "null"
    ):  # a page that hides where it is from; ours does where a proxy adds Referrer-Policy: no-referrer
        return site is None
    return origin.partition("://")[2] != request.host
