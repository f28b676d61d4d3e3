"""What the API shows of batches and edits: reads only, of one client's batches only, and a page at a time."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from core.errors import NotFound
from intake.cursors import read_cursor, write_cursor
from intake.request_schemas import BatchQuery, EditQuery
from intake.responses import Batch, BatchDetail, BatchPage, Counts, Edit, EditPage, Images, Inputs, Limits, links
from intake.results import require_unpruned
from models.queries.batches import BATCH, BATCH_DETAIL, BATCH_PAGE, OWN_BATCH
from models.queries.edits import EDIT_PAGE

PAGE_BYTES = 1024 * 1024
"""Of metadata in one page of a list, or that of one batch: some may have been handed in before it was bounded."""


def require_own(connection: Connection, client: str, batch_id: UUID) -> None:
    """Make sure that the batch is there and the client's.

    Raises:
        NotFound: it is not, or it is somebody else's, which is the same to whoever asks.
    """
    if connection.exec_driver_sql(OWN_BATCH, (batch_id, client)).first() is None:
        raise NotFound(f"There is no batch {batch_id}.")


def get_batch(connection: Connection, batch_id: UUID) -> Batch:
    """A batch that is there, as it stands now."""
    rows = connection.exec_driver_sql(BATCH, (batch_id,))
    return Batch(**rows.mappings().one(), links=links(batch_id))


def get_batch_detail(connection: Connection, client: str, batch_id: UUID) -> BatchDetail:
    """The batch, counted now.

    Raises:
        NotFound: the client has no such batch.
    """
    require_own(connection, client, batch_id)
    rows = connection.exec_driver_sql(
        BATCH_DETAIL,
        {"batch": batch_id},
    )
    row = dict(rows.mappings().one())
    images = {name.removeprefix("images_"): row[name] for name in row if name.startswith("images_")}
    images |= {name: row[name] for name in ("bytes_stored", "bytes_deleted", "first_stored_at", "last_stored_at")}
    inputs = Inputs(check=row["check_inputs"], number=row["inputs"], waiting=row["inputs_waiting"])
    return BatchDetail(
        **{**_plain(row, BatchDetail), "inputs": inputs},
        links=links(batch_id),
        counts=Counts(**_plain(row, Counts)),
        images=Images(**images),
        limits=Limits(**_plain(row, Limits)),
    )


def _plain(row: Mapping[str, Any], model: type[Batch] | type[Counts] | type[Limits]) -> dict[str, Any]:
    return {name: row[name] for name in model.model_fields if name in row}


def list_batches(connection: Connection, client: str, query: BatchQuery) -> BatchPage:
    """One page of the client's batches, newest first: as many as were asked for, or fewer if they are large."""
    before, batch_id = read_cursor(query.cursor)
    name, _, value = (query.metadata or "").partition("=")
    rows = connection.exec_driver_sql(
        BATCH_PAGE,
        {
            "client": client,
            "state": query.state,
            "name": query.name,
            "after": query.created_after,
            "until": query.created_before,
            "field": None if query.metadata is None else name,
            "value": value,
            "before": before,
            "batch": batch_id,
            "limit": query.limit + 1,
            "bytes": PAGE_BYTES,
        },
    ).mappings()
    found = rows.all()[: query.limit]
    shown = [Batch(**_plain(dict(row), Batch), links=links(row["batch_id"])) for row in found]
    more = bool(found) and found[0]["candidates"] > len(found)
    return BatchPage(
        batches=shown, next_cursor=write_cursor(shown[-1].created_at, shown[-1].batch_id) if more else None
    )


def list_edits(connection: Connection, client: str, batch_id: UUID, query: EditQuery) -> EditPage:
    """One page of a batch's edits, in their order.

    Raises:
        NotFound: the client has no such batch.
        Pruned: its edits are no longer kept.
    """
    require_own(connection, client, batch_id)
    rows = connection.exec_driver_sql(
        EDIT_PAGE,
        {
            "batch": batch_id,
            "after": -1 if query.cursor is None else int(query.cursor),
            "state": query.state,
            "custom_id": query.custom_id,
            "error_type": query.error_type,
            "limit": query.limit + 1,
        },
    )
    found = [Edit(**row) for row in rows.mappings()]
    require_unpruned(connection, batch_id)
    shown, more = found[: query.limit], len(found) > query.limit
    return EditPage(edits=shown, next_cursor=str(shown[-1].position) if more else None)
