"""The system under test: the emulator as provider, `darkroom up` beside it, both as a user would start them.

The clocks are shrunk, in proportion: the deadline of an unknown submit stays longer than everything the
provider may still do with an accepted one.
"""

import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import requests
from sqlalchemy import Engine

from cli.settings import environment
from cli.stack.embedded import free_port
from models.database import make_engine

CLOCKS = {
    "SUBMIT_START_TIMEOUT": "8",
    "RUN_ALLOWANCE": "4",
    "DELIVERY_ALLOWANCE": "12",
    "POLL_AFTER": "3",
    "POLL_EVERY": "1",
    "PROVIDER_RETRY_AFTER": "0.5",
    "RETRY_DELAY": "0.3",
    "RESULT_RETENTION": "20",
    "CLAIM_LEASE": "6",
    "MAX_ATTEMPTS": "8",
    "MAX_IN_FLIGHT": "200",
}
"""Seconds; retention is 60 times faster at the emulator, so an hour is a minute there."""
EMULATOR = (
    *("--concurrency", "40", "--latency", "0.3", "--image-mode", "plain", "--time-scale", "60"),
    *("--webhook-first-timeout", "5", "--webhook-retry-timeout", "5"),
)
READY_WITHIN = 90.0


class System:
    """Emulator and stack, in one folder."""

    def __init__(
        self,
        folder: Path,
        *,
        faults: Mapping[str, float | str] | None = None,
        seed: int = 1,
        variables: Mapping[str, str] | None = None,
        provider_options: Mapping[str, str] | None = None,
    ) -> None:
        """`folder` is empty; `variables` are settings beside or instead of the shrunk clocks."""
        self.folder, self._faults, self._seed = folder, faults or {}, seed
        self._provider_options = provider_options or {}
        self._variables = dict(variables or {})
        self.home = folder / "home"
        self.provider = f"http://127.0.0.1:{free_port()}"
        self._parts: list[subprocess.Popen[str]] = []

    def start(self) -> None:
        """Start both and wait until they answer."""
        self._spawn("emulator", self._provider_command(self.provider.rpartition(":")[2]), {})
        receiver, intake = free_port(), free_port()
        self.receiver, self.intake = f"http://127.0.0.1:{receiver}", f"http://127.0.0.1:{intake}"
        self._variables = {
            **CLOCKS,
            **dict.fromkeys(("FAL_QUEUE_URL", "FAL_REST_URL", "FAL_CDN_URL", "FAL_API_URL"), self.provider),
            "FAL_KEY": "chaos:chaos",
            "FAL_MEDIA_HOSTS": "127.0.0.1",
            "DARKROOM_HOME": str(self.home),
            "RECEIVER_PORT": str(receiver),
            "INTAKE_PORT": str(intake),
            "PUBLIC_URL": self.receiver,
            **self._variables,
        }
        self.up = self._spawn("up", [sys.executable, "-m", "cli.main", "up"], self._variables)
        self.engine: Engine = make_engine(self._database_url(), application="chaos", pool_size=2)

    def _provider_command(self, port: str) -> list[str]:
        faults = [part for kind, rate in self._faults.items() for part in ("--fault", f"{kind}={rate}")]
        emulator = [sys.executable, "-m", "fal_emulator", "--port", port, "--state-dir", str(self.folder / "fal")]
        options = [part for name, value in self._provider_options.items() for part in (f"--{name}", value)]
        return [*emulator, *EMULATOR, *options, *faults, "--fault-seed", str(self._seed)]

    def _spawn(self, name: str, command: list[str], variables: dict[str, str]) -> subprocess.Popen[str]:
        log = self.folder / f"{name}.log"
        with log.open("w") as file:
            process = subprocess.Popen(command, env={**environment(), **variables}, stdout=file, stderr=file, text=True)
        self._parts.append(process)
        deadline = time.monotonic() + READY_WITHIN
        while "ready" not in log.read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{name} did not start: {log.read_text()[-2000:]}")
            time.sleep(0.1)
        return process

    def _database_url(self) -> str:
        return self._setting("DATABASE_URL")

    def _setting(self, name: str) -> str:
        lines = (self.home / "stack.env").read_text().splitlines()
        return next(line.partition("=")[2] for line in lines if line.startswith(f"{name}="))

    def variables(self) -> dict[str, str]:
        """The settings of one more process of ours, as on another machine."""
        return {**self._variables, "DATABASE_URL": self._database_url(), "REDIS_URL": self.redis_url()}

    def redis_url(self) -> str:
        """The embedded broker, as Celery takes it."""
        return self._setting("REDIS_URL")

    def processes(self) -> list[tuple[str, psutil.Process]]:
        """(part, process) of everything that was started, and of what runs below it."""
        alive = [psutil.Process(part.pid) for part in self._parts if part.poll() is None]
        found = []
        for process in (process for part in alive for process in (part, *part.children(recursive=True))):
            try:
                line = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if part := part_of(line):
                found.append((part, process))
        return found

    @property
    def unknown_deadline(self) -> float:
        """The deadline of an unknown submit, in seconds, as this system is set."""
        names = ("SUBMIT_START_TIMEOUT", "RUN_ALLOWANCE", "DELIVERY_ALLOWANCE")
        return sum(float(self._variables[name]) for name in names)

    def ledger(self) -> list[dict[str, Any]]:
        """Every request that the provider accepted."""
        rows: list[dict[str, Any]] = []
        after: int | None = 0
        with requests.Session() as session:
            while after is not None:
                url = f"{self.provider}/_emulator/ledger"
                page = session.get(url, params={"after": after}, timeout=30).json()
                rows += page["rows"]
                after = page["next"]
        return rows

    def inject(self, **faults: float | str) -> None:
        """From now on the provider injects these faults, at these rates, and no others."""
        with requests.Session() as session:
            session.put(f"{self.provider}/_emulator/faults", json=faults, timeout=30).raise_for_status()

    def fetch(self, url: str) -> bytes:
        """What the provider has at a URL of its own."""
        with requests.Session() as session:
            session.trust_env = False
            reply = session.get(url, timeout=30)
            reply.raise_for_status()
            return reply.content

    def injected(self) -> dict[str, int]:
        """How often the provider injected each kind of fault."""
        with requests.Session() as session:
            counts = session.get(f"{self.provider}/_emulator/faults", timeout=30).json()["injected"]
        return {kind: count for kind, count in counts.items() if count}

    def stop(self) -> None:
        """Stop both; `up` stops what is below it."""
        if hasattr(self, "engine"):
            self.engine.dispose()
        for process in reversed(self._parts):
            process.terminate()
        for process in reversed(self._parts):
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


def part_of(command: str) -> str | None:
    """Which part a command line starts: a lane by the name of its worker, else by what stands in it."""
    if lane := LANE.search(command):
        return lane[1]
    return next((part for mark, part in MARKS.items() if mark in command), None)


LANE = re.compile(r" -n (\w+)@")
MARKS = {
    "worker beat": "beat",
    "webhook_receiver.app": "receiver",
    "intake.app": "intake",
    "redis.sock": "redis",
    "postgres -D": "postgres",
    "cli.stack.fork_server": "supervisor",
    "fal_emulator": "emulator",
}
"""What a command line holds -> which part it is, where no lane is named."""
