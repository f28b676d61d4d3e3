"""A database as it looks after months: edits in batches with what belongs to them, nearly all of it over and done."""

from typing import Any

from models.counters import COUNTED
from models.fold_counters import FOLD_COUNTERS
from models.past_counters import MOVE_CALLBACKS, MOVE_DAYS, MOVE_LATENCIES, MOVE_MINUTES
from models.statements import fill
from models.transitions.submissions import NEW_ID

BATCHES, EDITS_EACH = 1_000, 100
RUNNING = 10
"""Batches that are not finished, however many there are."""

_FILL = """
INSERT INTO batches (endpoint, client, name, edit_count, created_at, finished_at, audited_at, notify_url)
SELECT 'model/' || n % 3, 'client-' || n % {clients}, 'batch ' || n, {each},
       now() - n * interval '{span} s' / {batches}, CASE WHEN n > {running} THEN now() END,
       CASE WHEN n > {running} THEN now() END, 'https://example.com/told'
FROM generate_series({batches}, 1, -1) n;

INSERT INTO edits (batch_id, position, custom_id, arguments, seed, state, due_at, finished_at, attempt)
SELECT b.id, n, CASE WHEN n % 2 = 0 THEN 'edit-' || n END, '{{"prompt": "A red hat"}}', n, s.state,
       CASE WHEN s.state IN ('pending', 'submitting', 'submitted', 'ready') THEN now() END,
       CASE WHEN s.state IN ('stored', 'failed') THEN now() END, CASE WHEN s.state = 'pending' THEN 0 ELSE 1 END
FROM batches b CROSS JOIN LATERAL generate_series(0, {each} - 1 + 0 * b.edit_count) n  -- one batch after the other
CROSS JOIN LATERAL (SELECT CASE
    WHEN b.finished_at IS NULL THEN (ARRAY['pending', 'submitting', 'submitted', 'ready', 'stored'])[n % 5 + 1]
    WHEN n % 50 = 0 THEN 'failed' ELSE 'stored' END AS state) s;

INSERT INTO submissions (id, edit_id, attempt, request_id, outcome, due_at, posted_at, accepted_at, completed_at,
                         result_lost_after, learned_by, images_returned, set_number, cost)
SELECT {new_id}, e.id, 1, CASE WHEN e.state <> 'submitting' THEN 'request-' || e.id END, o.outcome,
       CASE WHEN o.outcome IS NULL THEN now() - interval '1 s' END, e.created_at,
       CASE WHEN e.state <> 'submitting' THEN {ended} - interval '20 s' END,
       CASE WHEN o.outcome IS NOT NULL THEN {ended} END, now() + interval '1 hour',
       CASE WHEN o.outcome IS NOT NULL THEN 'callback' END, CASE WHEN o.outcome = 'succeeded' THEN 1 END,
       CASE WHEN o.outcome = 'succeeded' THEN 1 END, CASE WHEN o.outcome = 'succeeded' THEN 0.03 END
FROM edits e CROSS JOIN LATERAL (SELECT CASE
    WHEN e.state IN ('ready', 'stored') THEN 'succeeded' WHEN e.state = 'failed' THEN 'failed' END AS outcome) o
WHERE e.state <> 'pending';

INSERT INTO images (submission_id, index, state, due_at, url, storage_key, sha256, stored_bytes, stored_type, stored_at)
SELECT s.id, 0, CASE WHEN w.waits THEN 'waiting' ELSE 'stored' END, CASE WHEN w.waits THEN now() END,
       'https://example.com/' || s.edit_id, CASE WHEN NOT w.waits THEN s.id::text END,
       CASE WHEN NOT w.waits THEN s.id::text END, CASE WHEN NOT w.waits THEN 100000 END,
       CASE WHEN NOT w.waits THEN 'image/png' END, CASE WHEN NOT w.waits THEN s.completed_at + interval '2 s' END
FROM submissions s JOIN edits e ON e.id = s.edit_id CROSS JOIN LATERAL (SELECT e.state = 'ready' AS waits) w
WHERE s.outcome = 'succeeded' ORDER BY s.edit_id;

INSERT INTO callbacks (effect, submission_id, request_id, signed_at, received_at, delivery, sha256)
SELECT 'applied', id, request_id, completed_at, completed_at, 'packed', 'hash'
FROM submissions WHERE outcome IS NOT NULL ORDER BY edit_id;

INSERT INTO notifications (batch_id, event, url, payload, due_at, delivered_at)
SELECT b.id, 'batch.finished', b.notify_url, '{{}}', CASE WHEN n = 0 AND b.edit_count % 7 = 0 THEN now() END,
       CASE WHEN NOT (n = 0 AND b.edit_count % 7 = 0) THEN now() END
FROM batches b CROSS JOIN generate_series(0, 4) n WHERE b.finished_at IS NOT NULL;

INSERT INTO inputs (batch_id, digest, position, number, holds_from, host, state, due_at, sha256, url, url_expires_at)
SELECT e.batch_id, sha256(convert_to(e.id::text, 'UTF8')), e.position, 0, e.position, w.host, w.state,
       CASE WHEN w.state = 'waiting' THEN now() END, CASE WHEN w.state = 'ready' THEN 'hash' END,
       CASE WHEN w.state = 'ready' AND w.host IS NULL THEN 'https://example.com/' || e.id END,
       CASE WHEN w.state = 'ready' AND w.host IS NULL THEN now() + interval '1 d' END
FROM edits e JOIN batches b ON b.id = e.batch_id CROSS JOIN LATERAL (SELECT
    CASE WHEN e.id % 3 > 0 THEN 'example.com' END AS host, CASE
    WHEN b.finished_at IS NULL AND e.id % 2 = 0 THEN 'waiting' WHEN e.id % 50 = 0 THEN 'refused' ELSE 'ready' END
    AS state) w;

INSERT INTO input_files (client, sha256, name, storage_key, content_type, bytes, width, height, stored_at, expires_at)
SELECT 'client-' || n % {clients}, 'hash-' || n, 'files/hash-' || n, 'inputs/' || n, 'image/png', 100, 10, 10, now(),
       now() + n * interval '1 min'
FROM generate_series(1, 5000) n;

INSERT INTO uploads (sha256, cdn_url, url, content_type, bytes)
SELECT 'hash-' || n, 'https://example.com', 'https://example.com/' || n, 'image/png', 100
FROM generate_series(1, 5000) n
"""


_ENDED = "now() - ({edits} - e.id) * (interval '{span} s' / {edits})"
_IN_ORDER = fill(NEW_ID, at="now() + e.id * interval '1 ms'")
_COUNTED = "(SELECT 1 AS sign, {columns} FROM {table})"


def fill_tables(
    connection: Any, *, batches: int = BATCHES, edits_each: int = EDITS_EACH, days: int = 1, clients: int = 20
) -> None:
    """Write the rows and their counters, and have the server look at them; takes some seconds.

    What is over ended in the last so many days, evenly, whatever the number of edits.
    """
    span = str(days * 86_400)
    connection.execute("SET session_replication_role = replica")  # no triggers: what they check holds by construction
    connection.execute(
        fill(
            _FILL,
            batches=str(batches),
            each=str(edits_each),
            running=str(RUNNING),
            clients=str(clients),
            span=span,
            ended=fill(_ENDED, span=span, edits=str(batches * edits_each)),
            new_id=_IN_ORDER,
        )
    )
    connection.execute("SET session_replication_role = origin")
    for table, counted in COUNTED.items():
        source = fill(_COUNTED, columns=counted.columns, table=table)
        for counting in counted.countings:
            if counting.after_insert is not None:  # else it is about changes
                connection.execute(fill(counting.statement, source=source, since="'-infinity'"))
    finished = connection.execute("SELECT array_agg(id) FROM batches WHERE finished_at IS NOT NULL").fetchone()
    connection.execute(FOLD_COUNTERS, finished)
    for move in (MOVE_MINUTES, MOVE_LATENCIES, MOVE_DAYS, MOVE_CALLBACKS):
        while connection.execute(move).fetchone()[0]:
            pass
    connection.execute("VACUUM (FULL) minute_counters")  # it never held that many at one time
    connection.execute("VACUUM ANALYZE")


_LARGE = """
INSERT INTO batches (endpoint, client, name, edit_count, finished_at, audited_at)
VALUES ('model', 'local', 'large', {edits}, now(), now());

INSERT INTO edits (batch_id, position, custom_id, arguments, seed, state, due_at, finished_at, attempt)
SELECT b.id, n, 'sku-' || n, jsonb_build_object(
           'prompt', 'Dress the model in coat number ' || n || ', keep face, pose and light as they are',
           'image_urls', jsonb_build_array('https://images.example/models/' || n % 97 || '.png',
                                           'https://images.example/' || n || '.png'),
           'image_size', jsonb_build_object('width', 2048, 'height', 2048)),
       n, 'stored', NULL, now(), 1
FROM batches b, generate_series(0, {edits} - 1) n WHERE b.name = 'large';

INSERT INTO submissions (id, edit_id, attempt, request_id, outcome, due_at, posted_at, accepted_at, completed_at,
                         learned_by, images_returned, set_number, cost)
SELECT {new_id}, e.id, 1, 'large-' || e.id, 'succeeded', NULL, now(), now(), now(), 'callback', 1, 1, 0.03
FROM edits e JOIN batches b ON b.id = e.batch_id WHERE b.name = 'large';

INSERT INTO images (submission_id, index, state, due_at, url, storage_key, sha256, stored_bytes, stored_type,
                    stored_width, stored_height, stored_at)
SELECT s.id, 0, 'stored', NULL, 'https://example.com/' || e.id, b.id || '/' || e.custom_id || '/0.png',
       repeat('ab', 32), 100000, 'image/png', 2048, 2048, now()
FROM submissions s JOIN edits e ON e.id = s.edit_id JOIN batches b ON b.id = e.batch_id WHERE b.name = 'large'
"""


def large_batch(connection: Any, edits: int) -> Any:
    """The id of one batch of so many stored edits of usual size, beside whatever is there, with its counters."""
    connection.execute(fill(_LARGE, edits=str(edits), new_id=_IN_ORDER))
    connection.execute("VACUUM ANALYZE")
    return connection.execute("SELECT id FROM batches WHERE name = 'large'").fetchone()[0]
