"""`darkroom up`: the whole stack in the foreground, until it is told to stop.

Signals are turned into an exception here, once; a second one cannot interrupt the stopping.
"""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

from cli.output import json_option, print_json, stderr
from cli.settings import CLISettings
from cli.stack.child_processes import adopt_orphans, reap
from cli.stack.embedded import loopback
from cli.stack.start import EmulatorOptions, Plan, plan, run_stack
from cli.stack.supervision import Supervisor
from core.errors import UserError
from core.settings import load

LOOK_EVERY = 0.5
"""Seconds between two looks at the supervisor."""
AGAIN_AFTER = 5.0
"""Seconds between a start that failed and the next, once everything has been up."""
EMULATOR_PORT = 8002
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Stop(KeyboardInterrupt):
    """Someone asked us to stop."""


@contextmanager
def stop_signals() -> Iterator[None]:
    """Within the block the first stop signal raises Stop, and the following ones are ignored."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        for name in STOP_SIGNALS:
            signal.signal(name, signal.SIG_IGN)
        raise Stop

    before = {name: signal.getsignal(name) for name in STOP_SIGNALS}
    for name, handler in before.items():
        if name != signal.SIGHUP or handler != signal.SIG_IGN:  # under nohup a hang-up is to be ignored
            signal.signal(name, stop)
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


@click.command()
@click.option("--emulator", "emulated", is_flag=True, help="Work with an emulator of the provider: no AI, no cost.")
@click.option("--emulator-port", type=click.IntRange(1, 65535), default=EMULATOR_PORT, show_default=True)
@click.option("--emulator-concurrency", type=click.IntRange(1), help="Edits that the emulator makes at one time.")
@click.option("--emulator-latency", type=click.FloatRange(0), help="Seconds that the emulator takes for one.")
@json_option
def up(
    emulated: bool,
    emulator_port: int,
    emulator_concurrency: int | None,
    emulator_latency: float | None,
    as_json: bool,
) -> None:
    """Run everything on this machine; Ctrl-C stops all of it.

    Without DATABASE_URL and REDIS_URL it brings a PostgreSQL and a Redis of its own.
    """
    settings = load(CLISettings)
    emulator = EmulatorOptions(emulator_port, loopback(), emulator_concurrency, emulator_latency) if emulated else None
    settings.home.create()
    try:
        with stop_signals(), settings.home.hold() as lock:
            prepared = plan(settings, emulator)
            adopt_orphans()
            run(prepared, lock, as_json)
            while True:
                print("darkroom: the supervisor died; everything starts again", file=sys.stderr, flush=True)
                run_again(prepared, lock, as_json)
    except Stop:
        return


def run(prepared: Plan, lock: int, as_json: bool) -> None:
    """Start everything, say so, and stay until the supervisor dies or Stop is raised."""
    with stderr.status("starting") as line, run_stack(prepared, lock, line.update) as supervisor:
        line.stop()
        announce(prepared, as_json)
        stay(supervisor)


def run_again(prepared: Plan, lock: int, as_json: bool) -> None:
    """As `run`, for as often as it takes: what has been up is not given up because the machine is slow."""
    while True:
        try:
            return run(prepared, lock, as_json)
        except UserError as error:
            print(f"darkroom: {error}. Everything starts again in {AGAIN_AFTER:.0f} s.", file=sys.stderr, flush=True)
            time.sleep(AGAIN_AFTER)


def stay(supervisor: Supervisor) -> None:
    """Until the supervisor dies."""
    while not supervisor.dead:
        reap()
        time.sleep(LOOK_EVERY)


def announce(prepared: Plan, as_json: bool) -> None:
    """Say in one line that everything answers, and where."""
    variables = prepared.variables
    if as_json:
        names = ("DATABASE_URL", "REDIS_URL", "STORAGE_URL", "DARKROOM_HOME")
        places = {"receiver": prepared.receiver_url, "intake": prepared.intake_url, "emulator": prepared.emulator_url}
        print_json({"ready": True, **places, **{name.lower(): variables[name] for name in names}})
        return
    provider = "provider fal"
    if prepared.emulator_url:
        provider = f"emulator {prepared.emulator_url} (an emulator of fal: no AI, no cost)"
    elif "PUBLIC_URL" not in variables:
        provider += " (no PUBLIC_URL: it is polled, no callbacks)"
    database = f"database {'embedded' if prepared.has('postgres') else 'as in DATABASE_URL'}"
    images = f"images {variables['STORAGE_URL']}"
    addresses = f"API {prepared.intake_url}, receiver {prepared.receiver_url}"
    print(f"ready: {addresses}, {provider}, {database}, {images}", flush=True)
