"""The supervisor of the local stack: supervisord in the foreground, on a configuration made from `Process` rows.

It is the warmed parent of its Python programs (`fork_server.py`), restarts what dies and never gives up. It ends when
we end, and its programs when it does. What is started when, and what counts as an answer, is not decided here.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Callable, Iterable, Mapping, Sequence
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

from cli.stack import parent_death_signal
from cli.stack.home import Home
from cli.stack.processes import Process, Stage
from cli.stack.start_programs import TROUBLE, last_line
from core.errors import UserError

STAGE_MARGIN = 3
"""Seconds that the supervisor takes to go on from one stage to the next, at most."""
FOR_EVER = 1_000_000
"""Starts without success before the supervisor gives up: never, its pauses grow with each."""
SOCKET_VARIABLE, FOLDER_VARIABLE = "DARKROOM_RUN_SOCKET", "DARKROOM_RUN_IN"
LOOK_EVERY = 0.04
"""Seconds between two questions to the supervisor while something is waited for."""
LOG_BYTES, LOG_KEPT = "10MB", "3"


def command_line(process: Process) -> str:
    """The command with its program found and tied to its parent where it needs that of its own."""
    program, *arguments = process.command
    python = (sys.executable, parent_death_signal.__file__)
    if process.user or process.stop_signal != "TERM":  # the supervisor's own is TERM, and reaches no other user
        user = ("--user", process.user) if process.user else ()
        return shlex.join((*python, *user, process.stop_signal, *process.command))
    if process.stage is Stage.HTTP:  # a TERM leaves it to clients that take their time, and its port taken
        return shlex.join((*python, "KILL", "-m", *process.command))
    if "/" in program:
        return shlex.join(process.command)
    return shlex.join((sys.executable, "-m", program, *arguments))


def paths_as_variables(home: Home, processes: Iterable[Process], folder: Path) -> dict[str, str]:
    """The paths of the configuration, as variables of the supervisor's environment.

    In the file itself a ` #` or ` ;` within a path would begin a comment. The supervisor puts in `%(ENV_NAME)s` once
    it has read the file, and reads nothing into it.
    """
    commands = {_command_variable(process): command_line(process) for process in processes}
    return {SOCKET_VARIABLE: str(home.supervisor_socket), FOLDER_VARIABLE: str(folder), **commands}


def _command_variable(process: Process) -> str:
    return f"DARKROOM_RUN_{process.name.upper().replace('-', '_')}"


def configuration(processes: Iterable[Process]) -> RawConfigParser:
    """The supervisor's configuration, for an environment with `paths_as_variables`; it runs in the home."""
    parser = RawConfigParser()
    parser["supervisord"] = {
        "nodaemon": "true",
        "silent": "true",
        "nocleanup": "true",
        "logfile": "logs/supervisord.log",
        "logfile_maxbytes": LOG_BYTES,
        "logfile_backups": LOG_KEPT,
        "pidfile": "supervisord.pid",
        **({"user": "root"} if os.geteuid() == 0 else {}),
    }
    parser["unix_http_server"] = {"file": f"%(ENV_{SOCKET_VARIABLE})s", "chmod": "0700"}
    parser["rpcinterface:supervisor"] = {
        "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
    }
    parser["rpcinterface:forks"] = {"supervisor.rpcinterface_factory": "cli.stack.fork_server:make_fork_interface"}
    stages: dict[Stage, list[str]] = {}
    for process in processes:
        stages.setdefault(process.stage, []).append(process.name)
        parser[f"program:{process.name}"] = _program(process)
    for stage, names in stages.items():
        parser[f"group:{stage.name.lower()}"] = {"programs": ",".join(names), "priority": str(int(stage))}
    return parser


def _program(process: Process) -> dict[str, str]:
    return {
        "command": f"%(ENV_{_command_variable(process)})s",
        "directory": f"%(ENV_{FOLDER_VARIABLE})s",
        "autostart": "false",
        "autorestart": str(not process.once).lower(),
        "startsecs": "0" if process.once else "1",
        "startretries": str(FOR_EVER),
        "stopsignal": process.stop_signal,
        "stopwaitsecs": str(process.stop_within),
        "killasgroup": "true",
        "redirect_stderr": "true",
        "stdout_logfile": f"logs/{process.name}.log",
        "stdout_logfile_maxbytes": LOG_BYTES,
        "stdout_logfile_backups": LOG_KEPT,
    }


def stops_within(processes: Sequence[Process]) -> float:
    """Seconds that stopping takes at the most: the slowest program of each stage, one stage after the other."""
    slowest = [max((part.stop_within for part in processes if part.stage is stage), default=0) for stage in Stage]
    return sum(slowest) + STAGE_MARGIN * len(Stage)


class Supervisor:
    """One running supervisord."""

    def __init__(self, home: Home, processes: Sequence[Process], environment: Mapping[str, str], lock: int) -> None:
        with home.configuration.open("w") as file:
            configuration(processes).write(file)
        self._home = home
        self._stages = {process.stage for process in processes}
        self._stops_within = stops_within(processes)
        command = (sys.executable, parent_death_signal.__file__, "--parent", str(os.getpid()), "TERM")
        with (home.logs / "supervisord.err").open("w") as errors:
            self._process = subprocess.Popen(
                (*command, "-m", "cli.stack.fork_server", "-c", str(home.configuration)),
                cwd=home.folder,
                env={**environment, **paths_as_variables(home, processes, Path.cwd())},
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                pass_fds=(lock,),  # the home stays held until the supervisor is gone too
                start_new_session=True,  # Ctrl-C is for us alone; a hang-up would make it start everything again
            )

    @property
    def dead(self) -> bool:
        """Whether the supervisor has ended."""
        return self._process.poll() is not None

    def start(self, stage: Stage) -> None:
        """Start the programs of a stage, if it has any.

        Raises:
            UserError: the supervisor does not answer.
        """
        if stage in self._stages:
            self._ask("supervisor.startProcessGroup", stage.name.lower(), False)

    def finish(self, process: Process, say: Callable[[str], None]) -> None:
        """Run a program that ends by itself, and say what it says.

        Raises:
            UserError: it could not do its work, or the supervisor does not answer.
        """
        name = f"{process.stage.name.lower()}:{process.name}"
        self._ask("supervisor.startProcess", name, False)
        while (found := self._ask("supervisor.getProcessInfo", name))["statename"] in ("STARTING", "RUNNING"):
            say(last_line(self._home, process.name))
            time.sleep(LOOK_EVERY)
        if found["exitstatus"] == 0 and found["statename"] == "EXITED":
            return
        said = last_line(self._home, process.name)
        if found["exitstatus"] == TROUBLE:
            raise UserError(said)
        raise UserError(f"The stack does not start: {said}; see {self._home.logs}.")

    def wait_until_warm(self, *, for_workers: bool = False) -> None:
        """Wait until a fork has at hand what all programs share; or what the workers share as well.

        Raises:
            UserError: the supervisor does not answer.
        """
        if for_workers:
            self._ask("forks.warm_for_workers")
        while not self._ask("forks.are_warm"):
            time.sleep(LOOK_EVERY)

    def wait(self, timeout: float = 10.0) -> None:
        """Wait until the supervisor answers."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                self._ask("supervisor.getState")
            except UserError:
                if self.dead or time.monotonic() > deadline:
                    raise UserError("The supervisor does not start; see logs/supervisord.err in the home.") from None
                time.sleep(LOOK_EVERY)
            else:
                return

    def _ask(self, method: str, *arguments: Any) -> Any:
        from supervisor.xmlrpc import SupervisorTransport  # an extra, only here

        transport = SupervisorTransport(None, None, f"unix://{self._home.supervisor_socket}")
        try:
            with xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport) as server:
                return getattr(server, method)(*arguments)
        except (OSError, xmlrpc.client.Error) as error:
            raise UserError(f"The supervisor does not answer: {error}.") from None

    def stop(self) -> None:
        """Stop everything, in bounded time."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(self._stops_within)
        except subprocess.TimeoutExpired:
            self._process.kill()
