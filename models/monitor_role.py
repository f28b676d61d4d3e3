"""The role that may look and nothing else: it reads our views, without what callers would not show to everybody.

Views are read with the rights of their owner, so the role needs none on the tables. What may quote a prompt, a URL, a
token or an answer is a column that it has no right to. A role belongs to the whole cluster, its rights to one database.
"""

from collections.abc import Iterable

from sqlalchemy import Connection, Engine

from models.database_errors import DATABASE_ERRORS, sqlstate
from models.statements import Statement, fill

ROLE = "darkroom_monitor"
WITHHELD: dict[str, frozenset[str]] = {
    "edit_errors": frozenset({"message"}),
    "errors_by_type": frozenset({"example"}),
    "charges": frozenset({"submission_id"}),
    "overdue": frozenset({"id"}),
    "unanswered": frozenset({"submission_id", "reason"}),
    "edit_timeline": frozenset({"message"}),
}
"""View -> its columns that the role may not read: messages quote what others wrote, a submission's id is its token."""
NOT_FOR_POLLING = frozenset({"audit"})
"""Views that the role may not read at all: they read every row there is."""

ROLE_IS_THERE = Statement("SELECT FROM pg_roles WHERE rolname = %s")
COLUMNS_OF_VIEW = Statement(
    "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 ORDER BY attnum"
)
SCHEMA_TO_OPEN = Statement(
    "SELECT quote_ident(current_schema()) WHERE NOT has_schema_privilege(%s, current_schema(), 'USAGE')"
)
_CREATE = "CREATE ROLE {role} NOLOGIN"
_OPEN = "GRANT USAGE ON SCHEMA {schema} TO {role}"
_GRANT = "GRANT SELECT {columns} ON {view} TO {role}"
NOT_ALLOWED, IS_THERE, JUST_MADE = "42501", "42710", "23505"
"""SQLSTATEs: who asks may not; it is there; another migration made it at the same moment."""


def create_role(engine: Engine) -> None:
    """Create the role where it is not there and we may; in a transaction of its own, because others wait for it."""
    try:
        with engine.begin() as connection:
            if not is_there(connection):
                connection.exec_driver_sql(fill(_CREATE, role=ROLE))
    except DATABASE_ERRORS as error:
        if sqlstate(error) not in (NOT_ALLOWED, IS_THERE, JUST_MADE):
            raise


def is_there(connection: Connection) -> bool:
    """Whether the cluster has the role."""
    return bool(connection.exec_driver_sql(ROLE_IS_THERE, (ROLE,)).all())


def grant_views(connection: Connection, views: Iterable[str]) -> None:
    """Let the role, where there is one, read these views, but for the columns that are withheld."""
    if not is_there(connection):
        return
    for schema in connection.exec_driver_sql(SCHEMA_TO_OPEN, (ROLE,)).scalars().all():
        connection.exec_driver_sql(fill(_OPEN, schema=schema, role=ROLE))
    for view in views:
        if view in NOT_FOR_POLLING:
            continue
        columns = ""
        if view in WITHHELD:
            found = connection.exec_driver_sql(COLUMNS_OF_VIEW, (view,)).scalars()
            columns = f"({', '.join(name for name in found if name not in WITHHELD[view])})"
        connection.exec_driver_sql(fill(_GRANT, columns=columns, view=view, role=ROLE))
