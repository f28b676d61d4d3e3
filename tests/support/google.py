"""Google's XML interface in front of a real S3, of which it is a dialect: who signs, and what metadata is called.

It believes every token of the one service account that it knows by name; Google also checks who signed it.
"""

import base64
import http.client
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.support.meddling import answer_bytes
from tests.support.servers import Peer, serve
from tests.support.stores import ACCESS_KEY, REGION, SECRET_KEY, ObjectStore
from tests.support.wire_faults import CERTIFICATES

EMAIL = "darkroom@project.example"
KEPT = ("content-type", "range", "if-match", "if-none-match")
"""Headers that mean the same in both."""
OURS, THEIRS = "x-amz-meta-", "x-goog-meta-"


def write_account(file: Path, **fields: str) -> str:
    """A service account's file, with a key that opens nothing; `gcs_base_url` leads to another server than Google's."""
    named = {"type": "service_account", "client_email": EMAIL, "private_key_id": "1"}
    file.write_text(json.dumps({**named, "private_key": (CERTIFICATES / "account.pem").read_text(), **fields}))
    return str(file)


@contextmanager
def running_google(s3: ObjectStore, folder: Path) -> Iterator[ObjectStore]:
    """The same bucket, spoken to in the other dialect."""

    def answer(peer: Peer) -> bool:
        if not _is_known(peer):
            return peer.reply(401, b"<Error><Code>AuthenticationRequired</Code></Error>")
        peer.send(_translate(s3.url, peer))
        return True

    with serve(answer) as wire:
        account = write_account(folder / "account.json", gcs_base_url=wire.url)
        yield ObjectStore(wire.url, (), folder, lambda _: True, {"GOOGLE_SERVICE_ACCOUNT": account})


def _is_known(peer: Peer) -> bool:
    assert peer.request
    kind, _, token = peer.request.headers.get("authorization", "").partition(" ")
    parts = token.split(".")
    if kind != "Bearer" or len(parts) != 3:
        return False
    claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=="))
    return bool(claims["iss"] == EMAIL and claims["exp"] > time.time())


def _translate(address: str, peer: Peer) -> bytes:
    request = peer.request
    assert request
    path, _, query = request.target.partition("?")
    url = f"{address}{quote(unquote(path), safe='/~')}{f'?{query}' if query else ''}"
    headers = {name.replace(THEIRS, OURS): value for name, value in request.headers.items()}
    headers = {name: value for name, value in headers.items() if name in KEPT or name.startswith(OURS)}
    signed = AWSRequest(request.method, url, headers, request.body)
    S3SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), "s3", REGION).add_auth(signed)
    target = urlsplit(url)
    connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=60)
    try:
        connection.request(request.method, url.removeprefix(address), request.body, dict(signed.headers))
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    named = [(name.lower().replace(OURS, THEIRS), value) for name, value in response.getheaders()]
    return answer_bytes(response.status, response.reason, named, body)
