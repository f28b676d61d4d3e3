"""The results of a batch as JSON lines, one an edit, in bounded memory whatever the batch's size.

Pages of a few hundred edits, each a short query by itself: a long export holds no transaction open, and whoever
reads slowly holds no connection. Each line is true at the moment of its page; a finished batch changes no more.
"""

from collections.abc import Iterator
from urllib.parse import quote
from uuid import UUID

from sqlalchemy import Engine

from models.queries.edits import RESULTS_PAGE
from models.states import EditState

PAGE_EDITS, PAGE_BYTES = 500, 4 * 2**20
"""What one page holds at most; an edit may carry its images in itself, so their size is counted too."""
URL_SAFE = "%/:@?&=+$,;~!*'()[]"
"""What stands in a URL for itself, and a percent sign, because a URL is encoded already."""


def results(engine: Engine, batch_id: UUID, storage_url: str, state: EditState | None = None) -> Iterator[bytes]:
    """Every edit of the batch, or those in `state`, in order; whole lines, many at a time."""
    asked = {
        "batch": batch_id,
        "state": state,
        "edits": PAGE_EDITS,
        "bytes": PAGE_BYTES,
        "store": quote(storage_url, safe=URL_SAFE) + "/",  # a key is made of characters that need no encoding
    }
    after = -1
    while True:
        with engine.connect() as connection:
            page = connection.exec_driver_sql(RESULTS_PAGE, {**asked, "after": after}).all()
        if not page:
            return
        after = page[-1][0]
        yield "".join(f"{line}\n" for _, line in page).encode()
