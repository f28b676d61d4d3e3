"""`STORAGE_URL`, read once: a folder in any usual form becomes a `file://` URL, what is ambiguous is refused."""

import re
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

SCHEMES = ("file://", "s3://", "gs://", "az://")
SIGNING = ("s3://", "gs://", "az://")
FORMS = {
    r"https?://[^/]*(windows\.net|azure)|azure:|azblob:|abfss?:|wasbs?:|adls?:": "az://container/prefix",
    r"https?://storage\.(googleapis|cloud\.google)\.|gcs:": "gs://bucket/prefix",
    r"https?://[^/]*\.amazonaws\.|s3[an]?:|arn:aws:s3:": "s3://bucket/prefix",
    r"https?://|(r2|b2|minio|spaces|wasabi|do):": "s3://bucket/prefix, and its address as AWS_ENDPOINT_URL",
}
"""How other programs name a store -> how it is named here."""


def read_storage_url(url: str) -> str:
    """The URL in the one form that everybody works with.

    Raises:
        ValueError: why it cannot be used, with the right form where that can be guessed.
    """
    url = url.strip()
    if any(not character.isprintable() for character in url):
        raise ValueError("it holds a control character")
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", url):
        return _folder(url)
    if not url.startswith(SCHEMES):
        form = next((form for pattern, form in FORMS.items() if re.match(pattern, url, re.IGNORECASE)), None)
        advice = f"; write {form}" if form else ""
        raise ValueError(f"it must start with file://, s3://, gs:// or az://, or be the path of a folder{advice}")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("it is no URL") from None
    if parts.query or parts.fragment or "?" in url or "#" in url:
        raise ValueError("it holds ? or #; in the name of a folder write %3F or %23")
    if parts.scheme == "file":
        return _local(url, parts.netloc, parts.path)
    if not parts.netloc or "@" in parts.netloc or ":" in parts.netloc:
        raise ValueError(f"it must name a bucket, as {parts.scheme}://bucket/prefix; see docs/deploy.md for its keys")
    return url.rstrip("/")


def can_sign(url: str) -> bool:
    """Whether a store of this URL can give out links that anybody may read for a time: a folder cannot."""
    return url.startswith(SIGNING)


def _local(url: str, host: str, path: str) -> str:
    if host in ("", "localhost"):
        if "\0" in unquote(path):
            raise ValueError("it holds a control character")
        return f"file://{path}".rstrip("/") if path.strip("/") else _folder("")
    given = url.removeprefix("file://")
    if host in (".", "..", "~") or host.startswith("~"):
        raise ValueError(f"{url} would be a folder of the machine {host}; write {given}, without file://")
    raise ValueError(f"{url} would be a folder of the machine {host}; write file:///{given}, or {given} for a path")


def _folder(path: str) -> str:
    if not path or not path.strip("/"):
        raise ValueError("it names no folder")
    if path[0] in "\"'":
        raise ValueError("it stands in quotes; write it without")
    if "$" in path or "\\" in path:
        wrong = "$" if "$" in path else "\\"
        raise ValueError(f"it holds {wrong}, which means nothing here; write the path itself, with /")
    return f"file://{quote(str(expand_home(Path(path)).absolute()))}"


def expand_home(path: Path) -> Path:
    """A path that may begin with `~` or `~name`.

    Raises:
        ValueError: nobody of that name is known here, or it has no home.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(f"{path} begins with the home of somebody who is not known here") from None
