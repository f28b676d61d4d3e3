"""`darkroom timeline`: everything that happened to one edit, in order."""

from datetime import datetime

import click
from sqlalchemy import Engine

from cli.batches.progress import COLOURS, Row, duration, find_batch
from cli.connection import open_database
from cli.output import escape, json_option, print_json, screen
from core.errors import NotFound
from models.queries.edits import EDIT_BY_ID, EDIT_BY_NAME, TIMELINE_OF_EDIT

EVENTS_MAX = 10_000
SHORT = 10.0
"""Seconds below which tenths are shown."""
WHAT = 26
"""Characters of what happened, at most: those of `submitted after submitting`."""


@click.command()
@click.argument("edit", metavar="EDIT")
@json_option
def timeline(edit: str, as_json: bool) -> None:
    """Show everything that happened to one edit.

    Its states, POSTs, callbacks, errors and images, what happened to its batch, and the messages to its caller.
    EDIT is BATCH/NAME, BATCH as elsewhere and NAME a custom_id or position; or an edit's number in the database.
    """
    engine = open_database()
    found = find_edit(engine, edit)
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(TIMELINE_OF_EDIT, (found["id"], EVENTS_MAX)).mappings()
        events: list[Row] = [dict(row) for row in rows]
    if as_json:
        for event in events:
            print_json(event)
        return
    state = f"[{COLOURS.get(found['state'], 'default')}]{found['state']}[/]"
    screen.print(f"edit {found['id']}, {escape(found['name'])} of batch {found['batch_id']}: {state}", soft_wrap=True)
    for event in events:
        screen.print(_line(event, events[0]["at"]), soft_wrap=True)


def find_edit(engine: Engine, wanted: str) -> Row:
    """The edit meant by its number, or by its batch and its name there.

    Raises:
        NotFound: there is none.
    """
    batch, slash, name = wanted.partition("/")
    if not slash and wanted.isdecimal() and len(wanted) < 19:
        statement, values = EDIT_BY_ID, dict[str, object](id=int(wanted))
    elif slash:
        position = int(name) if name.isdecimal() and len(name) < 10 else -1
        statement, values = EDIT_BY_NAME, {"batch": find_batch(engine, batch), "name": name, "position": position}
    else:
        raise NotFound(f"{wanted} names no edit: give BATCH/NAME, as in last/0, or an edit's number.")
    with engine.connect() as connection:
        row = connection.exec_driver_sql(statement, values).mappings().first()
    if row is None:
        raise NotFound(f"There is no edit {wanted}.")
    return dict(row)


def _line(event: Row, began: datetime) -> str:
    since = (event["at"] - began).total_seconds()
    distance = f"+{since:.1f} s" if since < SHORT else f"+{duration(since)}"
    if event["what"] == "state":
        after = f"after {event['was']}" if event["was"] else ""
        colour = COLOURS.get(event["state"], "default")
        what = f"[bold {colour}]{event['state']}[/] [dim]{after:<{WHAT - len(event['state']) - 1}}[/]"
    else:
        what = f"{event['what']:<{WHAT}}"
    attempt = f"attempt {event['attempt']}" if event["attempt"] else ""
    facts = [attempt, escape(event["detail"] or ""), escape(event["message"] or "")]
    said = "  ".join(fact for fact in facts if fact)
    return f"[dim]{event['at'].astimezone():%Y-%m-%d %H:%M:%S}  {distance:>12}[/]  {what}  {said}".rstrip()
