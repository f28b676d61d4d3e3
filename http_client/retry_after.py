"""`Retry-After`: how long a server asks to be left alone (RFC 9110, section 10.2.3)."""

from email.utils import parsedate_to_datetime
from time import time


def read_retry_after(text: str) -> float:
    """Seconds, from either form of the header; none from nonsense."""
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time())
    except (ValueError, OverflowError, TypeError):
        return 0.0
