"""The results of a batch as JSON lines, one an edit, in bounded memory whatever the batch's size.

Pages of a few hundred edits, each a short query by itself: a long export holds no transaction open, and whoever
reads slowly holds no connection. Each line is true at the moment of its page; a finished batch changes no more.
"""

from collections.abc import Iterator
from urllib.parse import quote
from uuid import UUID

from sqlalchemy import Engine

from models.states import EditState

PAGE_EDITS, PAGE_BYTES = 500, 4 * 2**20
"""What one page holds at most; an edit may carry its images in itself, so their size is counted too."""
URL_SAFE = "%/:@?&=+$,;~!*'()[]"
"""What stands in a URL for itself, and a percent sign, because a URL is encoded already."""

PAGE = """
SELECT result.position, row_to_json(result)::text FROM (
    SELECT e.position, e.custom_id, e.state, coalesce(i.images, '[]') AS images,
           coalesce(s.seed, e.seed) AS seed, coalesce(s.cost, 0) AS cost,
           e.errors, CASE WHEN e.custom_id IS NULL THEN e.arguments
                     ELSE jsonb_build_object('custom_id', e.custom_id) || e.arguments END AS edit
    FROM (
        SELECT *, sum(pg_column_size(arguments)) OVER (ORDER BY position ROWS UNBOUNDED PRECEDING) AS so_far
        FROM edits
        WHERE batch_id = %(batch)s AND position > %(after)s AND state = coalesce(%(state)s, state)
        ORDER BY position LIMIT %(edits)s
    ) e
    CROSS JOIN LATERAL (
        SELECT sum(cost) AS cost, max(seed) FILTER (WHERE outcome = 'succeeded' AND NOT doubled) AS seed
        FROM submissions WHERE edit_id = e.id
    ) s
    CROSS JOIN LATERAL (
        SELECT json_agg(row_to_json(image) ORDER BY image.index) AS images FROM (
            SELECT p.index, %(store)s || p.storage_key AS url, p.storage_key, p.sha256, p.stored_bytes AS bytes,
                   p.stored_type AS type, p.stored_width AS width, p.stored_height AS height
            FROM submissions JOIN images p ON p.submission_id = submissions.id
            WHERE submissions.edit_id = e.id AND p.state = 'stored'
        ) image
    ) i
    WHERE e.so_far - pg_column_size(e.arguments) < %(bytes)s
) result ORDER BY result.position
"""


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
            page = connection.exec_driver_sql(PAGE, {**asked, "after": after}).all()
        if not page:
            return
        after = page[-1][0]
        yield "".join(f"{line}\n" for _, line in page).encode()
