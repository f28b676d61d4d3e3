"""Brings the database to the schema that this release needs, with Alembic, in this process.

What a migration does stands in `migrations/`; this file only finds that folder and turns the ways in which it can
fail into a sentence.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

import migrations
from models.database import CONNECT_TIMEOUT, parse_url
from models.errors import DatabaseError


def _config(url: str) -> Config:
    config = Config()
    folder = Path(migrations.__file__).parent
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.attributes["url"] = url
    return config


def newest() -> str:
    """The revision that this release needs."""
    revision = ScriptDirectory.from_config(_config("")).get_current_head()
    assert revision is not None
    return revision


def current(url: str) -> str | None:
    """The revision at which the database stands; None where it holds no schema of ours."""
    engine = create_engine(parse_url(url), connect_args={"connect_timeout": CONNECT_TIMEOUT})
    try:
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()


def upgrade(url: str) -> tuple[str | None, str]:
    """Bring the database to the newest revision; gives the one before and the one after.

    Raises:
        DatabaseError: it cannot be reached, or was made by a newer release.
    """
    try:
        before = current(url)
        command.upgrade(_config(url), "head")
    except OperationalError as error:
        raise DatabaseError(f"The database cannot be migrated: {str(error.orig).strip().splitlines()[0]}.") from None
    except CommandError as error:
        raise DatabaseError(f"The database cannot be migrated: {error}.") from None
    return before, newest()
