"""Brings the database to the schema that this release needs, with Alembic, in this process.

What a migration does stands in `migrations/`; this file only finds that folder and turns the ways in which it can
fail into a sentence. Alembic is imported by whoever migrates: every command asks which revision is the newest.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import migrations
from core.errors import DatabaseError
from models import monitor_role
from models.database import make_engine
from models.database_errors import DATABASE_ERRORS, advise, explain, reason, sqlstate

if TYPE_CHECKING:
    from alembic.config import Config

FOLDER = Path(migrations.__file__).parent


def _config(url: str) -> "Config":
    from alembic.config import Config

    config = Config(stdout=sys.stdout)  # its default is what the name stood for when alembic was first imported
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.attributes["url"] = url
    return config


def newest() -> str:
    """The revision that this release needs: its migrations are numbered."""
    return max(path.name.partition("_")[0] for path in (FOLDER / "versions").glob("[0-9]*_*.py"))


def current(url: str) -> str | None:
    """The revision at which the database stands; None where it holds no schema of ours."""
    from alembic.runtime.migration import MigrationContext

    engine = make_engine(url, application="darkroom migrate", pool_size=1)
    try:
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()


def has_monitor_role(url: str) -> bool:
    """Whether somebody can be made a member of the role that may look and nothing else."""
    engine = make_engine(url, application="darkroom migrate", pool_size=1)
    try:
        with engine.connect() as connection:
            return monitor_role.is_there(connection)
    finally:
        engine.dispose()


def _why(error: Exception) -> str:
    sentence = explain(error) if sqlstate(error) else None
    return sentence.rstrip(".") if sentence else reason(error)


def upgrade(url: str) -> tuple[str | None, str]:
    """Bring the database to the newest revision; gives the one before and the one after.

    Raises:
        DatabaseError: it cannot be reached or may not be changed, or was made by a newer release.
    """
    from alembic import command
    from alembic.util import CommandError

    try:
        before = current(url)
        command.upgrade(_config(url), "head")
    except DATABASE_ERRORS as error:
        if explain(error) is None:
            raise  # a mistake in a migration
        raise DatabaseError(f"The database cannot be migrated: {_why(error)}{advise(error)}.") from None
    except CommandError as error:
        raise DatabaseError(f"The database cannot be migrated: {error}.") from None
    return before, newest()
