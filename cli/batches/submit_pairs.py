"""`darkroom submit --images DIR --prompts FILE`: what it would come to is shown first, and confirmed."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from sqlalchemy import Engine

from cli.batches.estimate import estimate_manifest, print_estimate
from cli.batches.image_folder import find_images
from cli.batches.local_files import Manifest
from cli.batches.manifest_file import keep_manifest
from cli.batches.pair_edits import PairedEdits, pair_edits
from cli.batches.prompts_file import read_prompts
from cli.output import escape, plural, print_json, print_pairs, screen, stderr
from core.errors import UserError
from intake.batches import BatchHeader
from intake.insert_edits import FAULTS_MAX, OnInvalid
from intake.manifest import read_jsonl

EXAMPLES = 3
SHOWN = 60
"""Characters of a prompt in an example."""

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)
_OPTIONS = (
    click.option("--images", type=_FOLDER, metavar="DIR", help="Instead of MANIFEST: every image in DIR ..."),
    click.option("--prompts", type=_FILE, metavar="FILE", help="... with every prompt in FILE, one a line, or a CSV."),
    click.option("--sample", type=click.IntRange(min=1), metavar="N", help="Only N of these edits, drawn evenly."),
    click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Only write their manifest to FILE."),
    click.option("--yes", is_flag=True, help="Submit them without asking."),
)


def pair_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options for each image with each prompt."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def read_pairs(
    manifest: Path | None, images: Path | None, prompts: Path | None, *, sample: int | None, out: Path | None, yes: bool
) -> PairedEdits | None:
    """The edits that the options ask for; None where a manifest lists them.

    Raises:
        UsageError: the options do not go together.
        UserError: the images or the prompts cannot be had.
    """
    if manifest is not None:
        if images or prompts or sample or out or yes:
            raise click.UsageError("--images, --prompts, --sample, --out and --yes stand in the place of MANIFEST.")
        return None
    if images is None or prompts is None:
        raise click.UsageError("Give a MANIFEST, or --images and --prompts.")
    return pair_edits(find_images(images), read_prompts(prompts), sample)


@contextmanager
def open_pairs(pairs: PairedEdits, *, convert: bool, on_invalid: OnInvalid) -> Iterator[Manifest]:
    """Their manifest.

    Raises:
        UserError: files cannot be sent, and are not to be skipped; each is named once, whatever the number of prompts.
    """
    with keep_manifest(pairs.write) as stream:
        manifest = Manifest(stream, Path(), read_jsonl, convert)
        manifest.look_through(on_invalid="skip")
        if manifest.faulty and on_invalid == "fail":
            reasons = list(manifest.faulty.values())
            more = [f"and {len(reasons) - FAULTS_MAX} more files"] if len(reasons) > FAULTS_MAX else []
            raise UserError("\n".join(reasons[:FAULTS_MAX] + more))
        yield manifest


def require_consent(pairs: PairedEdits, *, yes: bool, as_json: bool) -> None:
    """Refuse, before anything is looked at, what nobody could be asked about.

    Raises:
        UserError: nobody can be asked.
    """
    if yes:
        return
    if as_json:
        raise UserError("With --json nobody is asked: give --yes, or --dry-run.")
    if not (sys.stdin and sys.stdin.isatty() and stderr.is_terminal):
        raise UserError(
            f"{plural(len(pairs), 'edit')} would be submitted, and there is no terminal on which to ask: "
            "give --yes, or --dry-run to see what they cost."
        )


def confirm(
    engine: Engine, header: BatchHeader, manifest: Manifest, pairs: PairedEdits, *, on_invalid: OnInvalid, yes: bool
) -> None:
    """Show what the edits come to, and ask.

    Raises:
        UserError: the answer was no.
        ManifestFaults: files are faulty, and are not to be skipped.
    """
    found = estimate_manifest(engine, header, manifest, on_invalid=on_invalid)
    print_pairing(pairs)
    print_estimate(found, as_json=False, dry_run=False)
    if yes:
        return
    count = plural(found["edits"] - found["invalid"], "edit")
    if not click.confirm(f"Submit {count}, for at most ${found['cost_worst']:.2f}?", err=True):
        raise UserError("Nothing was submitted.")


def print_pairing(pairs: PairedEdits) -> None:
    """What is put together, and a few examples."""
    images, prompts = len(pairs.folder.images), len(pairs.prompts.prompts)
    of = f", {len(pairs)} of these {pairs.total} edits drawn evenly" if len(pairs) < pairs.total else ""
    passed_over = pairs.folder.passed_over | Counter({"repeated prompt": len(pairs.prompts.repeated)})
    left_out = ", ".join(plural(count, what) for what, count in sorted(passed_over.items()) if count)
    print_pairs(
        [
            ("pairs", f"{plural(images, 'image')} with {plural(prompts, 'prompt')}{of}"),
            ("left out", left_out),
            *(("example", _describe(edit)) for edit in pairs.examples(EXAMPLES)),
        ]
    )


def _describe(edit: dict[str, Any]) -> str:
    prompt = edit["prompt"] if len(edit["prompt"]) <= SHOWN else edit["prompt"][: SHOWN - 1] + "…"
    return f"{escape(edit['custom_id'])}  {escape(Path(edit['image_urls'][0]).name)}: {escape(prompt)}"


def write_pairs(pairs: PairedEdits, out: Path, *, as_json: bool) -> None:
    """The manifest as a file that appears when it is whole; `-` is standard output.

    Raises:
        UserError: the file is there already, or cannot be written.
    """
    if str(out) == "-":
        pairs.write(sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    part = out.with_name(f"{out.name}.part")
    try:
        if out.exists():
            raise UserError(f"{out} is there already; name another file.")
        with part.open("wb") as file:
            pairs.write(file)
        part.replace(out)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}.") from None
    finally:
        part.unlink(missing_ok=True)
    if as_json:
        print_json({"manifest": str(out), "edits": len(pairs)})
        return
    print_pairing(pairs)
    screen.print(f"{plural(len(pairs), 'edit')} in {out}", markup=False)
