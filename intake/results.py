"""The results of a batch as JSON lines, one an edit, in bounded memory whatever the batch's size.

Pages of a few hundred edits, each a short query by itself: a long export holds no transaction open, and whoever
reads slowly holds no connection. Each line is true at the moment of its page; a finished batch changes no more. Each
edit comes once, in its order, so whoever was cut off goes on after the last position that he has.
"""

from collections.abc import Iterator
from uuid import UUID

from sqlalchemy import Connection, Engine

from core.errors import Pruned
from intake.image_links import ImageLinks
from models.queries.batches import PRUNED_AT
from models.queries.edits import RESULTS_PAGE, RESULTS_PAGE_IN_STATE
from models.states import EditState

PAGE_EDITS, PAGE_BYTES = 500, 4 * 2**20
"""What one page holds at most; an edit may carry its images in itself, so their size is counted too."""


def results(
    engine: Engine, batch_id: UUID, links: ImageLinks, state: EditState | None = None, *, after: int = -1
) -> Iterator[bytes]:
    """Every edit of the batch behind position `after`, or those in `state`, in order; whole lines, many at a time.

    Raises:
        Pruned: the batch's edits are no longer kept, from the first page or from a later one on.
        DownloadError: the store signs no link any more.
    """
    statement = RESULTS_PAGE if state is None else RESULTS_PAGE_IN_STATE
    parameters = {
        "batch": batch_id,
        "state": state,
        "edits": PAGE_EDITS,
        "bytes": PAGE_BYTES,
        "link": links.prefix,
        "by_key": links.by_key,
    }
    while True:
        with engine.begin() as connection:
            page = connection.exec_driver_sql(statement, {**parameters, "after": after}).all()
            require_unpruned(connection, batch_id)  # else a page that is not whole would pass for the last one
        if not page:
            return
        after = page[-1][0]
        piece = links.finish("".join(f"{line}\n" for _, line in page)).encode()
        page = []  # while the piece is read, slowly maybe, it alone is kept
        yield piece


def require_unpruned(connection: Connection, batch_id: UUID) -> None:
    """Make sure that what was just read of the batch's edits was all of it; ask after reading.

    Raises:
        Pruned: it may not have been.
    """
    if connection.exec_driver_sql(PRUNED_AT, (batch_id,)).scalar() is not None:
        raise Pruned
