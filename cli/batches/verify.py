"""`darkroom verify`: hold what lies in storage against what the database says of it, object by object."""

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from uuid import UUID

import click
from sqlalchemy import Engine

from cli.batches.check_stored import Checked, StoredCheck, Verdict
from cli.batches.progress import find_batch, progress_of
from cli.batches.status import BATCH
from cli.batches.stored_images import ImageRow, for_each_image, image_bar
from cli.connection import open_database
from cli.output import escape, json_option, plural, print_json, print_pairs, screen
from core.errors import DownloadError, Pruned, UserError
from core.settings import load
from http_client.fetch import Fetcher
from models.queries.images import KEYS_WITHOUT_IMAGE
from storage.store import Storage
from worker.settings import WorkerSettings

AS_IT_SHOULD_BE = (Verdict.SOUND, Verdict.DELETED)
KEYS_AT_ONCE = 1_000
"""Keys looked up with one question."""
RECORDED_WITHIN = 600.0
"""Seconds; an object that is younger may belong to an image that is about to be recorded."""


@click.command()
@BATCH
@click.option("--repair", is_flag=True, help="Fetch again what is missing or damaged, where the provider still has it.")
@json_option
def verify(batch: str, repair: bool, as_json: bool) -> None:
    """Check that the images of a batch lie in storage as they were stored.

    Reads each to its end: size, SHA-256, whether it can be decoded. Names what
    lies beside them and belongs to no image. BATCH is an id, the beginning of
    one, or `last`. Exit code 1: something is not as it was stored.
    """
    engine, settings = open_database(), load(WorkerSettings)
    row = progress_of(engine, find_batch(engine, batch))
    if row["pruned_at"]:
        raise Pruned
    batch_id: UUID = row["batch_id"]
    storage = Storage(settings.storage_url, make=False)
    fetcher = Fetcher(settings.fal_media_hosts, max_bytes=settings.picture_max_bytes) if repair else None
    check = StoredCheck(engine, storage, fetcher, max_bytes=settings.picture_max_bytes)
    counts: Counter[str] = Counter()
    with image_bar("reading", int(row["images_stored"])) as bar:
        for image, checked in for_each_image(engine, batch_id, check.check):
            bar.advance()
            counts[checked.verdict.value] += 1
            counts["repaired"] += checked.repaired
            if checked.verdict not in AS_IT_SHOULD_BE:
                _show(batch_id, image, checked, as_json=as_json)
    strangers = list(find_strangers(engine, storage, batch_id))
    result = {**{verdict.value: counts[verdict.value] for verdict in Verdict}, "repaired": counts["repaired"]}
    if as_json:
        print_json({"batch_id": batch_id, **result, "of_no_image": strangers})
    else:
        _report(result, strangers)
    if sum(counts[verdict.value] for verdict in Verdict if verdict not in AS_IT_SHOULD_BE) > counts["repaired"]:
        raise SystemExit(1)


def find_strangers(engine: Engine, storage: Storage, batch_id: UUID) -> Iterator[str]:
    """Keys of objects under the batch's folder that no image has.

    Raises:
        UserError: the store does not tell what it holds.
    """
    keys = storage.list_older(str(batch_id), RECORDED_WITHIN)
    try:
        while some := list(islice(keys, KEYS_AT_ONCE)):
            with engine.connect() as connection:
                yield from connection.exec_driver_sql(KEYS_WITHOUT_IMAGE, (some,)).scalars()
    except DownloadError as error:
        raise UserError(f"The store does not tell what it holds: {error.message}.") from None


def _show(batch_id: UUID, image: ImageRow, checked: Checked, *, as_json: bool) -> None:
    if as_json:
        fields = {"edit": image.name, "index": image.index, "storage_key": image.storage_key}
        print_json({"batch_id": batch_id, **fields, **checked._asdict()})
        return
    reason = f": {escape(checked.reason)}" if checked.reason else ""
    repair = "; repaired" if checked.repaired else ""
    if checked.not_repaired:
        repair = f"; not repaired: {escape(checked.not_repaired)}"
    screen.print(f"{escape(image.storage_key)}  {checked.verdict}{reason}{repair}", soft_wrap=True)


def _report(result: dict[str, int], strangers: list[str]) -> None:
    for key in strangers:
        screen.print(f"{escape(key)}  belongs to no image", soft_wrap=True)
    print_pairs([(name, plural(number, "image")) for name, number in result.items() if number or name == Verdict.SOUND])
