"""Input files of this machine, put where the provider can fetch them; the same content is uploaded once.

Judged before anything is sent: a file that is no picture, too large or unreadable is the caller's mistake. What
was uploaded is remembered in `uploads` by content and place, until it may have expired there.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError
from sqlalchemy import Engine

from models.errors import ProviderError, UserError
from worker.cdn import CDN
from worker.pictures import FORMATS, type_of
from worker.settings import WorkerSettings

INPUT_MAX_BYTES = 100 * 1024 * 1024
"""Above this the provider wants another way of uploading (fal-protocol 8.2); its model takes far less anyway."""
KEPT_FOR = "7 days"
"""How long the provider keeps a file at the least (fal-protocol 6)."""
USED_WITHIN = "1 day"
"""An upload is used again only if it lives so long still: an edit may wait a while for its start."""
UPLOADS_AT_ONCE = 8


class LocalFile(NamedTuple):
    """A picture on this machine, judged fit to be sent."""

    path: Path
    sha256: str
    content_type: str
    bytes: int


def upload_files(paths: Sequence[Path], settings: WorkerSettings, engine: Engine) -> dict[Path, str]:
    """The URL of each file at the provider.

    Raises:
        UserError: a file is unreadable, too large or no picture, or the provider did not take it.
    """
    files = [inspect(path) for path in paths]
    known = _known(engine, settings.fal_cdn_url, {file.sha256 for file in files})
    missing = {file.sha256: file for file in files if file.sha256 not in known}
    for file, url in _upload(missing.values(), settings):
        _remember(engine, settings.fal_cdn_url, file, url)
        known[file.sha256] = url
    return {file.path: known[file.sha256] for file in files}


def inspect(path: Path) -> LocalFile:
    """Judge one file.

    Raises:
        UserError: it cannot be sent, and why.
    """
    try:
        size = path.stat().st_size
        if size > INPUT_MAX_BYTES:
            raise UserError(f"{path} has {size} bytes; at most {INPUT_MAX_BYTES} can be sent.")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            with Image.open(file, formats=list(FORMATS)) as picture:
                return LocalFile(path, digest, type_of(picture), size)
    except UnidentifiedImageError:
        raise UserError(f"{path} is no picture of a kind that can be sent ({', '.join(FORMATS)}).") from None
    except (OSError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from None


def _known(engine: Engine, cdn_url: str, hashes: set[str]) -> dict[str, str]:
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(
            f"""
            SELECT sha256, url FROM uploads WHERE sha256 = ANY(%s) AND cdn_url = %s
            AND (expires_at IS NULL OR expires_at > now() + interval '{USED_WITHIN}')
            """,  # noqa: S608 - a constant of this file
            (list(hashes), cdn_url),
        )
        return {row.sha256: row.url for row in rows}


def _upload(files: Iterable[LocalFile], settings: WorkerSettings) -> Iterator[tuple[LocalFile, str]]:
    cdn = CDN(settings.fal_rest_url, settings.fal_cdn_url, settings.required_key())

    def send(file: LocalFile) -> tuple[LocalFile, str]:
        with file.path.open("rb") as content:
            return file, cdn.upload(content, content_type=file.content_type, file_name=file.path.name)

    with ThreadPoolExecutor(UPLOADS_AT_ONCE) as pool:
        try:
            yield from pool.map(send, files)
        except ProviderError as error:
            raise UserError(f"The provider's storage did not take a file: {error}.") from None


def _remember(engine: Engine, cdn_url: str, file: LocalFile, url: str) -> None:
    values: Mapping[str, object] = file._asdict() | {"path": None, "cdn": cdn_url, "url": url}
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"""
            INSERT INTO uploads (sha256, cdn_url, url, content_type, bytes, expires_at)
            VALUES (%(sha256)s, %(cdn)s, %(url)s, %(content_type)s, %(bytes)s, now() + interval '{KEPT_FOR}')
            ON CONFLICT (sha256, cdn_url) DO UPDATE
            SET url = excluded.url, uploaded_at = now(), expires_at = excluded.expires_at
            """,  # noqa: S608 - a constant of this file
            values,
        )
