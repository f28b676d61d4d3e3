"""Who looks at the page: signed in with an API key, remembered by a cookie, and no action without a token of the page.

Nothing is kept here: the cookie says which key signed in, and is signed with what only the keys themselves give. So a
session ends where its key is taken away, and outlives a restart. Making the secret is slow on purpose (scrypt): whoever
has a cookie cannot try out keys of others with it in any useful time.
"""

import hashlib
import hmac
import secrets
from typing import NamedTuple

from flask import Request, Response
from itsdangerous import BadSignature, URLSafeTimedSerializer
from werkzeug.exceptions import Forbidden

from intake.api_keys import LOCAL, ApiKeys, Client
from intake.same_origin import refuse_foreign

COOKIE = "darkroom_session"
"""With the port of an address that names one: all ports of a machine share their cookies, and it may run two stacks."""
LASTS = 7 * 24 * 3600
"""Seconds until one has to sign in again."""
TOKEN = "token"  # noqa: S105  # the name of a form's field


class Viewer(NamedTuple):
    """Who looks."""

    client: str
    operator: bool
    nonce: str
    """Of this session."""

    @property
    def sees(self) -> str | None:
        """Whose batches: one client's, or (None) those of all."""
        return None if self.operator else self.client


class Sessions:
    """Makes and reads the cookies."""

    def __init__(self, keys: ApiKeys) -> None:
        self._keys = keys
        self._secret = keys.derive_secret(b"darkroom page") if keys.required else secrets.token_bytes(32)
        self._serializer = URLSafeTimedSerializer(self._secret)

    def viewer(self, request: Request) -> Viewer | None:
        """Who sent this request; None where nobody has signed in, or where the key is taken away."""
        try:
            key, nonce = self._serializer.loads(request.cookies.get(cookie_of(request), ""), max_age=LASTS)
        except (BadSignature, ValueError, TypeError):
            return None
        client = self._client(key)
        return Viewer(client.name, client.operator, nonce) if client else None

    def _client(self, key: str) -> Client | None:
        if not self._keys.required:
            return Client(LOCAL, operator=True)
        return self._keys.by_id(key, self._secret)

    def sign_in(self, key: str, request: Request, response: Response) -> bool:
        """Give whoever has the key a cookie; False where it is nobody's."""
        client = self._keys.find(key)
        if client is None:
            return False
        self._give(request, response, self._keys.key_id(key, self._secret), secrets.token_urlsafe(12))
        return True

    def open_local(self) -> Viewer:
        """Where no keys are needed: a session all the same, so that actions have a token."""
        return Viewer(LOCAL, operator=True, nonce=secrets.token_urlsafe(12))

    def remember(self, viewer: Viewer, request: Request, response: Response) -> None:
        """Give a local viewer the cookie of the session that was opened."""
        self._give(request, response, LOCAL, viewer.nonce)

    def _give(self, request: Request, response: Response, key: str, nonce: str) -> None:
        value = self._serializer.dumps([key, nonce])
        assert isinstance(value, str)
        name, secure = cookie_of(request), request.is_secure or request.headers.get("X-Forwarded-Proto") == "https"
        response.set_cookie(name, value, max_age=LASTS, httponly=True, samesite="Lax", secure=secure)

    def token(self, viewer: Viewer) -> str:
        """What a form of this session carries."""
        return hmac.new(self._secret, f"form {viewer.nonce}".encode(), hashlib.sha256).hexdigest()

    def check_form(self, request: Request, viewer: Viewer | None) -> None:
        """Make sure that a page of ours sent this form, and not somebody else's in the same browser.

        Raises:
            Forbidden: it did not.
        """
        refuse_foreign(request)
        if viewer and not hmac.compare_digest(request.form.get(TOKEN, "").encode(), self.token(viewer).encode()):
            raise Forbidden("This form is too old, or not ours; open the page again. Nothing was done.")


def cookie_of(request: Request) -> str:
    """The name of the cookie that belongs to the address by which the browser knows us."""
    port = request.host.rpartition(":")[2]
    return f"{COOKIE}_{port}" if port.isdecimal() else COOKIE
