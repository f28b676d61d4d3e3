"""`darkroom prune`: what the prune lane does by and by, now and to its end; or what that would be."""

import click
from sqlalchemy import Engine

from cli.connection import open_database
from cli.output import json_option, plural, print_json, print_pairs
from core.errors import DownloadError, UserError
from core.settings import StorageSettings, load
from models.input_files import count_expired_files
from models.retention import COUNTS, count_batches, count_kept, record_step
from models.states import Kept
from provider.platform import PlatformAPI
from provider.settings import ProviderSettings
from storage.store import Storage
from worker.deletion import Elsewhere
from worker.retention import Pruning
from worker.settings import RetentionSettings

NOUNS = {
    Kept.CALLBACK_BODIES: "callback",
    Kept.BATCHES: "edit",
    Kept.ORPHANS: "callback",
    Kept.UPLOADS: "upload",
    Kept.QUARANTINE: "refused file",
    Kept.MOMENTS: "row",
    Kept.IMAGES: "image",
    Kept.PROVIDER_COPIES: "request",
    Kept.INPUT_FILES: "file",
}
"""What is counted of each kind."""


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would go; removes nothing.")
@json_option
def prune(dry_run: bool, as_json: bool) -> None:
    """Remove what was kept long enough.

    As the settings say whose names begin with KEEP_. The prune lane does the same by
    itself, by and by.
    """
    engine = open_database()
    elsewhere = Elsewhere(lambda: Storage(load(StorageSettings).storage_url), open_platform)
    pruning = Pruning(engine, load(RetentionSettings), elsewhere)
    try:
        found = {kind: (_count if dry_run else _remove)(engine, pruning, kind) for kind in Kept}
        held_back = _held_back(engine, pruning)
    except DownloadError as error:
        raise UserError(f"The store does not tell what it holds: {error.message}.") from None
    if as_json:
        print_json(
            {"dry_run": dry_run, **{kind.value: number for kind, number in found.items()}, "held_back": held_back}
        )
        return
    pairs = [(kind.value.replace("_", " "), _said(kind, found[kind], pruning.kept_for(kind))) for kind in Kept]
    waiting = f"{held_back} of the finished batches: see docs/operations.md" if held_back else ""
    print_pairs([*pairs, ("held back", waiting), ("removed", "nothing: this was a dry run" if dry_run else "")])


def _said(kind: Kept, number: int, kept: float | None) -> str:
    if kept is None and not number:
        return "kept for ever"
    return plural(number, NOUNS[kind])


def open_platform() -> PlatformAPI:
    """The provider's platform, which deletes requests.

    Raises:
        SettingsError: there is no key.
    """
    settings = load(ProviderSettings)
    return PlatformAPI(settings.fal_api_url, settings.required_key())


def _count(engine: Engine, pruning: Pruning, kind: Kept) -> int:
    kept = pruning.kept_for(kind)
    if kept is None and kind is not Kept.IMAGES:
        return 0
    if kind is Kept.QUARANTINE:
        return pruning.count_files(kept or 0)
    if kind is Kept.INPUT_FILES:
        with engine.connect() as connection:
            return count_expired_files(connection)
    with engine.connect() as connection:
        if kind in COUNTS:
            return count_kept(connection, kind, kept)
        return count_batches(connection, kept or 0, waits_for=pruning.waits_for).edits


def _remove(engine: Engine, pruning: Pruning, kind: Kept) -> int:
    removed = 0
    while True:
        step = pruning.take_step(kind)
        removed += step.removed
        with engine.begin() as connection:
            record_step(connection, kind, step, again_in=pruning.look_again_in(kind))
        if not step.more:
            return removed


def _held_back(engine: Engine, pruning: Pruning) -> int:
    """Finished batches that are old enough and cannot go."""
    if (kept := pruning.kept_for(Kept.BATCHES)) is None:
        return 0
    with engine.connect() as connection:
        found = count_batches(connection, kept, waits_for=pruning.waits_for)
    return found.old - found.batches
