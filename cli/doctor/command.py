"""`darkroom doctor`: what a person runs when something seems wrong; one line per thing that can be wrong.

Changes nothing but for one small object, which it puts into storage and takes away again, and costs nothing. What
each check looks at stands in `checks.py`, `database_checks.py` and `lane_checks.py`; every one is bounded in time.
A check whose ground is missing (no database, an old schema) is left out: the fault of the ground is told already.
"""

from collections.abc import Iterator
from typing import TypeVar

import click
from sqlalchemy import Engine

from cli.connection import connect
from cli.doctor import checks, database_checks, lane_checks
from cli.doctor.check_result import CheckResult, ResultKind, failure
from cli.output import escape, json_option, plural, print_json, screen
from cli.settings import load_with_database
from core.errors import SettingsError
from core.settings import DatabaseSettings, Settings, load
from webhook_receiver.settings import ReceiverSettings
from worker.settings import BrokerSettings, WorkerSettings

COLOURS = {ResultKind.OK: "green", ResultKind.WARNING: "yellow", ResultKind.FAULT: "bold red"}

Loaded = TypeVar("Loaded", bound=Settings)


@click.command()
@click.option("--audit", is_flag=True, help="Hold the accounts against every row.")
@json_option
def doctor(audit: bool, as_json: bool) -> int:
    """Check everything that can be wrong.

    One line per check, with what to do. Changes nothing and costs nothing. The exit code is 1 where something has
    to be done.
    """
    found = []
    for finding in examination(audit=audit):
        found.append(finding.result)
        if as_json:
            print_json(finding._asdict())
        else:
            _print(finding)
    faults, warnings = found.count(ResultKind.FAULT), found.count(ResultKind.WARNING)
    if not as_json:
        summary = [plural(number, noun) for number, noun in ((faults, "fault"), (warnings, "warning")) if number]
        screen.print(f"\n{', '.join(summary)}." if summary else "\nAll is well.")
    return 1 if faults else 0


def _print(finding: CheckResult) -> None:
    advice = f" [dim]{escape(finding.advice)}[/]" if finding.advice else ""
    result = f"[{COLOURS[finding.result]}]{finding.result.value:<7}[/]"
    screen.print(f"{result}  [dim]{finding.check:<10}[/]  {escape(finding.message)}{advice}", soft_wrap=True)


def examination(*, audit: bool) -> Iterator[CheckResult]:
    """Every check, in the order in which one thing rests on another; with `audit`, the accounts row by row."""
    try:
        load_with_database()
    except SettingsError as error:
        yield failure("stack", str(error))
    yield from checks.settings()
    worker, broker, receiver = _loaded(WorkerSettings), _loaded(BrokerSettings), _loaded(ReceiverSettings)
    engine = _engine()
    usable = False
    if engine is not None:
        connectivity = list(database_checks.connectivity(engine))
        usable = all(finding.result is ResultKind.OK for finding in connectivity)
        yield from connectivity
    if engine is not None and usable:
        yield from database_checks.contents(engine, audit=audit)
    if engine is not None and usable and worker is not None:
        yield checks.notify_secrets(worker, database_checks.notified_clients(engine))
    answers = False
    if broker is not None:
        finding = checks.broker(broker.redis_url)
        answers = finding.result is ResultKind.OK
        yield finding
    if broker is not None and answers:
        yield lane_checks.workers(broker.redis_url)
    if engine is not None and usable and worker is not None:
        yield from lane_checks.lanes(engine, worker, worker.redis_url if answers else None)
    yield from _others(worker, receiver)


def _others(worker: WorkerSettings | None, receiver: ReceiverSettings | None) -> Iterator[CheckResult]:
    """What rests on settings alone: the provider, its signing keys, our own address, the store."""
    if worker is not None:
        yield checks.provider(worker)
    if receiver is not None:
        yield checks.signing_keys(receiver.fal_jwks_url)
    if worker is not None:
        yield checks.public_url(worker.public_url)
        yield checks.storage(worker.storage_url)


def _loaded(cls: type[Loaded]) -> Loaded | None:
    """The settings; None where they are wrong, which is told already."""
    try:
        return load(cls)
    except SettingsError:
        return None


def _engine() -> Engine | None:
    database = _loaded(DatabaseSettings)
    try:
        return connect(database.database_url, application="darkroom doctor") if database else None
    except SettingsError:
        return None
