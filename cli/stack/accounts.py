"""As whom the embedded servers run, and who may reach their folders.

For an ordinary user that is the user, and folders are closed to all others. Root starts no server as root: they get
a user of their own, who may pass through the home and read nothing but their own folders.
"""

import os
import pwd
import shlex
import shutil
import stat
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TypedDict

from cli.stack.home import Home
from core.errors import UserError

SERVER_USER = "pgserver"
"""As in earlier releases: an existing cluster belongs to it."""
SYSTEM_PROGRAMS = "/usr/sbin:/usr/local/sbin:/sbin"
"""Where `useradd` is; often on no PATH."""


def server_user(home: Home) -> str | None:
    """The user of the embedded servers where we are root, made if there is none, and let through the home.

    Raises:
        UserError: it cannot be made here.
    """
    if os.geteuid() != 0:
        return None
    try:
        account = pwd.getpwnam(SERVER_USER)
    except KeyError:
        account = _make_user()
    for folder in (home.folder, home.sockets):
        os.chown(folder, -1, account.pw_gid)
        folder.chmod(stat.S_IMODE(folder.stat().st_mode) | stat.S_IXGRP)
    let_through(home.folder)
    if home.folder not in home.sockets.parents:
        let_through(home.sockets)
    return SERVER_USER


def let_through(path: Path) -> None:
    """Let every user pass through our folders above `path`, which shows them nothing.

    Raises:
        UserError: a folder of someone else, or one that cannot be changed, is closed.
    """
    for folder in path.parents:
        found = folder.stat()
        if found.st_mode & stat.S_IXOTH:
            continue
        if found.st_uid == os.geteuid():
            with suppress(OSError):
                folder.chmod(stat.S_IMODE(found.st_mode) | stat.S_IXGRP | stat.S_IXOTH)
                continue
        raise UserError(
            f"As root, the embedded servers run as the user {SERVER_USER}, who cannot pass through {folder}; "
            f"start darkroom as the owner of that folder, or allow it with: chmod o+x {shlex.quote(str(folder))}"
        )


def _make_user() -> pwd.struct_passwd:
    ways_out = "start darkroom as an ordinary user, or set DATABASE_URL and REDIS_URL"
    program = shutil.which("useradd") or shutil.which("useradd", path=SYSTEM_PROGRAMS)
    if program is None:
        raise UserError(
            f"As root, the embedded servers run as the user {SERVER_USER}, and there is no `useradd` to make it: "
            f"make it yourself, {ways_out}."
        )
    answer = subprocess.run(
        (program, "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", SERVER_USER),
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        return pwd.getpwnam(SERVER_USER)
    except KeyError:
        raise UserError(f"The user {SERVER_USER} cannot be made: {answer.stderr.strip()}; {ways_out}.") from None


def own_folder(folder: Path, user: str | None) -> None:
    """A folder that only `user` (None: we) and root can enter."""
    folder.mkdir(mode=0o700, exist_ok=True)
    if user:
        account = pwd.getpwnam(user)
        os.chown(folder, account.pw_uid, account.pw_gid)
    folder.chmod(0o700)


class Identity(TypedDict, total=False):
    """As whom a program is run, as `subprocess` takes it."""

    user: int
    group: int
    extra_groups: tuple[int, ...]


def identity(user: str | None) -> Identity:
    """As `user`, and with no other rights; as we are, where it is None."""
    if user is None:
        return {}
    account = pwd.getpwnam(user)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": ()}
