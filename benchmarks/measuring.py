"""What every row of `make bench` shares: processes whose CPU is counted, turns, medians, a table and a plot."""

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil  # type: ignore[import-untyped]

from cli.settings import environment
from cli.stack.readiness import until

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"


@dataclass(frozen=True, slots=True)
class Column:
    """One figure that is measured of each contestant; `digits` after the point."""

    key: str
    title: str
    digits: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """One row of the page, measured: contestant -> its figures, one mapping for each turn."""

    title: str
    text: str
    columns: Sequence[Column]
    turns: Mapping[str, Sequence[Mapping[str, float]]]
    plotted: str
    """The key of the column that is drawn."""


def take_turns(
    contestants: Mapping[str, Callable[[], Mapping[str, float]]], rounds: int
) -> dict[str, list[Mapping[str, float]]]:
    """Let them run by turns, so that what else the machine does meets all of them alike."""
    turns: dict[str, list[Mapping[str, float]]] = {name: [] for name in contestants}
    for number in range(rounds):
        for name, run in contestants.items():
            turns[name].append(run())
            print(f"round {number + 1}: {name}: {turns[name][-1]}", flush=True)
    return turns


def _port_answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextmanager
def served(command: Sequence[str], port: int, **variables: str) -> Iterator[psutil.Process]:
    """A program of our environment that listens on `port`; ended by its own id."""
    server = subprocess.Popen((sys.executable, "-m", *command), env={**environment(), **variables})
    try:
        if not until(lambda: _port_answers(port), timeout=60):
            raise RuntimeError(f"{command[0]} did not start")
        yield psutil.Process(server.pid)
    finally:
        server.terminate()
        server.wait(20)


def cpu_seconds(process: psutil.Process) -> float:
    """CPU that a process and all that it started have used so far."""
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        try:
            times = one.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def write_section(row: str, found: Found, about: str) -> None:
    """Put what was found between the row's marks on the page, and its plot beside the page."""
    page = PAGE.read_text()
    before, begins, rest = page.partition(f"<!-- {row}: begin -->\n")
    _, ends, after = rest.partition(f"<!-- {row}: end -->")
    if not begins or not ends:
        raise SystemExit(f"{PAGE} has no marks for {row}")
    plot = PAGE.with_name(f"performance-{row}.svg")
    plot.write_text(draw(found))
    section = f"{found.text}\n\n{table(found)}\n\n![{found.title}]({plot.name})\n\n{about}\n"
    PAGE.write_text(before + begins + section + ends + after)


def medians(found: Found) -> dict[str, dict[str, float]]:
    """Contestant -> column -> the median of its turns."""
    return {
        name: {column.key: median(turn[column.key] for turn in turns if column.key in turn) for column in found.columns
               if any(column.key in turn for turn in turns)}
        for name, turns in found.turns.items()
    }  # fmt: skip


def table(found: Found) -> str:
    """Markdown, one line for each contestant."""
    lines = [["", *(column.title for column in found.columns)], ["---", *("---:" for _ in found.columns)]]
    for name, figures in medians(found).items():
        cells = [
            f"{figures[column.key]:,.{column.digits}f}".replace(",", " ") if column.key in figures else "-"
            for column in found.columns
        ]
        lines.append([name, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw(found: Found) -> str:
    """Bars, as an SVG; a line across each shows the least and the most of its turns."""
    title = next(column.title for column in found.columns if column.key == found.plotted)
    values = {name: [turn[found.plotted] for turn in turns] for name, turns in found.turns.items() if turns}
    most, height = max(max(turns) for turns in values.values()), 34
    parts = [f'<text x="10" y="22" font-weight="bold">{found.title}: {title}</text>']
    for number, (name, turns) in enumerate(values.items()):
        y, scale = 40 + number * height, 420 / most
        parts += [
            f'<text x="250" y="{y + 15}" text-anchor="end">{name}</text>',
            f'<rect x="260" y="{y}" width="{median(turns) * scale:.0f}" height="20" fill="#4878a8"/>',
            f'<path d="M{260 + min(turns) * scale:.0f} {y + 10}H{260 + max(turns) * scale:.0f}" stroke="#222"/>',
            f'<text x="{270 + max(turns) * scale:.0f}" y="{y + 15}">{median(turns):.0f}</text>',
        ]
    size = f'width="760" height="{50 + height * len(values)}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="13">\n' + (
        "\n".join(parts) + "\n</svg>\n"
    )
