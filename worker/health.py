"""`python3 -m worker.health LANE`, a container's health check: exit code 1 and a sentence where a lane stands still.

`tick` in the place of a lane is the clock. It asks the database, as everybody does, and nothing of the process: one
that lives and takes nothing is not well.
"""

import sys

from core.errors import UserError
from core.settings import DatabaseSettings, load
from models.database import make_engine
from models.database_errors import DATABASE_ERRORS, reason
from models.progress_health import find_stalled


def main(name: str) -> int:
    """Look at one lane."""
    try:
        engine = make_engine(load(DatabaseSettings).database_url, application="darkroom health", pool_size=1)
        with engine.begin() as connection:
            stalled = find_stalled(connection).get(name)
        engine.dispose()
    except (UserError, *DATABASE_ERRORS) as error:
        stalled = str(error) if isinstance(error, UserError) else reason(error)
    if stalled:
        print(stalled)  # noqa: T201  # docker shows it
    return 1 if stalled else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
