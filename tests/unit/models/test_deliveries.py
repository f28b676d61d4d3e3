"""A callback is kept packed: it comes out as it came in, whatever it holds, and for as long as it lies there."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from models.deliveries import DICTIONARY, REQUEST_ID, SIGNED, pack, read_delivery

VALUES = st.text(st.characters(blacklist_categories=("C", "Z")), min_size=1, max_size=200)
"""What `signature._header` lets through."""


def row(request_id: str, packed: bytes) -> dict[str, object]:
    return {"delivery": packed, "request_id": request_id, "headers": None, "body": None}


@given(VALUES, st.fixed_dictionaries({}, optional=dict.fromkeys(SIGNED, VALUES)), st.binary())
def test_it_comes_out_as_it_came_in(request_id: str, headers: dict[str, str], body: bytes) -> None:
    """Headers and body, byte for byte, though the body looks like headers or holds nothing."""
    found = read_delivery(row(request_id, pack(request_id, {**headers, "host": "left out"}, body)))
    assert found is not None
    assert found.headers == {REQUEST_ID: request_id, **headers}
    assert found.body == body


def test_odd_bodies() -> None:
    """Those that a parser of headers could trip over."""
    for body in (b"", b"\n", b"\n\n", b"a: b\n\nc", b"\r\n\r\n", bytes(range(256)) * 300):
        found = read_delivery(row("r", pack("r", dict.fromkeys(SIGNED, "v"), body)))
        assert found is not None
        assert found.body == body


def test_what_lies_there_can_be_read() -> None:
    """A row of the first release that packed, as it was written then: the dictionary must never change."""
    assert hashlib.sha256(DICTIONARY).hexdigest()[:16] == "21611e2af517618f"
    old = bytes.fromhex("787d72cbda07c31faf86f822d6ccc4d012641e9e083648c316a9a8ee26c695987e0300fef33848")
    found = read_delivery(row("8d2a4f6e-0000-4000-8000-000000000001", old))
    assert found is not None
    assert found.headers["x-fal-webhook-timestamp"] == "1764198000"
    assert found.body == b'{"error": null, "request_id": "8d2a4f6e-0000-4000-8000-000000000001", "status": "OK"}'


def test_it_takes_little_room() -> None:
    """A body of usual size and its signature, in less than the signature's own hexadecimal digits twice."""
    request_id, name = "8d2a4f6e-0000-4000-8000-000000000001", "0f3c" * 10
    signature = hashlib.sha512(b"signature").hexdigest()
    image = (
        f'{{"content_type": "image/png", "file_name": "{name}.png", "file_size": 4404019, "height": 2048, '
        f'"url": "https://v3b.fal.media/files/b/zebra/{name}.png", "width": 2048}}'
    )
    body = (
        f'{{"error": null, "gateway_request_id": "{request_id}", "payload": {{"images": [{image}], "seed": 7464067}}, '
        f'"request_id": "{request_id}", "status": "OK"}}'
    )
    headers = dict(zip(SIGNED, ("github|12345678", "1764198000", signature), strict=True))
    assert len(pack(request_id, headers, body.encode())) < 2 * len(signature)


def test_pruned() -> None:
    """Nothing is there, and nobody trips over it."""
    assert read_delivery({"delivery": None, "request_id": "r", "headers": None, "body": None}) is None
