"""DARKROOM_HOME in folders with names that people give: the supervisor, the servers and other terminals find it."""

import os
import sys
from pathlib import Path

import psycopg
import pytest

from cli.stack import broker, embedded
from cli.stack.broker_readiness import redis_answers
from cli.stack.home import Home
from cli.stack.processes import Process, Stage
from cli.stack.readiness import ensure_database, until
from cli.stack.supervision import Supervisor
from core.errors import UserError
from core.settings import StorageSettings, load
from storage.store import Storage

pytestmark = pytest.mark.filterwarnings("ignore:unclosed.*socket:ResourceWarning")  # each question opens one
NAMES = ["photos #1", "a ; b", "100% off %(here)s", """it's "it\"""", "Été 帽子", "comma, then", "-x"]
SAYS = "import os; open('said.new', 'w').write(os.getcwd()); os.rename('said.new', 'said'); import time; time.sleep(60)"


@pytest.mark.parametrize("name", NAMES)
def test_the_supervisor_runs_what_it_is_told_where_it_is_told(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.chdir(folder)
    home = Home(folder / ".darkroom")
    home.create()
    program = Process("speaker", (sys.executable, "-c", SAYS), Stage.SERVERS)
    with home.hold() as lock:
        supervisor = Supervisor(home, (program,), os.environ, lock)
        try:
            supervisor.wait()
            supervisor.start(Stage.SERVERS)
            assert until((folder / "said").exists, timeout=60)
            assert (folder / "said").read_text() == str(folder)
            variables = {"STORAGE_URL": home.images.as_uri(), "DARKROOM_HOME": str(home.folder)}
            home.publish(variables)
            assert home.read_published() == variables
        finally:
            supervisor.stop()


def test_a_name_of_two_lines_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="line end"):
        Home(tmp_path / "two\nlines").create()


@pytest.mark.parametrize("name", ["photos #1", """100% "it" 'é', ; x"""])
def test_the_embedded_servers_and_the_images(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / name
    folder.mkdir()
    for place in (tmp_path, *tmp_path.parents):  # the server runs as another user where we are root
        if place.stat().st_uid == os.geteuid() and place != Path("/"):
            place.chmod(place.stat().st_mode | 0o011)
    monkeypatch.chdir(folder)
    home = Home(folder / ".darkroom")
    home.create()
    with home.hold() as lock:
        processes = (embedded.postgres(home), broker.broker(home))
        embedded.make_cluster(home)
        supervisor = Supervisor(home, processes, os.environ, lock)
        try:
            supervisor.wait()
            supervisor.start(Stage.SERVERS)
            url = embedded.database_url(home, emulated=True)
            assert until(lambda: ensure_database(url), timeout=60)
            assert until(lambda: redis_answers(broker.broker_url(home)), timeout=60)
            with psycopg.connect(url) as connection:
                assert connection.execute("SELECT 1").fetchone() == (1,)
        finally:
            supervisor.stop()
    monkeypatch.setenv("DARKROOM_HOME", str(home.folder))
    with (folder / "p").open("wb+") as file:
        file.write(b"x")
        Storage(load(StorageSettings).storage_url).put("k", file)
    assert (home.images / "k").read_bytes() == b"x"
