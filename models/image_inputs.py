"""What an entry of `image_urls` may be: a web URL, a data URI, an object of the store, or a path of this machine.

Judged by its text alone.

A URL is parsed, not matched by its beginning. A data URI is read as RFC 2397 has it and written in the one form
that the provider takes, `data:image/…;base64,…` (provider-protocol 8).
"""

import re
from urllib.parse import unquote, urlsplit

_PLAIN_URL = re.compile(
    r"https?://(?!https?[:/])[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*(?::[0-9]{1,4})?(?:[/?#][!#-+.-:=?-{}~-]*)?"
)
_WEB = re.compile(r"https?:", re.IGNORECASE)
_SCHEME = re.compile(r"data:|https?:|[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_BLANK = re.compile(r"[\s\x00-\x1f\x7f]")
_JOINED = re.compile(
    r"(?:[,;|+>\uff0c\uff1b\uff5c\u3001]\s*|(?<=\w)(?<!%[0-9A-F]{2}))(?:https?://|storage://|data:image/)",
    re.IGNORECASE,
)
"""Another URL behind what separates two, also in the wide characters of East Asian keyboards, or behind nothing at all.
One that belongs to the first stands behind `/`, `=` or the like, or is written with percent signs."""
_NO_HOST = re.compile(r"[^\w.:-]")
_SENDABLE = re.compile(r"data:image/[\w.+-]+;base64,([A-Za-z0-9+/]+={0,2})", re.IGNORECASE | re.ASCII)
_IMAGE_TYPE = re.compile(r"image/[\w.+-]+", re.IGNORECASE | re.ASCII)
_BASE64 = re.compile(r"[A-Za-z0-9+/]+", re.ASCII)
_UNUSUAL = str.maketrans("-_", "+/", " \t\r\n")
"""The other alphabet of base64 (RFC 4648, 5) into the usual one; blanks and line ends go."""


def is_plain_url(text: str) -> bool:
    """Whether it is surely one http(s) URL, as most are; what is not is looked at more closely."""
    return _PLAIN_URL.fullmatch(text) is not None and text.find("://", len("https://")) < 0


OBJECT = "storage://"
"""How an entry begins that names an object of the store, among those of the batch's client."""
OBJECT_MAX = 512
"""Bytes of its name."""
_NO_KEY = re.compile(r"[\x00-\x1f\x7f\\]")


def is_object(entry: str) -> bool:
    """Whether an entry of `image_urls` names an object of the store."""
    return entry.startswith(OBJECT)


def host_of(entry: str) -> str | None:
    """Of a web URL its host with its port; '' of a data URI, None of an object of the store."""
    if is_object(entry):
        return None
    if entry[:5].lower() == "data:":
        return ""
    return urlsplit(entry).netloc.rpartition("@")[2].lower()


def is_web_url(text: str) -> bool:
    """Whether it is one http(s) URL."""
    return check_web_url(text) is None


def is_local_path(entry: str) -> bool:
    """Whether an entry of `image_urls` names a file of this machine: it has no scheme of any kind."""
    return _SCHEME.match(entry.lstrip()) is None


def check_web_url(text: str) -> str | None:
    """Why this is not one http(s) URL, as words that follow its name; None where it is."""
    if is_plain_url(text):
        return None
    if not _WEB.match(text):
        return "is no URL (http, https)"
    if _BLANK.search(text):
        return "holds a blank or a control character; in a URL a space is written %20"
    if _JOINED.search(text):
        return "joins several URLs; each must be an entry of its own (a comma inside a URL is written %2C)"
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return "is a URL whose host or port cannot be read"
    if not host:
        return "is a URL without a host"
    if host in ("http", "https"):
        return "names its scheme twice"
    if _NO_HOST.search(host) or not all(host.removesuffix(".").split(".")):
        return "is a URL whose host or port cannot be read"
    return None


def read_image_url(entry: str) -> str:
    """A web URL as it is, a data URI in the form in which it is sent, the name of an object with its scheme in small
    letters.

    Raises:
        ValueError: it is neither; its text is why, as words that follow its name.
    """
    if entry[:5].lower() == "data:":
        return _read_data_uri(entry)
    if entry[: len(OBJECT)].lower() == OBJECT:
        return _read_object(entry[len(OBJECT) :])
    if reason := check_web_url(entry):
        web = _WEB.match(entry)
        raise ValueError(reason if web else "is neither a URL (http, https) nor a data URI of an image")
    return entry


def _read_object(name: str) -> str:
    if not name:
        raise ValueError("names no object: after storage:// stands its key")
    if len(name.encode()) > OBJECT_MAX:
        raise ValueError(f"names an object by more than {OBJECT_MAX} bytes")
    if _NO_KEY.search(name) or not {"", ".", ".."}.isdisjoint(name.split("/")):
        raise ValueError(
            "names no object: a key has no control character or backslash, no part of it is empty, . or .."
        )
    return OBJECT + name


def _read_data_uri(entry: str) -> str:
    if (match := _SENDABLE.fullmatch(entry)) and len(match[1]) % 4 == 0:
        return entry
    head, comma, content = entry[5:].partition(",")
    if not comma:
        raise ValueError("is a data URI without a comma, which must stand before its data")
    media_type, *parameters = (part.strip() for part in head.split(";"))
    if not _IMAGE_TYPE.fullmatch(media_type):
        raise ValueError("is a data URI, but of no image: its type must begin with image/")
    if not parameters or parameters[-1].lower() != "base64":
        raise ValueError("is a data URI that is not in base64")
    if "%" in content:
        content = unquote(content)
    whole = content.translate(_UNUSUAL)
    content = whole.rstrip("=")
    if not _BASE64.fullmatch(content):
        raise ValueError("is a data URI with characters that are no base64" if content else "is an empty data URI")
    if len(content) % 4 == 1:
        raise ValueError("is a data URI that was cut short: its base64 does not end")
    if whole != content and len(whole) % 4:
        raise ValueError("is a data URI that is damaged: its padding does not fit (a form makes a blank of each +)")
    return f"data:{media_type};base64,{content}{'=' * (-len(content) % 4)}"
