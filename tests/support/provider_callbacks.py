"""The provider's side of a delivery: bodies in its byte style, headers with its signature, its key set."""

import base64
import hashlib
import json
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from nacl.signing import SigningKey

from tests.support.servers import Wire, serve

ACCOUNT = "github|12345"
IMAGE = {
    "content_type": "image/png",
    "file_name": "x.png",
    "file_size": 1234,
    "height": 2048,
    "url": "https://v3b.fal.media/files/b/x/y.png",
    "width": 2048,
}


@dataclass(slots=True)
class Provider:
    """Signs for an account; a test may change the key, the account, or what is published."""

    account: str = ACCOUNT
    key: SigningKey = field(default_factory=lambda: SigningKey(bytes(range(32))))
    published: bool = True

    def key_set(self) -> bytes:
        """The key set as published, with padding."""
        x = base64.urlsafe_b64encode(bytes(self.key.verify_key)).decode()
        return json.dumps({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x}]}).encode()

    def headers(
        self, body: bytes, request_id: str, *, age: float = 0, account: str | None = None, key: SigningKey | None = None
    ) -> dict[str, str]:
        """The headers of one delivery, signed `age` seconds ago."""
        account, timestamp = account or self.account, str(int(time.time() - age))
        message = "\n".join((request_id, account, timestamp, hashlib.sha256(body).hexdigest())).encode()
        return {
            "Content-Type": "application/json",
            "X-Fal-Webhook-Request-Id": request_id,
            "X-Fal-Webhook-User-Id": account,
            "X-Fal-Webhook-Timestamp": timestamp,
            "X-Fal-Webhook-Signature": (key or self.key).sign(message).signature.hex(),
        }


def key_server(provider: Provider) -> AbstractContextManager[Wire]:
    """A server of the provider's key set; 500 while it is not published."""
    return serve(lambda line: line.reply(200, provider.key_set()) if provider.published else line.reply(500))


def ok(request_id: str, images: int = 1) -> bytes:
    """A success: keys sorted, spaces behind separators, `error` present."""
    entries = [{**IMAGE, "url": f"https://v3b.fal.media/files/b/x/{n}.png"} for n in range(images)]
    return _body(request_id, error=None, status="OK", payload={"images": entries, "seed": 7})


def refused(request_id: str, type_: str = "content_policy_violation") -> bytes:
    """A model error."""
    detail = [{"loc": ["body", "prompt"], "msg": "no", "type": type_}]
    return _body(request_id, error="Invalid status code: 422", status="ERROR", payload={"detail": detail})


def _body(request_id: str, **fields: object) -> bytes:
    content = {"request_id": request_id, "gateway_request_id": request_id, **fields}
    return json.dumps(content, sort_keys=True).encode()
