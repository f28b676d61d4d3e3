"""`darkroom request`: what an operator asks the provider about one request, whether or not it is darkroom's.

Needs the key, and no database; where there is one it also tells to which edit the request belongs.
"""

import json
from collections.abc import Callable
from typing import Any

import click
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from cli.connection import open_database
from cli.output import encode_json, escape, json_option, print_json, print_pairs, screen, stderr
from cli.provider.client import open_provider, provider_call
from core.errors import NotFound, UserError
from models.queries.edits import EDIT_OF_REQUEST
from models.seedream import ENDPOINT
from models.transitions import request_cancel
from provider.follow_request import LogLine, NewLines, follow
from provider.status_stream import Status

WORDS = {
    "OK": "taken out of the line before it started",
    "CANCELLATION_REQUESTED": "it runs already: it may still finish, and be charged",
    "ALREADY_COMPLETED": "too late: it has ended",
}


@click.group()
def request() -> None:
    """Ask the provider about one request.

    REQUEST_ID is the provider's id; it stands in submissions.request_id, and in the provider's own dashboard.
    """


def request_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What every command of the group takes."""
    endpoint = click.option("--endpoint", default=ENDPOINT, show_default=True, help="The model.")
    return click.argument("request_id", metavar="REQUEST_ID", callback=_plain_id)(endpoint(json_option(command)))


def _plain_id(_context: click.Context, _parameter: click.Parameter, given: str) -> str:
    if not given.isprintable() or not given.strip(". /"):
        raise click.BadParameter("that is no request id.")
    return given


@request.command()
@request_options
def status(request_id: str, endpoint: str, as_json: bool) -> None:
    """Show how far a request is."""
    with provider_call(request_id):
        found = open_provider().status(endpoint, request_id)
    edit = edit_of(request_id)
    if as_json:
        fields = ("status", "queue_position", "failed", "inference_time")
        print_json({"request_id": request_id, **{name: getattr(found, name) for name in fields}, "edit": edit})
        return
    seconds = found.inference_time
    print_pairs(
        [
            ("request", escape(request_id)),
            ("status", _as_words(found)),
            ("ran for", f"{seconds:.1f} s" if isinstance(seconds, int | float) else ""),
            ("edit", escape(f"{edit['name']} of batch {edit['batch_id']}: {edit['state']}") if edit else ""),
        ]
    )


def _as_words(found: Status) -> str:
    place = f", {found.queue_position} ahead" if found.queue_position is not None else ""
    return escape(f"{found.status}{place}{', with an error' if found.failed else ''}")


@request.command()
@click.option("--follow", "follows", is_flag=True, help="Go on until the request has ended.")
@request_options
def logs(request_id: str, endpoint: str, as_json: bool, follows: bool) -> None:
    """Print what the model has logged so far."""
    with provider_call(request_id):
        queue = open_provider()
        if follows:
            for update in follow(queue, endpoint, request_id):
                _print_logs(update.logs, as_json=as_json)
        else:
            found = queue.status(endpoint, request_id, logs=True)
            _print_logs(NewLines().take_new(found.logs), as_json=as_json)


def _print_logs(lines: tuple[LogLine, ...], *, as_json: bool) -> None:
    for line in lines:
        if as_json:
            print_json(line._asdict())
        else:
            screen.print(log_text(line), soft_wrap=True)


def log_text(line: LogLine) -> str:
    """A log line with its time of day, with markup."""
    colour = {"ERROR": "red", "WARN": "yellow"}.get(line.level, "default")
    return f"[dim]{escape(line.timestamp[11:19])}[/]  [{colour}]{escape(line.message)}[/]"


@request.command()
@request_options
def result(request_id: str, endpoint: str, as_json: bool) -> int:
    """Print the provider's JSON.

    The exit code is 1 where the request failed.
    """
    queue = open_provider()
    with provider_call(request_id):
        failed = queue.status(endpoint, request_id).failed
        answer, verdict = queue.outcome(endpoint, request_id, failed=failed)
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        raise UserError(f"The provider answered {answer.status} with what is no JSON.") from None
    print(encode_json(document, indent=2 if screen.is_terminal and not as_json else None))
    if 200 <= answer.status < 300:
        return 0
    stderr.print(f"failed: {answer.status} {verdict.error_type or ''} {verdict.message or ''}", markup=False)
    return 1


@request.command()
@request_options
def cancel(request_id: str, endpoint: str, as_json: bool) -> int:
    """Ask the provider to cancel a request.

    Says what it answered. The exit code is 1 where it was too late. An edit of darkroom's ends `cancelled` if the
    provider says so, and `stored` if the image was made all the same.
    """
    queue = open_provider()
    edit = edit_of(request_id, cancel_it=True)
    with provider_call(request_id):
        reply = queue.cancellation(endpoint, request_id)
    if reply.status_text == "NOT_FOUND":
        raise NotFound(f"The provider does not know the request {request_id}, or no longer.")
    if as_json:
        print_json({"request_id": request_id, "cancelled": reply.taken, "answer": reply.status_text, "edit": edit})
    else:
        screen.print(
            f"{reply.status_text}: {WORDS.get(reply.status_text, 'see what the provider says of it')}", markup=False
        )
    return 0 if reply.taken else 1


def edit_of(request_id: str, *, cancel_it: bool = False) -> dict[str, Any] | None:
    """The edit to which a request belongs, if a database is there and knows it; `cancel_it`: note that it is to end.

    It is noted before the provider is asked, so that a callback which is quicker than the answer finds it.
    """
    try:
        engine = open_database()
        return _edit_of(engine, request_id, cancel_it)
    except (UserError, SQLAlchemyError):
        return None


def _edit_of(engine: Engine, request_id: str, cancel_it: bool) -> dict[str, Any] | None:
    with engine.begin() as connection:
        if cancel_it:
            request_cancel(connection, request_id)
        row = connection.exec_driver_sql(EDIT_OF_REQUEST, (request_id,)).mappings().first()
        return dict(row) if row else None
