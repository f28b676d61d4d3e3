"""Where the store keeps what clients hand in: `inputs/CLIENT/NAME`, each client's objects apart from all others'."""

import hashlib
from urllib.parse import quote

from storage.store import Storage

PREFIX = "inputs"
LONGEST_SEGMENT = 120
"""Characters of the part that stands for a client."""


def input_key(storage: Storage, client: str, name: str) -> str:
    """The key of a client's object.

    A client's name may hold anything: what is none of `A-Z a-z 0-9 . _ ~ -` is written as in a URL, a name that begins
    with a dot or is very long becomes its hash. So no name leads to another client's objects.
    """
    segment = quote(client, safe="")
    if segment.startswith(".") or len(segment) > LONGEST_SEGMENT:
        segment = hashlib.sha256(client.encode()).hexdigest()
    return f"{PREFIX}/{storage.key_of(segment)}/{name}"
