"""The folder DARKROOM_HOME: what lies where, who holds it, and what the running stack tells other terminals.

One stack runs in a home at a time; a file lock says so, and it is kept by the supervisor too, so that it falls
only when the last process of the stack is gone. This file starts nothing and knows no settings.
"""

import fcntl
import hashlib
import os
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from core.errors import UserError

SOCKET_PATH_LIMIT = 103
"""Bytes in the path of a Unix socket on macOS; Linux takes 107."""
LONGEST_SOCKET = "supervisor.sock.4194304"
"""The supervisor binds a name with its process id first."""
KILLED_STACK_ENDS_WITHIN = 600.0
"""Seconds for a killed stack to end before the next one gives up waiting; longer than stopping ever takes."""


@dataclass(frozen=True, slots=True)
class Home:
    """Where things lie. `folder` is absolute."""

    folder: Path

    @property
    def postgres(self) -> Path:
        """The data of the embedded PostgreSQL."""
        return self.folder / "postgres"

    @property
    def logs(self) -> Path:
        """One file for each program."""
        return self.folder / "logs"

    @property
    def images(self) -> Path:
        """The store, unless another one is named."""
        return self.folder / "images"

    @property
    def emulator(self) -> Path:
        """The ledger of the emulator."""
        return self.folder / "emulator"

    @property
    def configuration(self) -> Path:
        """What the supervisor is told."""
        return self.folder / "supervisord.conf"

    @property
    def sockets(self) -> Path:
        """Inside the home, or in the folder for temporary files where the home's own path cannot be a socket's.

        It may be too long, or have a comma, which for PostgreSQL separates hosts.
        """
        inside = self.folder / "run"
        if len(os.fsencode(inside / LONGEST_SOCKET)) <= SOCKET_PATH_LIMIT and "," not in str(inside):
            return inside
        digest = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"darkroom-{digest}"

    @property
    def postgres_sockets(self) -> Path:
        """Where the embedded PostgreSQL listens."""
        return self.sockets / "pg"

    @property
    def broker_socket(self) -> Path:
        """Where the embedded Redis listens."""
        return self.sockets / "broker" / "redis.sock"

    @property
    def supervisor_socket(self) -> Path:
        """Where the supervisor listens."""
        return self.sockets / "supervisor.sock"

    @property
    def notify_secret(self) -> Path:
        """The secret with which notifications are signed, unless another one is named."""
        return self.folder / "notify.secret"

    @property
    def _lock(self) -> Path:
        return self.folder / "stack.lock"

    @property
    def _variables(self) -> Path:
        return self.folder / "stack.env"

    def create(self) -> None:
        """Make the folders that every stack needs; nobody else can read them.

        A home that is there already keeps its rights: it may be a folder that others use too.

        Raises:
            UserError: the home cannot be used.
        """
        if not str(self.folder).isprintable():
            raise UserError("DARKROOM_HOME holds a line end, or what cannot be printed; choose another folder.")
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self.folder.mkdir(mode=0o700, exist_ok=True)
            for folder in (self.logs, self.images, self.emulator, self.sockets):
                folder.mkdir(mode=0o700, exist_ok=True)
                _close(folder)
        except OSError as error:
            raise UserError(f"DARKROOM_HOME {self.folder} cannot be used: {error.strerror}.") from None

    @contextmanager
    def hold(self) -> Iterator[int]:
        """Hold the home alone; gives the lock's descriptor, for the supervisor to keep.

        Raises:
            UserError: a stack runs here already.
        """
        with self._lock.open("a+") as lock:
            self._acquire(lock)
            self._variables.unlink(missing_ok=True)
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            try:
                yield lock.fileno()
            finally:
                self._variables.unlink(missing_ok=True)

    def _acquire(self, lock: TextIO) -> None:
        """Lock the home, waiting for a stack whose `darkroom up` was killed and which is about to end."""
        deadline, waiting = time.monotonic() + KILLED_STACK_ENDS_WITHIN, False
        while not _locked(lock.fileno(), fcntl.LOCK_EX):
            lock.seek(0)
            holder = lock.read().strip()
            if holder and _alive(int(holder)):
                raise UserError(f"A stack already runs in {self.folder} (process {holder}); stop it first.")
            if time.monotonic() > deadline:
                raise UserError(f"A killed stack in {self.folder} does not end; see {self.logs}.")
            if not waiting:
                print(f"darkroom: waiting for the killed stack in {self.folder} to end", file=sys.stderr)
            waiting = True
            time.sleep(0.1)

    def publish(self, variables: Mapping[str, str]) -> None:
        """Let other terminals find the running stack; for this user's eyes only, it may hold a key."""
        _write_private(self._variables, "".join(f"{name}={value}\n" for name, value in sorted(variables.items())))

    def keep_notify_secret(self, secret: str) -> None:
        """Keep what notifications are signed with, unless there is one already; for this user's eyes only."""
        if not self.notify_secret.exists():
            _write_private(self.notify_secret, f"{secret}\n")

    def read_published(self) -> dict[str, str]:
        """What the stack that runs here has told; nothing where none runs."""
        with suppress(FileNotFoundError), self._lock.open() as lock:
            if not _locked(lock.fileno(), fcntl.LOCK_SH):
                lines = self._variables.read_text().splitlines()
                return dict(line.split("=", 1) for line in lines)
        return {}


def _close(folder: Path) -> None:
    """Take the rights of others from a folder of ours, which an earlier release or another user may have made.

    Raises:
        UserError: it is not ours.
    """
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise UserError(f"{folder} belongs to someone else; choose another DARKROOM_HOME.")
    if found.st_mode & 0o067:  # to pass through is what a running stack allows its servers
        folder.chmod(0o700)


def _write_private(path: Path, text: str) -> None:
    """A file that only this user can read, whole or not at all."""
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)


def _locked(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Whether it has ended and only its parent has not noticed."""
    try:
        import psutil  # type: ignore[import-untyped]  # comes with the extra `local`, like every stack
    except ImportError:
        return False
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
