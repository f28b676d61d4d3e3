"""`darkroom errors`: what went wrong with a batch, by type, and then edit by edit."""

from uuid import UUID

import click
from sqlalchemy import Connection

from cli.batches.batch_text import error_pairs
from cli.batches.progress import COLOURS, Row, find_batch, when
from cli.batches.status import BATCH
from cli.connection import open_database
from cli.output import escape, json_option, plural, print_json, print_pairs, screen
from models.queries.batches import ERRORS_OF_BATCHES, PRUNED_AT
from models.queries.edits import EDITS_WITH_ERRORS, FAILED_EDITS


@click.command()
@BATCH
@click.option("--error-type", "types", multiple=True, metavar="TYPE", help="Only errors of this type; repeatable.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Edits.")
@json_option
def errors(batch: str, types: tuple[str, ...], limit: int, as_json: bool) -> None:
    """Show the errors of a batch.

    By type, with how many edits and an example; then the edits themselves, each with its latest error, those that
    failed for good first. An edit that was stored in the end is not among them. BATCH is an id, the beginning of one,
    or `last`.
    """
    engine = open_database()
    batch_id = UUID(find_batch(engine, batch))
    with engine.connect() as connection:
        by_type = read_types(connection, batch_id, types)
        pruned = connection.exec_driver_sql(PRUNED_AT, (batch_id,)).scalar() is not None
        edits = [] if pruned else read_edits(connection, batch_id, by_type, limit)
    if as_json:
        print_json({"batch_id": batch_id, "types": by_type, "edits": edits})
        return
    if not by_type:
        screen.print(f"No edit of batch {batch_id} has an error{' of this type' if types else ''}.", soft_wrap=True)
        return
    print_pairs(error_pairs(by_type))
    for edit in edits:
        screen.print(_edit_line(edit), soft_wrap=True)
    if pruned:
        screen.print("Its edits are no longer kept.")
    elif (total := sum(int(row["edits"]) for row in by_type)) > len(edits):
        screen.print(f"The first {len(edits)} of {plural(total, 'edit')}; more with --limit.", soft_wrap=True)


def read_types(connection: Connection, batch_id: UUID, types: tuple[str, ...] = ()) -> list[Row]:
    """Edits by the type of their latest error, the most frequent first; of these types, if any are given."""
    rows = connection.exec_driver_sql(ERRORS_OF_BATCHES, ([batch_id],)).mappings()
    names = ("type", "edits", "failed", "example")
    return [{name: row[name] for name in names} for row in rows if not types or row["type"] in types]


def read_edits(connection: Connection, batch_id: UUID, by_type: list[Row], limit: int) -> list[Row]:
    """Edits with an error of one of these types, those that failed first, then those that go on or were cancelled."""
    found: list[Row] = []
    failed = sum(int(row["failed"]) for row in by_type)
    others = sum(int(row["edits"]) for row in by_type) - failed
    # the second reads the whole batch: only where the counters say that there is something to be found
    for statement, there in ((FAILED_EDITS, failed), (EDITS_WITH_ERRORS, others)):
        if there and len(found) < limit:
            wanted = {"batch": batch_id, "types": [row["type"] for row in by_type], "limit": limit - len(found)}
            found += [dict(row) for row in connection.exec_driver_sql(statement, wanted).mappings()]
    return found


def _edit_line(edit: Row) -> str:
    name = edit["position"] if edit["custom_id"] is None else escape(edit["custom_id"])
    state = f"[{COLOURS.get(edit['state'], 'default')}]{edit['state']}[/]"
    attempt = f", attempt {edit['attempt']}" if edit["attempt"] else ""
    return f"{name}  {state}{attempt}, {when(edit['at'])}: {escape(str(edit['type']))}  {escape(edit['message'] or '')}"
