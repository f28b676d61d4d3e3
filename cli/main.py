"""The command `darkroom`: what a person types, and what becomes of whatever goes wrong.

Exit codes: 0 done, 1 some edits failed, 2 usage or bad input. An error that a person can do something about is
one sentence; a traceback is a bug of ours.
"""

import os
import sys
from collections.abc import Iterator, MutableMapping
from importlib import import_module

import click

from models.errors import UserError

USAGE = 2
INTERRUPTED = 130
"""What a shell makes of Ctrl-C."""


MODULES = {
    "up": "cli.up",
    "demo": "cli.demo",
    "submit": "cli.submit",
    "edit": "cli.edit",
    "status": "cli.batches",
    "watch": "cli.batches",
    "batches": "cli.batches",
    "contact-sheet": "cli.contact_sheet",
    "export": "cli.export",
    "cancel": "cli.steering",
    "pause": "cli.steering",
    "resume": "cli.steering",
    "retry": "cli.steering",
    "append": "cli.append",
    "priority": "cli.steering",
    "notify": "cli.notify",
    "doctor": "cli.doctor",
    "request": "cli.request",
    "replay": "cli.replay",
    "env": "cli.environment",
    "migrate": "cli.environment",
    "emulator": "cli.environment",
}
"""Command -> the module that holds it, loaded when it is wanted: a person waits for the answer."""


class OnDemand(MutableMapping[str, click.Command]):
    """The commands by name; each is imported when it is asked for."""

    def __getitem__(self, name: str) -> click.Command:
        command = getattr(import_module(MODULES[name]), name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(MODULES)

    def __len__(self) -> int:
        return len(MODULES)

    def __setitem__(self, name: str, command: click.Command) -> None:
        raise TypeError("a command is added to MODULES")

    def __delitem__(self, name: str) -> None:
        raise TypeError("a command is removed from MODULES")


class Desk(click.Group):
    """The group; its help lists the commands in the order in which a newcomer needs them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(MODULES)


@click.group(
    cls=Desk, commands=OnDemand(), context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="darkroom")
def darkroom() -> None:
    """Bulk image edits through fal's queue: nothing lost, nothing paid twice, the whole truth in SQL."""


def main() -> None:
    """Run the command line; commands give their exit code back."""
    try:
        code = darkroom.main(prog_name="darkroom", standalone_mode=False)
    except UserError as error:
        _say(str(error))
        code = USAGE
    except click.ClickException as error:
        error.show()
        code = USAGE
    except (click.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read has had enough: say no more
        code = 0
    except Exception as error:
        sentence = _database_sentence(error)
        if sentence is None:
            raise
        _say(sentence)
        code = USAGE
    sys.exit(code or 0)


def _database_sentence(error: Exception) -> str | None:
    """What is wrong with the database, where that is it; whoever has not loaded a driver has not met its errors."""
    if "psycopg" not in sys.modules and "sqlalchemy" not in sys.modules:
        return None
    from models.database_errors import DATABASE_ERRORS, explain

    return explain(error) if isinstance(error, DATABASE_ERRORS) else None


def _say(sentence: str) -> None:
    click.echo(sentence if "\n" in sentence else f"darkroom: {sentence}", err=True)


if __name__ == "__main__":
    main()
