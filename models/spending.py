"""What each batch with a `max_cost` has committed, kept beside every change of a submission.

A sum over a batch's submissions would cost more with every edit it has had, at every claim. So the triggers
here add each statement's difference to one row per batch, in the same transaction, whichever arrow it was; the
view `accounting` holds the row against the sum. Only batches with a ceiling have such a row.

Triggers are repeatable, like the views: `migrations/env.py` drops them before a migration and creates them after.
"""

from sqlalchemy import Connection

# Rows are locked in order of batch: two statements that touch the same two batches must not wait for each other.
_FUNCTION = """
CREATE FUNCTION note_spending() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM spending) THEN
        RETURN NULL;
    END IF;
    IF TG_OP = 'INSERT' THEN
        WITH difference AS (
            SELECT e.batch_id, sum(n.committed) AS amount
            FROM new_rows n JOIN edits e ON e.id = n.edit_id GROUP BY e.batch_id
        ), locked AS MATERIALIZED (
            SELECT s.batch_id FROM spending s JOIN difference USING (batch_id) ORDER BY s.batch_id FOR UPDATE OF s
        )
        UPDATE spending s SET committed = s.committed + d.amount
        FROM difference d JOIN locked USING (batch_id) WHERE s.batch_id = d.batch_id;
    ELSE
        WITH difference AS (
            SELECT e.batch_id, sum(n.committed - o.committed) AS amount
            FROM new_rows n JOIN old_rows o ON o.id = n.id JOIN edits e ON e.id = n.edit_id
            WHERE n.committed <> o.committed GROUP BY e.batch_id
        ), locked AS MATERIALIZED (
            SELECT s.batch_id FROM spending s JOIN difference USING (batch_id) ORDER BY s.batch_id FOR UPDATE OF s
        )
        UPDATE spending s SET committed = s.committed + d.amount
        FROM difference d JOIN locked USING (batch_id) WHERE s.batch_id = d.batch_id;
    END IF;
    RETURN NULL;
END $$
"""
_TRIGGERS = (
    """
    CREATE TRIGGER submissions_spending_insert AFTER INSERT ON submissions
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION note_spending()
    """,
    """
    CREATE TRIGGER submissions_spending_update AFTER UPDATE ON submissions
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION note_spending()
    """,
)


def drop_triggers(connection: Connection) -> None:
    """Drop them, so that the tables beneath may change."""
    connection.exec_driver_sql("DROP FUNCTION IF EXISTS note_spending CASCADE")


def create_triggers(connection: Connection) -> None:
    """Create them as declared here."""
    for statement in (_FUNCTION, *_TRIGGERS):
        connection.exec_driver_sql(statement)
