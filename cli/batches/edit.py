"""`darkroom edit`: one edit, given field by field; with `--wait` it is watched to its end, with the model's log.

It becomes a batch of one, inserted like every other; the workers make it, the command only watches.
"""

import json
import re
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import click

from cli.batches.header_options import convert_option, header_from
from cli.batches.local_files import Manifest
from cli.batches.submit import hand_in, report
from cli.batches.watch_edit import print_end, watch_edit
from cli.connection import open_database
from cli.output import json_option
from core.errors import UserError
from intake.batches import CreatedBatch
from intake.manifest import LineFault, ManifestFaults

SIZE = re.compile(r"(\d{1,9})[xX×](\d{1,9})")
OPTIONS = {"image_urls": "--image", "image_size": "--size", "enable_safety_checker": "--no-safety-checker"}
"""The option of each field of the model, where it is not called as the field is."""


@click.command()
@click.option("--prompt", required=True, help="What to do with the images.")
@click.option(
    "--image", "image_urls", multiple=True, required=True, help="A path, URL or data URI; up to 10, in this order."
)
@click.option("--size", "image_size", help="WIDTHxHEIGHT in pixels, or a name: square_hd, portrait_4_3, auto_4K, …")
@click.option("--seed", type=int, help="Unless given, darkroom draws one.")
@click.option("--num-images", type=int, help="Separate generations, 1 to 6.")
@click.option("--max-images", type=int, help="Images that one generation may return, 1 to 6.")
@click.option("--enhance-prompt-mode", type=click.Choice(["standard", "fast"]), help="fast: quicker, average quality.")
@click.option("--no-safety-checker", is_flag=True, help="Switch the provider's check off; the model's own stays.")
@click.option("--sync-mode", is_flag=True, help="Images inside the answer, in no history of the provider.")
@click.option("--custom-id", help="What to call the edit; part of the image's path.")
@click.option("--name", help="What to call its batch.")
@convert_option
@click.option("--wait", is_flag=True, help="Watch it, with the model's log lines; exit code 0 only if it is stored.")
@json_option
def edit(name: str | None, convert: bool, wait: bool, as_json: bool, **given: Any) -> int:
    """Hand in one edit.

    Paths are uploaded first. --wait shows the place in the line, the log lines, and the stored images; Ctrl-C
    then stops the watching only.
    """
    engine = open_database()
    line = json.dumps(fields(given)).encode()
    try:
        created = hand_in(engine, header_from(name=name), Manifest(BytesIO(line), Path(), convert=convert))
    except ManifestFaults as error:
        raise UserError("\n".join(map(as_option, error.faults))) from None
    report(as_one(created), as_json=as_json and not wait, quiet=as_json and wait)
    if not wait:
        return 0
    watched = watch_edit(engine, created.batch_id, quiet=as_json)
    return print_end(engine, watched, as_json=as_json)


def fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """The edit as a line of a manifest, with those fields only that were given; what they may be the schema decides."""
    line: dict[str, Any] = {"prompt": given["prompt"], "image_urls": list(given["image_urls"])}
    for name in ("custom_id", "seed", "num_images", "max_images", "enhance_prompt_mode"):
        if given[name] is not None:
            line[name] = given[name]
    if given["image_size"] is not None:
        line["image_size"] = size(given["image_size"])
    if given["no_safety_checker"]:
        line["enable_safety_checker"] = False
    if given["sync_mode"]:
        line["sync_mode"] = True
    return line


def size(text: str) -> str | dict[str, int]:
    """`3840x2160` as an object; anything else is a name."""
    match = SIZE.fullmatch(text.strip())
    return {"width": int(match[1]), "height": int(match[2])} if match else text


def as_option(fault: LineFault) -> str:
    """A fault of the line in the words of the command line."""
    if fault.field is None:
        return f"The edit {fault.reason}."
    option = OPTIONS.get(fault.field, f"--{fault.field.replace('_', '-')}")
    return f"{option}: {fault.reason.replace('an object with width and height', 'WIDTHxHEIGHT')}."


def as_one(created: CreatedBatch) -> CreatedBatch:
    """The same, with warnings that speak of no line."""
    warnings = tuple(warning.removeprefix("line 1: ") for warning in created.warnings)
    return CreatedBatch(created.batch_id, created.edits, warnings, created.existing)
