"""How a callback is kept: its body and the headers that sign it, verbatim, in a fifth of their bytes.

`pack` writes these headers, an empty line and the body, and compresses them (RFC 1950) with a preset dictionary: the
text that nearly every delivery holds, and the delivery's own request id, which stands in a column of its own.
PostgreSQL compresses only rows of more than two kilobytes. `read_delivery` reads what was packed, and rows of the
releases before, which have `headers` and `body`.
"""

import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

REQUEST_ID = "x-fal-webhook-request-id"
SIGNED = ("x-fal-webhook-user-id", "x-fal-webhook-timestamp", "x-fal-webhook-signature")
"""The headers that the signature needs beside the request id (provider-protocol 4.2)."""
DICTIONARY = (
    b'{"error": "Invalid status code: 422", "payload": {"detail": [{"loc": ["body", "prompt"], "msg": "", "type": '
    b'"content_policy_violation", "url": "https://docs.fal.ai/errors#", "ctx": {}, "input": {}}]}, "status": "ERROR"}\n'
    b"x-fal-webhook-user-id: github|\nx-fal-webhook-timestamp: 17\nx-fal-webhook-signature: 0123456789abcdef\n\n"
    b'{"error": null, "gateway_request_id": "", "payload": {"images": [{"content_type": "image/jpeg", "file_data": '
    b'null, {"content_type": "image/png", "file_name": ".png", "file_size": , "height": 2048, "url": '
    b'"https://v3.fal.media/files/", "https://v3b.fal.media/files/b/.png", "width": 2048}], "seed": }, "request_id": "'
    b'", "status": "OK"}'
)
"""A change of it would make unreadable what lies there: a better one gets a name of its own."""
LEVEL = 3
"""Higher ones gain nothing on bodies of usual size, and take three times as long on one of megabytes."""


class KeptDelivery(NamedTuple):
    """What was received."""

    headers: dict[str, str]
    body: bytes


def pack(request_id: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """What is kept of a verified delivery; headers that sign nothing are not."""
    signed = "".join(f"{name}: {headers[name]}\n" for name in SIGNED if name in headers)
    compressor = zlib.compressobj(LEVEL, zdict=_dictionary(request_id))
    return compressor.compress(signed.encode() + b"\n" + body) + compressor.flush()


def read_delivery(row: Mapping[str, Any]) -> KeptDelivery | None:
    """The headers and the body of a row of `callbacks`; None once they are pruned."""
    if row["delivery"] is None:
        return None if row["body"] is None else KeptDelivery(row["headers"], bytes(row["body"]))
    text = zlib.decompressobj(zdict=_dictionary(row["request_id"])).decompress(bytes(row["delivery"]))
    headers = {REQUEST_ID: row["request_id"]}
    line, _, text = text.partition(b"\n")
    while line:
        name, _, value = line.decode().partition(": ")
        headers[name] = value
        line, _, text = text.partition(b"\n")
    return KeptDelivery(headers, text)


def _dictionary(request_id: str) -> bytes:
    return DICTIONARY + request_id.encode()
