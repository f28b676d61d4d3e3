"""A command imports what it needs: a person waits for the rest each time."""

import subprocess
import sys

import pytest

from cli.main import MODULES
from cli.migrate import _config, newest

HEAVY = {
    *("alembic", "mako", "pygments", "requests", "urllib3", "aiohttp", "celery", "kombu", "redis", "PIL", "obstore"),
    *("flask", "werkzeug", "granian", "nacl", "cryptography", "standardwebhooks", "supervisor", "structlog"),
}
"""What takes long to import, of all that darkroom uses, and is no part of asking the database."""
DATABASE = {"sqlalchemy", "psycopg", "pydantic", "pydantic_settings", "rich"}
LOOKING = ("status", "watch", "batches")
ACTING = ("cancel", "pause", "resume", "retry", "priority", "notify", "export")


def imported(module: str) -> set[str]:
    code = f"import {module}, sys; print(*(name.partition('.')[0] for name in sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(found.stdout.split())


@pytest.mark.parametrize("module", sorted({MODULES[name] for name in (*LOOKING, *ACTING)}))
def test_a_command_that_asks_the_database_imports_no_more(module: str) -> None:
    """Not the provider's client, not the workers, not what migrates."""
    assert imported(module) & HEAVY == set()


def test_help_needs_no_database() -> None:
    """The group itself, as completion and `--help` load it."""
    assert imported("cli.main") & (HEAVY | DATABASE) == set()


def test_the_numbers_of_the_migrations_are_their_ladder() -> None:
    """Which revision is the newest is read from the files' names; where they said otherwise, every command would."""
    from alembic.script import ScriptDirectory

    assert newest() == ScriptDirectory.from_config(_config("")).get_current_head()
