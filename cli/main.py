"""The command `darkroom`: what a person types, and what becomes of whatever goes wrong.

Exit codes: 0 done, 1 some edits failed, 2 usage or bad input. An error that a person can do something about is
one sentence; a traceback is a bug of ours.
"""

import gc
import sys
from collections.abc import Iterator, MutableMapping
from importlib import import_module
from io import StringIO

import click

from cli.streams import PIPE_CLOSED, OutputClosed, close_output, discard_output, prepare_streams, say, show_controls
from core.errors import UserError

USAGE = 2
INTERRUPTED = 130
"""What a shell makes of Ctrl-C."""
MANY_OBJECTS = 50_000
"""New objects before Python looks for garbage: next to none of what imports make is, and a person waits for them."""


MODULES = {
    "up": "cli.stack.up",
    "demo": "cli.stack.demo",
    "submit": "cli.batches.submit",
    "edit": "cli.batches.edit",
    "status": "cli.batches.status",
    "watch": "cli.batches.status",
    "errors": "cli.batches.errors",
    "timeline": "cli.batches.timeline",
    "batches": "cli.batches.status",
    "top": "cli.top",
    "contact-sheet": "cli.batches.contact_sheet",
    "export": "cli.batches.export",
    "download": "cli.batches.download",
    "verify": "cli.batches.verify",
    "cancel": "cli.batches.actions",
    "pause": "cli.batches.actions",
    "resume": "cli.batches.actions",
    "retry": "cli.batches.actions",
    "append": "cli.batches.append",
    "priority": "cli.batches.actions",
    "notify": "cli.batches.notify",
    "doctor": "cli.doctor.command",
    "request": "cli.provider.request",
    "replay": "cli.batches.replay",
    "prune": "cli.prune",
    "env": "cli.database_commands",
    "migrate": "cli.database_commands",
    "emulator": "cli.database_commands",
}
"""Command -> the module that holds it, loaded when it is wanted: a person waits for the answer."""


class LazyCommands(MutableMapping[str, click.Command]):
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


class CommandGroup(click.Group):
    """The group; its help lists the commands in the order in which a newcomer needs them."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; a reader that has gone away is no failed edit."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # click would end with 1, which says that edits failed
            raise OutputClosed from None

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Their names, in that order."""
        return list(MODULES)


@click.group(
    cls=CommandGroup,
    commands=LazyCommands(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="darkroom")
def darkroom() -> None:
    """Bulk image edits through fal's queue: nothing lost, nothing paid twice, the whole truth in SQL."""


def main() -> None:
    """Run the command line; commands give their exit code back."""
    gc.set_threshold(MANY_OBJECTS)
    prepare_streams()
    code = close_output(_run())
    gc.freeze()  # Python's last search for garbage goes through all modules, and takes a fifth of a short command
    sys.exit(code)


def _run() -> int:
    try:
        code = darkroom.main(prog_name="darkroom", standalone_mode=False)
    except UserError as error:
        say(str(error))
        code = USAGE
    except click.ClickException as error:
        shown = StringIO()
        error.show(shown)
        print(show_controls(shown.getvalue()), end="", file=sys.stderr)
        code = USAGE
    except (click.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except OutputClosed:
        code = PIPE_CLOSED
    except OSError as error:  # the world's: a full disk, a folder that is none
        what = f"{error.filename} cannot be read or written" if error.filename else "The output cannot be written"
        say(f"{what}: {error.strerror or error}.")
        if not error.filename:
            discard_output()  # what could not be written is still in the buffer, from Python 3.13 on
        code = USAGE
    except Exception as error:
        sentence = _database_sentence(error)
        if sentence is None:
            raise
        say(sentence)
        code = USAGE
    return code or 0


def _database_sentence(error: Exception) -> str | None:
    """What is wrong with the database, where that is it; whoever has not loaded a driver has not met its errors."""
    if "psycopg" not in sys.modules and "sqlalchemy" not in sys.modules:
        return None
    from models.database_errors import DATABASE_ERRORS, explain

    return explain(error) if isinstance(error, DATABASE_ERRORS) else None


if __name__ == "__main__":
    main()
