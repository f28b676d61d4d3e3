"""What goes with an object in a store: its type, and metadata in the form of HTTP headers."""

from collections.abc import Mapping
from urllib.parse import quote, unquote

TYPE = "Content-Type"
PLAIN = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
"""What stands in a header as it is; everything else is percent-encoded, for no store takes more."""


def encode_attributes(content_type: str | None, metadata: Mapping[str, str]) -> dict[str, str] | None:
    """As the store's client takes them; None where there are none."""
    attributes = {name: quote(value, safe=PLAIN) for name, value in metadata.items()}
    return (attributes | {TYPE: content_type} if content_type else attributes) or None


def decode_attributes(attributes: Mapping[str, str]) -> tuple[str | None, dict[str, str]]:
    """The type, and the metadata as it was given, with what others may have added."""
    standard = ("Content-", "Cache-Control", "Storage-Class")
    metadata = {name: unquote(value) for name, value in attributes.items() if not name.startswith(standard)}
    return attributes.get(TYPE), metadata
