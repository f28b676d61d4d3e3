"""Files that callers handed in as inputs: rows of `input_files`, each with an object of the store.

The row is written before the object, and told that it is there after it: whoever is killed between leaves a row that
is removed in its time, and an object with it. A row is removed after its object, while it is locked, so that the same
file handed in again meanwhile waits, and is then written anew.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from models.statements import Statement

FILES = "files/"
"""How the names of these objects begin."""


class InputFile(NamedTuple):
    """A file that a client handed in."""

    client: str
    sha256: str
    name: str
    """Among the client's objects: an edit names it `storage://NAME`."""
    storage_key: str
    content_type: str
    bytes: int
    width: int
    height: int
    stored_at: datetime | None = None
    expires_at: datetime | None = None


_COLUMNS = "client, sha256, name, storage_key, content_type, bytes, width, height, stored_at, expires_at"
BEGIN_INPUT_FILE = Statement(
    """
    INSERT INTO input_files AS f (client, sha256, name, storage_key, content_type, bytes, width, height, kept_for,
                                  expires_at)
    VALUES (%(client)s, %(sha256)s, %(name)s, %(storage_key)s, %(content_type)s, %(bytes)s, %(width)s, %(height)s,
            %(kept_for)s, now() + %(kept_for)s * interval '1 s')
    ON CONFLICT (client, sha256) DO UPDATE
    SET kept_for = excluded.kept_for,
        -- whoever removes what has expired may have been killed between its object and its row
        stored_at = CASE WHEN f.expires_at < now() THEN NULL ELSE f.stored_at END,
        expires_at = CASE WHEN excluded.expires_at IS NOT NULL THEN greatest(f.expires_at, excluded.expires_at) END
    RETURNING {columns}
    """,
    columns=_COLUMNS,
)
END_INPUT_FILE = Statement(
    """
    UPDATE input_files SET stored_at = coalesce(stored_at, now()) WHERE client = %(client)s AND sha256 = %(sha256)s
    RETURNING {columns}
    """,
    columns=_COLUMNS,
    index="input_files_pkey",
)


def begin_input_file(connection: Connection, file: InputFile, *, kept_for: float | None) -> InputFile:
    """Note that a file is about to be stored, or is handed in again, to be kept for so many seconds (None: for ever).

    Answers what is known of it; it is there if it was stored before.
    """
    values = {**file._asdict(), "kept_for": kept_for}
    return InputFile(*connection.exec_driver_sql(BEGIN_INPUT_FILE, values).one())


def end_input_file(connection: Connection, file: InputFile) -> InputFile | None:
    """Note that its object is there; None where the row has been removed meanwhile."""
    row = connection.exec_driver_sql(END_INPUT_FILE, {"client": file.client, "sha256": file.sha256}).first()
    return InputFile(*row) if row else None


INPUT_FILE = Statement(
    "SELECT {columns} FROM input_files WHERE client = %s AND sha256 = %s AND stored_at IS NOT NULL",
    columns=_COLUMNS,
    index="input_files_pkey",
)


def find_input_file(connection: Connection, client: str, sha256: str) -> InputFile | None:
    """A client's file; None where there is none."""
    row = connection.exec_driver_sql(INPUT_FILE, (client, sha256)).first()
    return InputFile(*row) if row else None


RENEW_INPUT_FILES = Statement(
    """
    UPDATE input_files SET expires_at = now() + kept_for * interval '1 s'
    WHERE client = (SELECT client FROM batches WHERE id = %s) AND name = ANY(%s)
      AND expires_at BETWEEN now() AND now() + kept_for * interval '1 s'
    """,
    index="input_files_name",
)


def renew_input_files(connection: Connection, batch_id: UUID, names: Sequence[str]) -> None:
    """A batch names these files of its client: they are kept from now on for as long as they were to be."""
    connection.exec_driver_sql(RENEW_INPUT_FILES, (batch_id, list(names)))


_USED = """
    EXISTS (SELECT FROM inputs i JOIN batches b ON b.id = i.batch_id
            WHERE i.host IS NULL AND i.digest = sha256(convert_to('storage://' || f.name, 'UTF8'))
              AND b.client = f.client AND b.finished_at IS NULL)"""
LOCK_INPUT_FILE = Statement(
    "SELECT {columns}, {used} AS used FROM input_files f WHERE f.client = %s AND f.sha256 = %s FOR UPDATE",
    columns=_COLUMNS,
    used=_USED,
    index="input_files_pkey inputs_objects",
)


def lock_input_file(connection: Connection, client: str, sha256: str) -> tuple[InputFile, bool] | None:
    """A client's file, which nobody removes or hands in meanwhile, and whether an unfinished batch names it."""
    row = connection.exec_driver_sql(LOCK_INPUT_FILE, (client, sha256)).first()
    return (InputFile(*row[:-1]), bool(row.used)) if row else None


LOCK_EXPIRED_FILES = Statement(
    """
    SELECT {columns} FROM input_files f
    WHERE f.expires_at < now() AND NOT {used} ORDER BY f.expires_at LIMIT %s FOR UPDATE SKIP LOCKED
    """,
    columns=_COLUMNS,
    used=_USED,
    index="input_files_expired inputs_objects",
)
COUNT_EXPIRED_FILES = Statement(
    "SELECT count(*) FROM input_files f WHERE f.expires_at < now() AND NOT {used}",
    used=_USED,
    index="input_files_expired inputs_objects",
)
WITHDRAW_INPUT_FILE = Statement(
    "UPDATE input_files SET stored_at = NULL WHERE client = %s AND sha256 = %s", index="input_files_pkey"
)
DELETE_INPUT_FILE = Statement("DELETE FROM input_files WHERE client = %s AND sha256 = %s", index="input_files_pkey")


def withdraw_input_file(connection: Connection, file: InputFile) -> None:
    """Note that a file is about to go: whoever hands it in from now on writes it anew."""
    connection.exec_driver_sql(WITHDRAW_INPUT_FILE, (file.client, file.sha256))


def lock_expired_files(connection: Connection, *, limit: int) -> list[InputFile]:
    """Files that were kept long enough, and that no unfinished batch names."""
    return [InputFile(*row) for row in connection.exec_driver_sql(LOCK_EXPIRED_FILES, (limit,))]


def count_expired_files(connection: Connection) -> int:
    """How many these are."""
    return int(connection.exec_driver_sql(COUNT_EXPIRED_FILES).scalar_one())


def delete_input_file(connection: Connection, file: InputFile) -> None:
    """Forget a file whose object is gone."""
    connection.exec_driver_sql(DELETE_INPUT_FILE, (file.client, file.sha256))
