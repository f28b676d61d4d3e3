"""What the provider charges for one image, in its own words (provider-protocol 7.3)."""

from decimal import Decimal
from typing import Any

from core.errors import Gone, TryLater
from provider.platform import PlatformAPI

UNIT, CURRENCY = "image", "USD"
"""How the model is sold; any other way and our accounts would not be the provider's."""


class Pricing:
    """A client of the price list for one account."""

    def __init__(self, api_url: str, key: str) -> None:
        self._platform = PlatformAPI(api_url, key)

    def per_image(self, endpoint: str) -> Decimal:
        """USD for one image that `endpoint` returns.

        Raises:
            Gone: the key may not read prices, or this endpoint has none per image in USD.
            TryLater: no usable answer came.
        """
        page = self._platform.get("/v1/models/pricing", {"endpoint_id": endpoint}, items="prices")
        entries = [entry for entry in page.get("prices") or () if isinstance(entry, dict)]
        for entry in entries:
            if entry.get("endpoint_id") == endpoint:
                if (entry.get("unit"), entry.get("currency")) != (UNIT, CURRENCY):
                    raise Gone(f"{endpoint} is not sold by the {UNIT} in {CURRENCY}")
                return _amount(entry.get("unit_price"))
        raise Gone(f"no price is listed for {endpoint}")


def _amount(given: Any) -> Decimal:
    """A JSON number as it was written, neither endless nor nothing: at a price of 0 no `max_cost` would hold."""
    amount = Decimal(str(given)) if isinstance(given, int | float) and not isinstance(given, bool) else None
    if amount is None or not amount.is_finite() or amount <= 0:
        raise TryLater("the price is no amount")
    return amount
