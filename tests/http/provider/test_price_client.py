"""The provider's price: exact, in the unit and currency that the accounts are kept in, or an error that says so."""

import json
from decimal import Decimal

import pytest

from core.errors import Gone, TryLater
from models.seedream import ENDPOINT
from provider.price_client import Pricing
from tests.support.lane_runner import Emulator
from tests.support.queueing import KEY, NGINX
from tests.support.servers import closed_port, serve

SOLD = {"endpoint_id": ENDPOINT, "unit_price": 0.03, "unit": "image", "currency": "USD"}
TARGET = "/v1/models/pricing?endpoint_id=fal-ai%2Fbytedance%2Fseedream%2Fv4%2Fedit"


def price(*entries: object, status: int = 200) -> Decimal:
    body = json.dumps({"prices": list(entries), "next_cursor": None, "has_more": False}).encode()
    return fetch_price(status, body)


def fetch_price(status: int, body: bytes) -> Decimal:
    with serve(lambda line: line.reply(status, body)) as wire:
        try:
            return Pricing(wire.url, KEY).per_image(ENDPOINT)
        finally:
            (request,) = wire.received
            assert (request.method, request.target) == ("GET", TARGET)
            assert request.headers["authorization"] == f"Key {KEY}"


def test_price_is_exact() -> None:
    """Three cents are three cents, whatever else is listed."""
    assert str(price({**SOLD, "endpoint_id": "other", "unit_price": 9}, SOLD)) == "0.03"
    assert price({**SOLD, "unit_price": 1}) == 1


@pytest.mark.parametrize(
    "entry",
    [{**SOLD, "unit": "megapixel"}, {**SOLD, "currency": "EUR"}, {**SOLD, "endpoint_id": "other"}, "text", None],
)
def test_other_price_is_none_of_ours(entry: object) -> None:
    """Sold otherwise, or not listed: not taken for dollars an image."""
    with pytest.raises(Gone):
        price(entry)


@pytest.mark.parametrize("amount", [0, 0.0, -1, True, None, "0.03", [], {}, float("inf"), float("nan")])
def test_price_that_is_no_amount(amount: object) -> None:
    """What is no amount is no answer; at a price of nothing no `max_cost` would hold."""
    with pytest.raises(TryLater):
        price({**SOLD, "unit_price": amount})


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (401, b'{"error": {"type": "authorization_error", "message": "no"}}', Gone),
        (403, b"", Gone),
        (404, b"{}", Gone),
        (429, b'{"error": {"type": "rate_limited", "message": "slower"}}', TryLater),
        (500, NGINX, TryLater),
        (200, NGINX, TryLater),
        (200, b"[]", TryLater),
        (200, b'{"prices": {}}', TryLater),
        (302, b"", TryLater),
    ],
)
def test_no_usable_answer(status: int, body: bytes, error: type[Exception]) -> None:
    """Refused, or not answered: one error each, asked once."""
    with pytest.raises(error):
        fetch_price(status, body)


def test_nobody_listens() -> None:
    """No connection is no answer."""
    with pytest.raises(TryLater):
        Pricing(f"http://127.0.0.1:{closed_port()}", KEY).per_image(ENDPOINT)


def test_price_of_the_stand_in(emulator: Emulator) -> None:
    """The real form of the reply."""
    assert Pricing(emulator.url, KEY).per_image(ENDPOINT) == Decimal("0.03")
