"""`darkroom top`: the whole system, live. Reads views, a few rows of each; changes nothing."""

import click
from sqlalchemy import Engine

from cli.connection import open_database
from cli.output import json_option, print_json, screen, stderr
from cli.overview import Overview, Trouble, poll_overview, read_overview
from cli.overview_text import overview_lines

EVERY = 2.0
"""Seconds between two looks."""
PRINTED_EVERY = 10.0
"""The same where there is no terminal."""


@click.command()
@click.option("--once", is_flag=True, help="Show it once, for a script.")
@json_option
def top(once: bool, as_json: bool) -> int:
    """Watch the whole system.

    What is due in each lane and when it was last at work, what is in flight, how much happens and how long it takes,
    what is overdue, and which batches are open. Ctrl-C ends it.
    """
    engine = open_database()
    try:
        if once:
            _print(read_overview(engine), as_json=as_json)
        elif as_json or not screen.is_terminal or screen.is_dumb_terminal:
            _print_again_and_again(engine, as_json=as_json)
        else:
            _draw(engine)
    except KeyboardInterrupt:  # how one leaves it
        pass
    return 0


def _print(overview: Overview, *, as_json: bool) -> None:
    if as_json:
        print_json(overview.as_json())
        return
    for line in overview_lines(overview):
        screen.print(line, soft_wrap=True)


def _print_again_and_again(engine: Engine, *, as_json: bool) -> None:
    away: Trouble | None = None
    for overview, trouble in poll_overview(engine, EVERY if as_json else PRINTED_EVERY):
        if trouble and not away:
            stderr.print(f"The database does not answer: {trouble.reason}. It is asked again.", markup=False)
        if overview and not trouble:
            _print(overview, as_json=as_json)
            if not as_json:
                screen.print("")
        away = trouble


def _draw(engine: Engine) -> None:
    from rich.live import Live  # here: most commands draw nothing
    from rich.table import Table

    def draw(overview: Overview | None, trouble: Trouble | None) -> Table:
        # a line that is too long for the terminal is cut, else what follows would move from look to look
        page = Table.grid()
        page.add_column(no_wrap=True, overflow="ellipsis")
        for line in overview_lines(overview, trouble):
            page.add_row(line)
        return page

    overviews = poll_overview(engine, EVERY)
    with Live(draw(*next(overviews)), console=screen, screen=True, auto_refresh=False) as live:
        for overview, trouble in overviews:
            live.update(draw(overview, trouble), refresh=True)
