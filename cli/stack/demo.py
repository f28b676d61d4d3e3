"""`darkroom demo`: a first look, in a minute, without a key, a network or anything installed.

Starts a stack with the emulator (or uses the one that runs in the home), has sample images edited, shows what
the database knows about it, and leaves nothing running. It never works with the real provider: that costs money.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click

from cli.batches.local_files import Manifest
from cli.batches.poll_progress import exit_code, poll_progress, wait_for_batches
from cli.batches.progress import Row, as_text
from cli.batches.submit import hand_in
from cli.batches.watch_batches import watch_batches
from cli.connection import open_database
from cli.output import escape, json_option, print_json, print_pairs, screen, stderr
from cli.settings import CLISettings, load_with_database, set_variables, unset_variables
from cli.stack.child_processes import adopt_orphans
from cli.stack.embedded import free_port, is_free, loopback
from cli.stack.home import Home
from cli.stack.sample_images import draw_samples
from cli.stack.start import EmulatorOptions, plan, run_stack
from cli.stack.up import EMULATOR_PORT, stop_signals
from core.errors import UserError
from core.settings import load
from intake.batches import BatchHeader
from worker.settings import WorkerSettings

CONCURRENCY, LATENCY = 8, 1.0
"""Of the emulator: quick enough for a first look, slow enough to watch."""
SAMPLE_EDITS = 24
NOTHING_MOVES_FOR = 120.0
"""Seconds without any change after which the demo gives up instead of waiting for a repair that takes long."""
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
PROMPTS = (
    "Turn the scene into a watercolour on rough paper",
    "Make it a winter morning with fresh snow",
    "Repaint it as a woodblock print with three colours",
    "Add warm lantern light and long shadows",
    "Show the same place a hundred years from now",
    "Make it a faded photograph from an old album",
    "Turn everything into folded paper",
)
SIZES = ("landscape_16_9", "portrait_4_3", "square_hd", "landscape_4_3", "portrait_16_9")
"""Prompts and sizes are each other's primes, so that their pairs repeat late."""


@click.command()
@click.option("--images", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Images to edit.")
@click.option("--prompt", help="What to do with every image.")
@click.option("--edits", type=click.IntRange(1, 10_000), help="24 of the samples; of your own images one each.")
@json_option
def demo(images: Path | None, prompt: str | None, edits: int | None, as_json: bool) -> int:
    """See it work, without a key and at no cost.

    Sample images go through the whole pipeline, with an emulator of the provider: no AI.
    """
    home = load(CLISettings).home
    manifest = write_manifest(home, images, prompt, edits)
    with stop_signals(), demo_stack(home):
        engine = open_database()
        with manifest.open("rb") as stream:
            created = hand_in(engine, BatchHeader(name="demo"), Manifest(stream, manifest.parent))
        batch_id = str(created.batch_id)
        updates = poll_progress(engine, [batch_id], NOTHING_MOVES_FOR)
        rows = wait_for_batches(updates) if as_json else watch_batches(updates)
        engine.dispose()
        image_files = Path(unquote(urlsplit(load(WorkerSettings).storage_url).path)) / batch_id
        report(rows[0], image_files, as_json=as_json)
    return exit_code(rows)


@contextmanager
def demo_stack(home: Home) -> Iterator[None]:
    """A stack with the emulator: the one that runs in the home, else one of our own, stopped at the end.

    Raises:
        UserError: the one that runs works with the real provider.
    """
    if home.read_published():
        load_with_database()
        if urlsplit(load(WorkerSettings).fal_queue_url).hostname not in ("127.0.0.1", "::1"):
            raise UserError(f"The stack in {home.folder} works with the real provider; the demo would cost money.")
        yield
        return
    unset_variables("DATABASE_URL", "REDIS_URL", "STORAGE_URL", "PUBLIC_URL", "FAL_KEY", "FAL_KEY_FILE")
    settings = load(CLISettings)
    if not is_free(settings.bind_host, settings.receiver_port) and "receiver_port" not in settings.model_fields_set:
        set_variables({"RECEIVER_PORT": str(free_port()), "INTAKE_PORT": str(free_port())})
        settings = load(CLISettings)
    port = EMULATOR_PORT if is_free(loopback(), EMULATOR_PORT) else free_port()
    with home.hold() as lock, stderr.status("starting") as line:
        prepared = plan(settings, EmulatorOptions(port, loopback(), CONCURRENCY, LATENCY))
        adopt_orphans()
        with run_stack(prepared, lock, line.update):
            line.stop()
            yield
            line.start()
            line.update("stopping")


def write_manifest(home: Home, images: Path | None, prompt: str | None, edits: int | None) -> Path:
    """A manifest of so many edits of the given images, or of samples drawn for it.

    Raises:
        UserError: there is no image.
    """
    home.create()
    folder = home.folder / "demo"
    folder.mkdir(exist_ok=True)
    if images is None:
        image_files = draw_samples(folder)
    else:
        image_files = sorted(path.resolve() for path in images.iterdir() if path.suffix.lower() in SUFFIXES)
    if not image_files:
        raise UserError(f"There is no image in {images} ({', '.join(sorted(SUFFIXES))}).")
    manifest = folder / "manifest.jsonl"
    with manifest.open("w") as file:
        for number in range(edits or (SAMPLE_EDITS if images is None else len(image_files))):
            image_file = image_files[number % len(image_files)]
            edit = {
                "custom_id": f"demo-{number + 1:03}",
                "prompt": prompt or PROMPTS[number % len(PROMPTS)],
                "image_urls": [str(image_file)],
                "image_size": "auto" if images else SIZES[number % len(SIZES)],
            }
            file.write(json.dumps(edit) + "\n")
    return manifest


def report(row: Row, image_files: Path, *, as_json: bool) -> None:
    """Show what the database knows now, and how to look further."""
    if as_json:
        print_json({**row, "folder": str(image_files)})
        return
    screen.print("\n[dim]select * from batch_progress[/]")
    print_pairs((name, escape(as_text(value))) for name, value in row.items())
    screen.print("\nThe images, made by an emulator and not by an AI:")
    screen.print(f"  {image_files}", markup=False, soft_wrap=True)
    screen.print("\nTo look further:")
    program = escape(sys.argv[0])  # as it was typed: it may be on no PATH
    screen.print(
        f"  [bold]{program} up --emulator[/]   the same again, until Ctrl-C; in another terminal:", soft_wrap=True
    )
    screen.print(f"  [bold]{program} status last[/]     this batch")
    screen.print(
        f"  [bold]{program} env[/]             DATABASE_URL, for the query above in any SQL client", soft_wrap=True
    )
