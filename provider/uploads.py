"""Input files of this machine, put where the provider can fetch them; the same content is uploaded once.

Judged before anything is sent: a file that is no image, too large or unreadable is the caller's mistake. What
was uploaded is remembered in `uploads` by content and place, until it may have expired there.
"""

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import IO, NamedTuple, cast

from sqlalchemy import Engine

from core.errors import AccountPaused, ProviderError, UserError
from core.input_images import inspect_input
from models.queries.uploads import KEEP_UPLOAD, USABLE_UPLOADS
from provider.cdn import CDN
from provider.settings import ProviderSettings

KEPT_FOR = 7 * 86_400.0
"""Seconds for which the provider keeps a file at the least (provider-protocol 6)."""
LINE_WAIT = 6 * 3600.0
"""Seconds that an edit may wait in our own line, and between its attempts."""
UPLOADS_AT_ONCE = 8


class LocalFile(NamedTuple):
    """An image on this machine, judged fit to be sent."""

    path: Path
    sha256: str
    content_type: str
    bytes: int
    warnings: tuple[str, ...] = ()
    """What may come of it, as words that follow its name."""
    converted: str | None = None
    """How another content is made of it when it is sent, in words; the rest is about that content."""

    @property
    def name(self) -> str:
        """What the provider hears as its name."""
        suffix = {"image/png": ".png", "image/jpeg": ".jpg"}.get(self.content_type, "")
        return self.path.with_suffix(suffix).name if self.converted else self.path.name


ReportProgress = Callable[[LocalFile, int], object]
"""Hears how many bytes of a file have left so far; called from several threads."""
OpenContent = Callable[[LocalFile], IO[bytes]]


def upload_files(
    files: Sequence[LocalFile],
    settings: ProviderSettings,
    engine: Engine,
    *,
    begin: Callable[[Collection[LocalFile]], ReportProgress] = lambda _: lambda *_: None,
    open_content: OpenContent = lambda file: file.path.open("rb", buffering=0),
) -> dict[Path, str]:
    """Send files to the provider that it does not have yet; gives the URL there of each.

    `begin` is called with the files that have to be uploaded, if any, and gives the one who hears how far they are.
    `open_content` opens what is sent of a file, as it was judged.

    Raises:
        UserError: a file is unreadable or changed since it was inspected, or the provider did not take it.
        SettingsError: there is no key.
    """
    known = _known(engine, settings, {file.sha256 for file in files})
    missing = {file.sha256: file for file in files if file.sha256 not in known}
    if not missing:
        return {file.path: known[file.sha256] for file in files}
    for file, url in _upload(missing.values(), settings, begin, open_content):
        _remember(engine, settings.fal_cdn_url, file, url)
        known[file.sha256] = url
    return {file.path: known[file.sha256] for file in files}


def inspect(path: Path) -> LocalFile:
    """Judge one file (`core.input_images`).

    Raises:
        UnfitInput: it cannot be sent, and why.
        UserError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            found = inspect_input(file, name=str(path))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None
    return LocalFile(path, found.sha256, found.content_type, found.bytes, found.warnings)


def needed_for(settings: ProviderSettings) -> float:
    """Seconds that an upload must live on to be used again: through our line, to the end of the run."""
    return LINE_WAIT + settings.submit_start_timeout + settings.run_allowance


def not_uploaded(files: Sequence[LocalFile], settings: ProviderSettings, engine: Engine) -> list[LocalFile]:
    """Those of the files that `upload_files` would have to send."""
    known = _known(engine, settings, {file.sha256 for file in files})
    return [file for file in files if file.sha256 not in known]


def _known(engine: Engine, settings: ProviderSettings, hashes: set[str]) -> dict[str, str]:
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(
            USABLE_UPLOADS,
            (list(hashes), settings.fal_cdn_url, needed_for(settings)),
        )
        return {row.sha256: row.url for row in rows}


class _SentFile(BufferedReader):
    """A file that tells how far it has been read, and the hash of what was read since it began."""

    def __init__(self, raw: IO[bytes], on_position: Callable[[int], object]) -> None:
        super().__init__(cast(RawIOBase, raw))
        self._on_position = on_position
        self._digest = hashlib.sha256()

    def seek(self, offset: int, whence: int = 0, /) -> int:
        if (offset, whence) == (0, 0):  # it is sent from the beginning, perhaps again
            self._digest = hashlib.sha256()
        return super().seek(offset, whence)

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self._digest.update(data)
        self._on_position(self.tell())
        return data

    def sha256(self) -> str:
        return self._digest.hexdigest()


def _upload(
    files: Collection[LocalFile],
    settings: ProviderSettings,
    begin: Callable[[Collection[LocalFile]], ReportProgress],
    open_content: OpenContent,
) -> Iterator[tuple[LocalFile, str]]:
    cdn = CDN(settings.fal_rest_url, settings.fal_cdn_url, settings.required_key())
    report = begin(files)

    def send(file: LocalFile) -> tuple[LocalFile, str]:
        with open_content(file) as raw, _SentFile(raw, lambda sent: report(file, sent)) as content:
            url = cdn.upload(content, content_type=file.content_type, file_name=file.name)
            if content.sha256() != file.sha256:  # remembered, it would pass for the content that was inspected
                raise UserError(f"{file.path} was changed while it was sent; nothing was written, submit it again.")
            return file, url

    with ThreadPoolExecutor(UPLOADS_AT_ONCE) as pool:
        try:
            yield from pool.map(send, files)
        except AccountPaused as error:
            raise UserError(f"The provider's storage refuses the account ({error}). {error.advice}") from None
        except ProviderError as error:
            raise UserError(f"The provider's storage did not take a file: {error}.") from None


def _remember(engine: Engine, cdn_url: str, file: LocalFile, url: str) -> None:
    about = {"sha256": file.sha256, "content_type": file.content_type, "bytes": file.bytes}
    with engine.begin() as connection:
        connection.exec_driver_sql(KEEP_UPLOAD, {**about, "cdn": cdn_url, "url": url, "kept": KEPT_FOR})
