"""What has to be done and to be so before the stack is called ready: two programs of its supervisor.

There, as forks of the warmed parent, they have at hand what asks a database, or a broker and the workers; `darkroom up`
itself imports none of it, and stays small. What they are at is printed, one line each; the last says how it ended.
"""

import sys
from collections.abc import Callable, Sequence

from cli.settings import CLISettings
from cli.stack.home import Home
from core.errors import UserError
from core.settings import DatabaseSettings, load
from worker.settings import BrokerSettings

ANSWER_WITHIN = 60.0
"""Seconds for one part to answer, on a busy machine."""
TROUBLE = 2
"""The exit code when the last line is a sentence for the user."""


def last_line(home: Home, name: str) -> str:
    """The last thing that a program of the stack said."""
    try:
        lines = (home.logs / f"{name}.log").read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def bring_to_schema(*options: str) -> None:
    """Wait for the database, and bring it to its schema.

    Raises:
        UserError: it does not come to that.
    """
    from cli.stack.readiness import ensure_database

    database_url = load(DatabaseSettings).database_url
    if "--make-database" in options:
        say("starting PostgreSQL")
        wait_for("postgres", lambda: ensure_database(database_url))
    say("bringing the database to its schema")
    from cli import migrate

    migrate.upgrade(database_url)


def wait_until_ready(*parts: str) -> None:
    """Wait until these parts, `NAME=URL`, the broker and all workers answer.

    Raises:
        UserError: one does not.
    """
    from cli.stack.broker_readiness import WorkersAnswer, redis_answers
    from cli.stack.processes import LOCAL_WORKERS
    from cli.stack.readiness import http_answers

    def asking(url: str) -> Callable[[], bool]:
        return lambda: http_answers(url)

    for name, _, url in (part.partition("=") for part in parts):
        say(f"starting the {name}")
        wait_for(name, asking(url))
    redis_url = load(BrokerSettings).redis_url
    say("starting Redis")
    wait_for("redis", lambda: redis_answers(redis_url))
    say("starting the workers")
    wait_for("workers", WorkersAnswer(redis_url, tuple(LOCAL_WORKERS)))


def wait_for(name: str, answers: Callable[[], bool]) -> None:
    """Ask one part until it answers.

    Raises:
        UserError: it does not in time.
    """
    from cli.stack.readiness import until

    if until(answers, timeout=ANSWER_WITHIN):
        return
    home = load(CLISettings).home
    said = last_line(home, name)
    where = f"its last words in {home.logs}: {said}" if said else f"see {home.logs}"
    raise UserError(f"No answer from {name} in {ANSWER_WITHIN:.0f} s; {where}")


def say(line: str) -> None:
    """One line for whoever watches, at once."""
    print(line, flush=True)


def main(arguments: Sequence[str]) -> int:
    """Run one of the two."""
    what, *options = arguments
    try:
        {"schema": bring_to_schema, "ready": wait_until_ready}[what](*options)
    except UserError as error:
        say(" ".join(str(error).split("\n")))
        return TROUBLE
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
