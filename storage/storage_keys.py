"""What a key may be, in every store alike."""

from core.errors import Unusable

LONGEST_KEY = 800
"""Bytes of UTF-8: S3 and GCS hold 1024, with the prefix that `STORAGE_URL` may name; a folder 255 in each part."""

FORBIDDEN = "\x7f\\"
"""Azure and SeaweedFS take a backslash for a slash: two keys would be one."""


def check_key(key: str) -> None:
    """Refuse a key that would lead elsewhere, or that one of the stores could not hold.

    Raises:
        Unusable: it cannot be one.
    """
    wrong = len(key.encode(errors="replace")) > LONGEST_KEY
    wrong = wrong or any(segment in ("", ".", "..") for segment in key.split("/"))
    if wrong or any(ord(character) < 32 or character in FORBIDDEN for character in key):
        raise Unusable("storage_key_refused", f"{key[:300]!r} cannot be a key in storage."[:500])


def metadata_of(key: str) -> dict[str, str]:
    """Whose image lies under `batch/edit/…`: kept with it, so that a bucket can be read without the database."""
    batch, edit, _ = key.split("/")
    return {"batch": batch, "edit": edit}
