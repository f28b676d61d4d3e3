"""What the supervisor is told: every program restarts, and strange paths survive the way through its format."""

import os
import shlex
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
import yaml
from supervisor.options import ServerOptions

from cli.stack import embedded, processes
from cli.stack.home import KILLED_STACK_ENDS_WITHIN, SOCKET_PATH_LIMIT, Home
from cli.stack.processes import Process, Stage
from cli.stack.supervision import command_line, configuration, paths_as_variables, stops_within
from worker import lane_loop
from worker.lane import load_lane
from worker.lanes import LANES

COMPOSE = yaml.safe_load((Path(__file__).parents[3] / "docker-compose.yml").read_text())


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    home = Home(tmp_path / "a home; 100% odd")
    home.create()
    monkeypatch.chdir(home.folder)  # as the supervisor does
    return home


def parsed(home: Home, *parts: Process) -> ServerOptions:
    """The configuration as the supervisor itself reads it."""
    with home.configuration.open("w") as file:
        configuration(parts).write(file)
    with patch.dict(os.environ, paths_as_variables(home, parts, home.folder)):
        options = ServerOptions()
        options.realize(["-c", str(home.configuration)])
    return options


@pytest.mark.parametrize("name", ["receiver", "intake", *processes.WORKERS, "beat"])
def test_compose_runs_the_same_commands(name: str) -> None:
    """docker-compose.yml and `darkroom up` start the same programs."""
    parts = (processes.receiver("0.0.0.0", 8000), processes.intake("0.0.0.0", 8001), *processes.workers())
    program, *arguments = next(part.command for part in parts if part.name == name)
    python = ["python3", "-m"] if "." in program else []
    assert COMPOSE["services"][name]["command"] == [*python, program, *arguments]


def test_every_program_restarts_for_ever(home: Home) -> None:
    """No program is given up; a stop is patient, then final, for the whole process group."""
    applications = (processes.receiver("127.0.0.1", 8000), processes.intake("127.0.0.1", 8001))
    options = parsed(home, *processes.local_workers(), *applications)
    programs = [program for group in options.process_group_configs for program in group.process_configs]
    assert {program.name for program in programs} == {"receiver", "intake", "beat", *processes.LOCAL_WORKERS}
    for program in programs:
        assert program.autorestart.__name__ == "RestartUnconditionally"
        assert program.startretries > 10 * 86_400, "given up within days, at one start a second"
        assert program.killasgroup
    waits = {program.name: program.stopwaitsecs for program in programs}
    for worker, queues in processes.LOCAL_WORKERS.items():
        for lane in set(queues) & set(LANES):  # a paid POST whose reply is not waited for is an unknown submission
            assert waits[worker] > lane_loop.SLICE_SECONDS + load_lane(lane).longest_call
    assert max(waits[name] for name in ("receiver", "intake", "beat")) <= 10


def test_a_killed_stack_is_waited_for_as_long_as_it_may_take() -> None:
    """The next `darkroom up` waits longer for what a killed one left than the slowest programs of all stages take."""
    server = Process("postgres", ("postgres",), Stage.SERVERS, stop_within=embedded.CHECKPOINT_WITHIN)
    parts = (server, processes.receiver("127.0.0.1", 8000), *processes.local_workers())
    assert stops_within(parts) < KILLED_STACK_ENDS_WITHIN


def test_servers_stop_last(home: Home) -> None:
    """The supervisor stops the highest priority first: workers, then what listens, then the servers."""
    server = Process("postgres", ("/bin/postgres",), Stage.SERVERS, stop_signal="INT")
    options = parsed(home, server, *processes.local_workers(), processes.receiver("127.0.0.1", 8000))
    assert [group.name for group in sorted(options.process_group_configs)] == ["servers", "http", "workers"]


def test_a_program_that_ends_is_not_restarted(home: Home) -> None:
    """What brings the database to its schema runs once, when it is asked to; however it ends."""
    (program,) = parsed(home, processes.schema(embedded=True)).process_group_configs[0].process_configs
    assert (program.autostart, program.autorestart, program.startsecs) == (False, False, 0)


def test_odd_paths_survive(home: Home) -> None:
    """Blanks and percent signs of a path reach the program as they are."""
    folder = Path("/with blanks/100%/home")
    options = parsed(home, processes.emulator(8002, folder, ("--latency", "0.5")))
    (program,) = options.process_group_configs[0].process_configs
    expected = [sys.executable, "-m", "fal_emulator", "--port", "8002", "--state-dir", str(folder), "--latency", "0.5"]
    assert shlex.split(program.command) == expected
    assert program.directory == str(home.folder)


def test_another_user_ends_with_its_parent() -> None:
    """A program that runs as another user is tied to us after it became that user."""
    process = Process("postgres", ("/bin/postgres", "-h", ""), Stage.SERVERS, stop_signal="INT", user="pgserver")
    _, script, *rest = shlex.split(command_line(process))
    assert Path(script).name == "parent_death_signal.py"
    assert rest == ["--user", "pgserver", "INT", "/bin/postgres", "-h", ""]


@pytest.mark.parametrize("folder", ["/" + "deep/" * 30, "/with,comma"])
def test_sockets_of_an_impossible_path_move_out(folder: str) -> None:
    """Where the home's path cannot be a socket's, a short one is derived from it, always the same."""
    home, other = Home(Path(folder)), Home(Path(folder + "x"))
    assert not home.sockets.is_relative_to(folder)
    assert len(str(home.postgres_sockets / ".s.PGSQL.5432")) <= SOCKET_PATH_LIMIT
    assert home.sockets == Home(Path(folder)).sockets != other.sockets
