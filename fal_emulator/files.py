"""Files on disk and their addresses: what clients uploaded and what runs produced.

Bytes are written to a temporary name and moved into place, so a half-written file is never served. The name of
a produced file follows from its request, so a run that is repeated after a restart overwrites its own file.
"""

import hashlib
import json
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from . import lifecycle
from .endpoints import media_base
from .lifecycle import Lifecycle
from .options import Options
from .store import Store

MEDIA_HOSTS = ("v3b.fal.media", "v3.fal.media", "fal.media")
ABANDONED_AFTER = 86_400.0  # seconds until an upload without an end is given up
PURGE_AT_ONCE = 500  # files deleted per turn of the janitor
NO_SETTINGS = '{"expiration_duration_seconds": null, "initial_acl": null}'
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One row of `files`."""

    path: str
    request_id: str | None
    markers: str
    content_type: str
    size: int
    sha256: str
    acl: str
    created_at: float
    expires_at: float | None


class Files:
    """The CDN's stored files."""

    def __init__(self, store: Store, options: Options, secret: bytes) -> None:
        self._store = store
        self._options = options
        self._secret = secret
        self._folder = options.state_dir / "files"
        self._parts = options.state_dir / "parts"
        for folder in (self._folder, self._parts):
            folder.mkdir(parents=True, exist_ok=True)
        self.settings: dict[str, Any] = json.loads(store.setting("storage") or NO_SETTINGS)
        for left_over in self._folder.glob("*/*.part"):
            left_over.unlink()

    def path_for(self, owner: str, name: str) -> str:
        """An address that cannot be guessed but is the same for the same owner and name."""
        token = hashlib.blake2b(f"{owner}/{name}".encode(), key=self._secret, digest_size=16).hexdigest()
        return f"b/{token[:8]}/{token[8:]}_{_UNSAFE.sub('_', name)[-80:] or 'file'}"

    def on_disk(self, path: str) -> Path:
        """Where the bytes of an address lie; never built from a client's text."""
        digest = hashlib.blake2b(path.encode(), digest_size=16).hexdigest()
        return self._folder / digest[:2] / digest

    def parts(self, upload_id: str) -> Path:
        """The folder for the parts of a multipart upload; ids are our own."""
        return self._parts / upload_id

    def write(self, path: str, data: bytes) -> str:
        """Put bytes at an address and return their SHA-256; runs in a thread."""
        return self.place(self.on_disk(path), data)

    def place(self, target: Path, data: bytes) -> str:
        """Put bytes in place, whole or not at all."""
        part = target.with_name(f"{target.name}.{os.urandom(4).hex()}.part")
        target.parent.mkdir(exist_ok=True)
        part.write_bytes(data)
        part.replace(target)
        return hashlib.sha256(data).hexdigest()

    def register(
        self,
        path: str,
        content_type: str,
        size: int,
        sha256: str,
        life: Lifecycle,
        *,
        request_id: str | None = None,
        markers: str = "",
    ) -> None:
        """Give the file its address from now on; what its own lifecycle leaves open, the account's settings say."""
        now, account = time.time(), lifecycle.read(self.settings)
        seconds = life.seconds if life.expires else account.seconds or self._options.media_retention or None
        expires_at = None if seconds is None else now + self._options.scaled(seconds)
        acl = life.acl or account.acl or "allow"
        values = (path, request_id, markers, content_type, size, sha256, acl, now, expires_at)
        self._store.write("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)

    def keep_settings(self, given: dict[str, Any]) -> None:
        """Take the account's new settings; what they omit is cleared. Raises InvalidLifecycle."""
        lifecycle.read(given)
        self.settings = {name: given.get(name) for name in json.loads(NO_SETTINGS)}
        self._store.keep_setting("storage", json.dumps(self.settings))

    def delete(self, path: str) -> bool:
        """Delete a file; False when there is none."""
        self.on_disk(path).unlink(missing_ok=True)
        return self._store.write("DELETE FROM files WHERE path = ?", (path,)).rowcount == 1

    def url(self, origin: str, path: str) -> str:
        """The public address for a client that came from `origin`."""
        return f"{media_base(origin)}/files/{quote(path)}"

    def find(self, path: str) -> StoredFile | None:
        """The file at this address, unless it is expired."""
        row = self._store.one("SELECT * FROM files WHERE path = ?", (path,))
        if row is None:
            return None
        found = StoredFile(*row)
        return None if found.expires_at is not None and found.expires_at <= time.time() else found

    def own_path(self, url: str, origin: str) -> str | None:
        """The address behind a URL when it is ours: fal's media hosts never mean the real ones here."""
        parts = urlsplit(url)
        ours = parts.hostname in MEDIA_HOSTS or f"{parts.scheme}://{parts.netloc}" == media_base(origin)
        if not ours or not parts.path.startswith("/files/"):
            return None
        return unquote(parts.path.removeprefix("/files/"))

    def purge_abandoned(self) -> None:
        """Delete uploads that were begun and never completed."""
        too_old = time.time() - ABANDONED_AFTER
        for (upload_id,) in self._store.rows("SELECT upload_id FROM uploads WHERE created_at < ?", (too_old,)):
            shutil.rmtree(self.parts(upload_id), ignore_errors=True)
            self._store.write("DELETE FROM uploads WHERE upload_id = ?", (upload_id,))

    def purge_expired(self) -> None:
        """Delete expired files, a bounded number at a time."""
        rows = self._store.rows(
            "SELECT path FROM files WHERE expires_at <= ? ORDER BY expires_at LIMIT ?", (time.time(), PURGE_AT_ONCE)
        )
        for (path,) in rows:
            self.delete(path)
