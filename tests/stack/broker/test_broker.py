"""The embedded broker is no way in: not for another user of this machine, and not to files or code for anybody."""

import os
import pwd
import shlex
import socket
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import redis
from celery import Celery

from cli.stack import broker
from cli.stack.broker import broker as prepare
from cli.stack.embedded import make_cluster, postgres
from cli.stack.home import Home
from cli.stack.processes import Process
from cli.stack.supervision import command_line
from core.broker_url import parse_broker_url
from core.errors import UserError
from tests.support.running_stack import broker_process, eventually

NOBODY = 65534


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A broker, its URL and its process."""
    with broker_process() as (url, process):
        assert eventually(lambda: responds(url))
        yield url, process


@pytest.fixture
def home() -> Iterator[Home]:
    """A home in a folder that everybody may enter, as /tmp is."""
    with tempfile.TemporaryDirectory(prefix="darkroom-rights-") as folder:
        Path(folder).chmod(0o755)
        home = Home(Path(folder) / "home")
        home.create()
        yield home


@contextmanager
def another_user() -> Iterator[None]:
    """Within the block this process has the rights of a stranger."""
    if os.geteuid() != 0:
        pytest.skip("only root can act as another user")
    groups, group = os.getgroups(), os.getegid()
    os.setgroups([])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def responds(url: str) -> bool:
    try:
        with redis.Redis.from_url(parse_broker_url(url).url) as client:
            return bool(client.ping())
    except redis.ConnectionError:
        return False


def socket_of(url: str) -> str:
    return parse_broker_url(url).url.removeprefix("unix://").partition("?")[0]


def test_listens_on_no_port(running: tuple[str, subprocess.Popen[bytes]]) -> None:
    """A Unix socket only: a port of loopback would be open to every user."""
    found = psutil.Process(running[1].pid).net_connections("all")
    assert [one for one in found if one.family in (socket.AF_INET, socket.AF_INET6)] == []


def test_other_user_cannot_connect(running: tuple[str, subprocess.Popen[bytes]]) -> None:
    """The attack: a stranger on this machine opens the socket."""
    path = socket_of(running[0])
    with another_user(), socket.socket(socket.AF_UNIX) as client, pytest.raises(PermissionError):
        client.connect(path)


def test_folder_is_closed(running: tuple[str, subprocess.Popen[bytes]]) -> None:
    """What keeps strangers out, for whoever runs the tests."""
    path = Path(socket_of(running[0]))
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "command",
    [
        "CONFIG SET dir /tmp",
        "CONFIG GET dir",
        "SAVE",
        "MODULE LIST",
        "DEBUG SLEEP 0",
        "EVAL return(1) 0",
        "FUNCTION LIST",
        "ACL SETUSER default +@all",
        "REPLICAOF 127.0.0.1 1",
        "MONITOR",
        "SHUTDOWN",
    ],
)
def test_no_way_to_files_or_code(running: tuple[str, subprocess.Popen[bytes]], command: str) -> None:
    """Denied even to its own user: whoever can push a message cannot write a file."""
    with (
        redis.Redis.from_url(parse_broker_url(running[0]).url) as client,
        pytest.raises((redis.exceptions.NoPermissionError, redis.ResponseError), match=r"no perm|not allowed"),
    ):
        client.execute_command(*command.split())


@pytest.mark.parametrize("make", [postgres, prepare])
def test_runs_without_root(make: Callable[[Home], Process], home: Home) -> None:
    """Under root a server is run as a user of its own, who can reach what it needs."""
    if make is postgres:
        make_cluster(home)
    process = make(home)
    assert process.user == ("pgserver" if os.geteuid() == 0 else None)
    with subprocess.Popen(
        shlex.split(command_line(process)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as it:
        try:
            assert eventually(lambda: list(home.sockets.glob("*/*redis.sock")) + list(home.sockets.glob("pg/.s.*")))
            assert psutil.Process(it.pid).uids().effective == (
                pwd.getpwnam("pgserver").pw_uid if process.user else os.geteuid()
            )
        finally:
            it.terminate()


def test_home_is_not_readable_by_others(home: Home) -> None:
    """Logs, images and the emulator's files are for this user alone; the servers' own user only passes through."""
    make_cluster(home)
    postgres(home)
    prepare(home)
    (home.images / "a.png").write_bytes(b"x")
    assert stat.S_IMODE(home.folder.stat().st_mode) in (0o700, 0o710)
    for folder in (home.logs, home.images, home.emulator, home.postgres, home.broker_socket.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder
    with another_user():
        for path in (home.images / "a.png", home.logs / "postgres.log", home.postgres / "PG_VERSION"):
            with pytest.raises(PermissionError):
                path.read_bytes()


def test_folders_above_the_home_are_not_opened_for_reading(home: Home) -> None:
    """Under root, PostgreSQL's own user has to pass through them; nobody has to list them."""
    above = home.folder.parent
    above.chmod(0o700)
    postgres(home)
    assert stat.S_IMODE(above.stat().st_mode) == (0o711 if os.geteuid() == 0 else 0o700)


def test_folder_of_someone_else_is_not_opened(home: Home) -> None:
    """Root may open what is root's; another user's closed folder stays closed, and the sentence says what to do."""
    if os.geteuid() != 0:
        pytest.skip("only root's servers have another user")
    above = home.folder.parent
    above.chmod(0o700)
    os.chown(above, NOBODY, NOBODY)
    with pytest.raises(UserError, match=r"cannot pass through .*chmod o\+x"):
        postgres(home)
    assert stat.S_IMODE(above.stat().st_mode) == 0o700
    os.chown(above, 0, 0)


def test_second_start_leaves_the_servers_their_way(home: Home) -> None:
    """`darkroom up` in a home where one runs already must not lock the running servers out."""
    prepare(home)
    before = [stat.S_IMODE(folder.stat().st_mode) for folder in (home.folder, home.sockets)]
    home.create()
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in (home.folder, home.sockets)] == before


def test_older_home_is_closed(home: Home) -> None:
    """What an earlier release left open to all is closed at the next start."""
    for folder in (home.logs, home.images):
        folder.chmod(0o755)
    home.create()
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in (home.logs, home.images)} == {0o700}


@pytest.mark.filterwarnings("ignore:Call to deprecated:DeprecationWarning")  # by Celery
def test_celery_works_on_it(running: tuple[str, subprocess.Popen[bytes]]) -> None:
    """What Celery does beside its queues: a ping binds an expiring queue, which Kombu does with a script."""
    with Celery(broker=running[0], backend=running[0]) as app:
        assert app.control.broadcast("ping", reply=True, timeout=0.2) == []
        app.backend.set("key", "value")
        assert app.backend.get("key") == b"value"


@pytest.mark.parametrize(("said", "taken"), [("v=7.2.5", True), ("v=6.0.16", False), ("what?", False)])
def test_server_of_the_machine_is_preferred(
    said: str, taken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is new enough to know access rules; else the one out of the wheel."""
    program = tmp_path / "redis-server"
    program.write_text(f"#!/bin/sh\necho 'Redis server {said} sha=0'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert (broker.find_server() == str(program)) == taken
