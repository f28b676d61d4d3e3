"""What is kept for a time only, and how it goes: in steps of bounded size, each a transaction, in the order of the
foreign keys, so that whoever is killed leaves nothing half gone and the next one goes on.

Of a pruned batch stay its row, its counters, what it cost and stored by day, and its idempotency keys. Its images in
storage go by themselves or not at all (`models/stored_images.py`). `batches.pruned_at` is committed before the first of
its rows goes. From then on nothing opens the batch again (a CHECK refuses it) and no callback finds its submissions
(`models/record_reports.py`).
"""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from models.past_counters import move_past
from models.statements import Statement
from models.states import Kept
from models.tables.batch_tables import IMAGES_TO_DELETE, REQUESTS_TO_DELETE

LEASE = 60.0
"""Seconds for which a kind is one worker's; a step takes far less."""
BATCHES_AT_ONCE, EDITS_AT_ONCE, CALLBACKS_AT_ONCE, UPLOADS_AT_ONCE = 100, 500, 1_000, 1_000
INPUTS_AT_ONCE = 5_000
"""Rows of one step: an edit has ten inputs at most, and most share theirs."""


class Step(NamedTuple):
    """What one step did: how much it removed, and whether the next may find more."""

    removed: int
    more: bool


CLAIM_KIND = Statement("""
    UPDATE retention SET due_at = now() + %s * interval '1 s' WHERE kind = (
        SELECT kind FROM retention WHERE due_at <= now() ORDER BY due_at, kind LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING kind
""")
RECORD_STEP = Statement("""
    UPDATE retention
    SET due_at = now() + %(seconds)s * interval '1 s', removed = removed + %(removed)s,
        removed_at = CASE WHEN %(removed)s > 0 THEN now() ELSE removed_at END
    WHERE kind = %(kind)s
""")


def claim_kind(connection: Connection) -> Kept | None:
    """The kind of thing that has been due to be looked at the longest, for `LEASE` seconds."""
    kind = connection.exec_driver_sql(CLAIM_KIND, (LEASE,)).scalar()
    return None if kind is None else Kept(kind)


def record_step(connection: Connection, kind: Kept, step: Step, *, again_in: float) -> None:
    """Note what a step removed, and in how many seconds the kind is due again."""
    values = {"kind": kind.value, "removed": step.removed, "seconds": 0.0 if step.more else again_in}
    connection.exec_driver_sql(RECORD_STEP, values)


# By id, not by time: ids rise with time, and what was looked at is never looked at again.
PRUNE_CALLBACK_BODIES = Statement(
    """
    WITH next AS MATERIALIZED (
        SELECT id, received_at < now() - %(kept)s * interval '1 s' AS old FROM callbacks
        WHERE id > (SELECT reached FROM retention WHERE kind = 'callback_bodies') ORDER BY id LIMIT {limit}
    ), old AS MATERIALIZED (
        SELECT id FROM next WHERE old AND id < coalesce((SELECT min(id) FROM next WHERE NOT old), 9223372036854775807)
    ), bared AS (
        UPDATE callbacks c SET delivery = NULL, headers = NULL, body = NULL FROM old
        WHERE c.id = old.id AND (c.delivery IS NOT NULL OR c.body IS NOT NULL) RETURNING c.id
    ), looked_at AS (
        UPDATE retention r SET reached = old.id FROM (SELECT max(id) AS id FROM old) old
        WHERE r.kind = 'callback_bodies' AND r.reached < old.id
    )
    SELECT (SELECT count(*) FROM bared) AS removed, (SELECT count(*) FROM old) AS looked_at
    """,
    limit=str(CALLBACKS_AT_ONCE),  # written out, so that no plan takes it for a tenth of the table
    index="callbacks_pkey",
)


def prune_callback_bodies(connection: Connection, kept: float) -> Step:
    """Bodies and headers of the next callbacks that were received longer ago than `kept` seconds."""
    row = connection.exec_driver_sql(PRUNE_CALLBACK_BODIES, {"kept": kept}).one()
    return Step(row.removed, row.looked_at == CALLBACKS_AT_ONCE)


# Nothing of it is open, nobody is owed a message, and no submission of it was given up without being heard of.
_SETTLED = """
    NOT EXISTS (SELECT FROM notifications n WHERE n.batch_id = b.id AND n.due_at IS NOT NULL)
    AND (SELECT sum(k.pending + k.submitting + k.submitted + k.ready + k.in_flight + k.unknown + k.images_waiting)
         FROM batch_counters k WHERE k.batch_id = b.id) = 0
"""
# Where a submit is unheard of, the listing may show requests of this batch beside the lost one, of the same input; only
# its submissions tell that they are taken (`worker/unknown_matching.py`). Clocks may differ by a quarter of an hour.
_NOT_LOOKED_FOR = """
    (SELECT min(s.posted_at) - interval '15 minutes' > b.finished_at FROM submissions s
     WHERE s.due_at IS NOT NULL AND s.request_id IS NULL) IS NOT FALSE
"""
_PRUNABLE = f"""
    b.finished_at < now() - %(kept)s * interval '1 s' AND b.pruned_at IS NULL
    AND b.audited_at >= b.finished_at AND b.audit_difference IS NULL AND {_SETTLED} AND {_NOT_LOOKED_FOR}
    AND NOT (('images' = ANY(%(waits_for)s) OR b.output_expires_after IS NOT NULL) AND {IMAGES_TO_DELETE})
    AND NOT ('provider_copies' = ANY(%(waits_for)s) AND {REQUESTS_TO_DELETE})
"""
BEGIN_BATCHES = Statement(
    """
    UPDATE batches SET pruned_at = now() WHERE id IN (
        SELECT b.id FROM batches b WHERE {prunable} ORDER BY b.finished_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
    RETURNING id
    """,
    prunable=_PRUNABLE,
    index="batches_kept submissions_due",
)
BATCH_GOING = Statement(
    """
    SELECT id FROM batches WHERE pruned_at IS NOT NULL AND prune_ended_at IS NULL
    ORDER BY pruned_at, id LIMIT 1
    """,
    index="batches_pruning",
)


def prune_batches(connection: Connection, kept: float | None, *, waits_for: Sequence[str] = ()) -> Step:
    """The next edits of a batch that finished longer ago than `kept` seconds; before, it is marked as pruned.

    What is begun is ended also where finished batches are kept for ever by now (None). A batch that somebody opens
    again is passed by, and so is one of which something of the kinds `waits_for` is still there. Counts edits.
    """
    batch_id = connection.exec_driver_sql(BATCH_GOING).scalar()
    if batch_id is not None:
        return Step(_prune_edits(connection, batch_id), more=True)
    if kept is None:
        return Step(0, more=False)
    begun = connection.exec_driver_sql(
        BEGIN_BATCHES, {"kept": kept, "limit": BATCHES_AT_ONCE, "waits_for": list(waits_for)}
    ).all()
    return Step(0, more=bool(begun))


# Edits before their submissions, and their batch last, as in every transition. The submissions too, so that a callback
# that is just being written down waits, and then finds none.
LOCK_EDITS_TO_PRUNE = Statement(
    "SELECT id FROM edits WHERE batch_id = %s ORDER BY position LIMIT %s FOR UPDATE",
    index="edits_batch_id_position_key",
)
LOCK_SUBMISSIONS_TO_PRUNE = Statement(
    "SELECT id FROM submissions WHERE edit_id = ANY(%s) ORDER BY id FOR UPDATE", index="submissions_edit"
)
KEEP_SUMS = Statement(
    """
    INSERT INTO pruned_days (batch_id, day, paid, wasted, uncertain, images_stored, bytes_stored)
    SELECT batch_id, day, sum(paid), sum(wasted), sum(uncertain), sum(images), sum(bytes) FROM (
        SELECT batch_id, day, paid, wasted, uncertain, 0 AS images, 0 AS bytes
        FROM charges WHERE submission_id = ANY(%(ids)s)
        UNION ALL
        SELECT e.batch_id, (i.stored_at AT TIME ZONE 'UTC')::date, 0, 0, 0, 1, i.stored_bytes
        FROM images i JOIN submissions s ON s.id = i.submission_id JOIN edits e ON e.id = s.edit_id
        WHERE i.submission_id = ANY(%(ids)s) AND i.state = 'stored'
    ) gone GROUP BY batch_id, day HAVING sum(paid) <> 0 OR sum(uncertain) <> 0 OR sum(images) > 0
    ON CONFLICT (batch_id, day) DO UPDATE
    SET paid = pruned_days.paid + excluded.paid, wasted = pruned_days.wasted + excluded.wasted,
        uncertain = pruned_days.uncertain + excluded.uncertain,
        images_stored = pruned_days.images_stored + excluded.images_stored,
        bytes_stored = pruned_days.bytes_stored + excluded.bytes_stored
    """,
    index="submissions_pkey edits_pkey images_submission_id_index_key",
)
_COUNT_CALLBACKS = """
    WITH gone AS (
        DELETE FROM callbacks WHERE id IN ({chosen}) RETURNING effect
    ), counted AS (
        INSERT INTO pruned_callbacks (effect, callbacks) SELECT effect, count(*) FROM gone GROUP BY effect
        ON CONFLICT (effect) DO UPDATE SET callbacks = pruned_callbacks.callbacks + excluded.callbacks
    )
    SELECT count(*) FROM gone
"""
DELETE_CALLBACKS = Statement(
    _COUNT_CALLBACKS,
    chosen="SELECT id FROM callbacks WHERE submission_id = ANY(%(ids)s)",
    index="callbacks_submission",
)
DELETE_IMAGES = Statement(
    "DELETE FROM images WHERE submission_id = ANY(%(ids)s)", index="images_submission_id_index_key"
)
DELETE_SUBMISSIONS = Statement("DELETE FROM submissions WHERE id = ANY(%(ids)s)", index="submissions_pkey")
DELETE_INPUTS = Statement(
    "DELETE FROM inputs WHERE id IN (SELECT id FROM inputs WHERE batch_id = %s LIMIT %s)",
    index="inputs_batch_id_digest_key|inputs_refused|inputs_waiting inputs_pkey",
)
DELETE_EDITS = Statement("DELETE FROM edits WHERE id = ANY(%(ids)s)", index="edits_pkey")
DELETE_NOTIFICATIONS = Statement("DELETE FROM notifications WHERE batch_id = %s", index="notifications_batch")
END_BATCH = Statement("UPDATE batches SET prune_ended_at = now() WHERE id = %s", index="batches_pkey")


def _prune_edits(connection: Connection, batch_id: UUID) -> int:
    """The next edits of a pruned batch with all that belongs to them; at their end, its notifications."""
    edits = connection.exec_driver_sql(LOCK_EDITS_TO_PRUNE, (batch_id, EDITS_AT_ONCE)).scalars().all()
    submissions = connection.exec_driver_sql(LOCK_SUBMISSIONS_TO_PRUNE, (list(edits),)).scalars().all()
    for statement, ids in (
        (KEEP_SUMS, submissions),
        (DELETE_CALLBACKS, submissions),
        (DELETE_IMAGES, submissions),
        (DELETE_SUBMISSIONS, submissions),
        (DELETE_EDITS, edits),
    ):
        _run(connection, statement, ids)
    inputs = connection.exec_driver_sql(DELETE_INPUTS, (batch_id, INPUTS_AT_ONCE)).rowcount
    if len(edits) < EDITS_AT_ONCE and inputs < INPUTS_AT_ONCE:
        connection.exec_driver_sql(DELETE_NOTIFICATIONS, (batch_id,))
        connection.exec_driver_sql(END_BATCH, (batch_id,))
    return len(edits)


def _run(connection: Connection, statement: Statement, ids: Sequence[object]) -> None:
    if ids:
        connection.exec_driver_sql(statement, {"ids": list(ids)})


DELETE_ORPHANS = Statement(
    _COUNT_CALLBACKS,
    chosen="""SELECT id FROM callbacks WHERE submission_id IS NULL AND received_at < now() - %(kept)s * interval '1 s'
              ORDER BY received_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED""",
    index="callbacks_orphans",
)


def prune_orphans(connection: Connection, kept: float) -> Step:
    """Callbacks that belong to no submission, received longer ago than `kept` seconds."""
    removed = connection.exec_driver_sql(DELETE_ORPHANS, {"kept": kept, "limit": CALLBACKS_AT_ONCE}).scalar_one()
    return Step(removed, removed == CALLBACKS_AT_ONCE)


DELETE_UPLOADS = Statement(
    """
    DELETE FROM uploads WHERE (sha256, cdn_url) IN (
        SELECT sha256, cdn_url FROM uploads WHERE expires_at < now() - %(kept)s * interval '1 s'
        ORDER BY expires_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
    """,
)


def prune_uploads(connection: Connection, kept: float) -> Step:
    """What we know of files that expired at the provider longer ago than `kept` seconds.

    Nothing reads such a row any more (`USABLE_UPLOADS`): the same file is uploaded again, row or not. The edits name
    its address themselves.
    """
    removed = connection.exec_driver_sql(DELETE_UPLOADS, {"kept": kept, "limit": UPLOADS_AT_ONCE}).rowcount
    return Step(removed, removed == UPLOADS_AT_ONCE)


DELETE_MINUTES = Statement("DELETE FROM past_minutes WHERE minute < now() - %s * interval '1 s'")
DELETE_LATENCIES = Statement("DELETE FROM past_latencies WHERE hour < now() - %s * interval '1 s'")


def prune_moments(connection: Connection, kept: float | None) -> Step:
    """What happened in a minute or an hour longer ago than `kept` seconds (None: nothing goes).

    Sums over all times stay what they were: before, every time that is over is added up (`models/past_counters.py`).
    """
    more = move_past(connection)
    if kept is None:
        return Step(0, more)
    statements = (DELETE_MINUTES, DELETE_LATENCIES)
    return Step(sum(connection.exec_driver_sql(statement, (kept,)).rowcount for statement in statements), more)


COUNT_CALLBACK_BODIES = Statement(
    """
    SELECT count(*) FROM callbacks
    WHERE id > (SELECT reached FROM retention WHERE kind = 'callback_bodies')
      AND received_at < now() - %(kept)s * interval '1 s' AND (delivery IS NOT NULL OR body IS NOT NULL)
    """,
    index="callbacks_received|callbacks_pkey",
)
COUNT_BATCHES = Statement(
    """
    SELECT count(*) AS old, count(*) FILTER (WHERE {prunable}) AS batches,
           coalesce(sum(b.edit_count) FILTER (WHERE {prunable}), 0) AS edits
    FROM batches b WHERE b.finished_at < now() - %(kept)s * interval '1 s' AND b.pruned_at IS NULL
    """,
    prunable=_PRUNABLE,
    index="submissions_due",
)
COUNT_ORPHANS = Statement(
    """
    SELECT count(*) FROM callbacks WHERE submission_id IS NULL AND received_at < now() - %(kept)s * interval '1 s'
    """,
    index="callbacks_orphans",
)
COUNT_UPLOADS = Statement("SELECT count(*) FROM uploads WHERE expires_at < now() - %(kept)s * interval '1 s'")
COUNT_MOMENTS = Statement("""
    SELECT (SELECT count(*) FROM throughput WHERE minute < now() - %(kept)s * interval '1 s')
           + (SELECT count(*) FROM latency WHERE hour < now() - %(kept)s * interval '1 s')
""")
COUNT_IMAGES = Statement(
    """
    SELECT coalesce(sum(greatest(0, c.images_stored - b.images_deleted)), 0) FROM batches b
    CROSS JOIN LATERAL (SELECT sum(images_stored) AS images_stored FROM batch_counters WHERE batch_id = b.id) c
    WHERE {to_be_deleted} AND b.finished_at < now() - coalesce(b.output_expires_after, %(kept)s) * interval '1 s'
    """,
    to_be_deleted=IMAGES_TO_DELETE,
)
COUNT_REQUESTS = Statement(
    """
    SELECT coalesce(sum(b.edit_count), 0) FROM batches b
    WHERE {to_be_deleted} AND b.finished_at < now() - %(kept)s * interval '1 s'
    """,
    to_be_deleted=REQUESTS_TO_DELETE,
)
COUNTS = {
    Kept.CALLBACK_BODIES: COUNT_CALLBACK_BODIES,
    Kept.ORPHANS: COUNT_ORPHANS,
    Kept.UPLOADS: COUNT_UPLOADS,
    Kept.MOMENTS: COUNT_MOMENTS,
    Kept.IMAGES: COUNT_IMAGES,
    Kept.PROVIDER_COPIES: COUNT_REQUESTS,
}


class OldBatches(NamedTuple):
    """Finished batches that were kept long enough: all, those of them that can go, and the edits of these."""

    old: int
    batches: int
    edits: int


def count_batches(connection: Connection, kept: float, *, waits_for: Sequence[str] = ()) -> OldBatches:
    """How many batches have finished longer ago than `kept` seconds."""
    return OldBatches(*connection.exec_driver_sql(COUNT_BATCHES, {"kept": kept, "waits_for": list(waits_for)}).one())


def count_kept(connection: Connection, kind: Kept, kept: float | None) -> int:
    """How many of a kind of `COUNTS` were kept for longer than so many seconds; of images, those of batches with a time
    of their own for as long as that. Of requests at the provider the edits are counted.
    """
    return int(connection.exec_driver_sql(COUNTS[kind], {"kept": kept}).scalar_one())
