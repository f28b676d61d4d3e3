"""Submissions that nobody heard of: what the poll lane compares with the provider's listing."""

from models.statements import Statement

INPUT_OF_SUBMISSION = Statement(
    "SELECT e.arguments, e.seed, s.sent_urls FROM submissions s JOIN edits e ON e.id = s.edit_id WHERE s.id = %s",
    index="submissions_pkey edits_pkey",
)
STILL_UNKNOWN = Statement(
    "SELECT id FROM submissions WHERE id = ANY(%s) AND outcome IS NULL AND request_id IS NULL",
    index="submissions_pkey|submissions_open",
)
REQUESTS_OF_OURS = Statement(
    "SELECT request_id FROM submissions WHERE request_id = ANY(%s)", index="submissions_request_id_key"
)
TWINS_IN_FLIGHT = Statement(
    """
    SELECT s.id, s.posted_at, s.due_at
    FROM submissions s JOIN edits e ON e.id = s.edit_id JOIN batches b ON b.id = e.batch_id
    WHERE s.due_at > now() AND s.request_id IS NULL AND s.polls = 0 AND b.endpoint = %s
      AND e.seed IN (SELECT o.seed FROM submissions l JOIN edits o ON o.id = l.edit_id WHERE l.id = ANY(%s))
    """,
    index="submissions_due submissions_pkey edits_pkey",
)
