"""Commands about the surroundings: the settings as they are in effect, the schema, the emulator on its own."""

import os
import sys
from importlib.util import find_spec

import click

from cli import migrate as schema
from cli.output import json_option, print_json
from cli.settings import effective, load_with_database
from cli.streams import one_line
from core.errors import SettingsError
from core.settings import DatabaseSettings, load
from models.monitor_role import ROLE

NO_MONITOR_ROLE = (
    f"There is no role {ROLE}, and this one may not create it: "
    f"have `CREATE ROLE {ROLE} NOLOGIN` run, then migrate again."
)


@click.command()
@json_option
def env(as_json: bool) -> None:
    """Print the settings in effect.

    NAME=value a line; secrets are masked.
    """
    load_with_database()
    values = effective()
    if as_json:
        print_json(values)
        return
    for name, value in values.items():
        print(one_line(f"{name}={value}"))


@click.command()
@json_option
def migrate(as_json: bool) -> None:
    """Bring the database to the schema of this release."""
    load_with_database()
    url = load(DatabaseSettings).database_url
    before, after = schema.upgrade(url)
    monitored = schema.has_monitor_role(url)
    if as_json:
        print_json({"before": before, "revision": after, "monitor_role": monitored})
        return
    if before == after:
        print(f"The schema is at {after} already.")
    else:
        print(f"The schema is at {after} now, after {before or 'nothing'}.")
    if not monitored:
        print(NO_MONITOR_ROLE)


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
    options_metavar="[OPTIONS of the emulator]",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="")
def emulator(arguments: tuple[str, ...]) -> None:
    """Run the emulator of the provider on its own.

    No AI, no cost. --help shows its options.
    """
    if find_spec("aiohttp") is None:
        raise SettingsError("The emulator needs the extra `emulator`: pip install 'darkroom[emulator]'.")
    # in our place, not beside us: whoever ends this process ends the emulator
    os.execv(sys.executable, (sys.executable, "-m", "fal_emulator", *arguments))  # noqa: S606
