"""What a manifest would come to, without uploading or writing anything."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from rich.filesize import decimal
from sqlalchemy import Engine

from cli.batches.check_urls import Check, check_urls
from cli.batches.local_files import Manifest
from cli.output import plural, print_json, print_pairs, print_warnings, screen
from cli.streams import one_line
from core.settings import PriceSettings, load
from intake.batches import BatchHeader, estimate
from intake.insert_edits import OnInvalid
from models.provider import price_per_image
from provider.settings import ProviderSettings
from provider.uploads import not_uploaded

SHOWN_REFUSALS = 100


def estimate_manifest(
    engine: Engine, header: BatchHeader, manifest: Manifest, *, on_invalid: OnInvalid, check: Check = "none"
) -> dict[str, Any]:
    """Counts, costs in USD, what would be uploaded, and what came of looking at the inputs, if that is asked for.

    Raises:
        ManifestFaults: lines are faulty, and are not to be skipped.
    """
    manifest.look_through(on_invalid=on_invalid)
    files = {file.sha256: file for file in manifest.files.values()}
    missing = not_uploaded(list(files.values()), load(ProviderSettings), engine) if files else []
    with engine.connect() as connection:
        price = price_per_image(connection, load(PriceSettings).price_per_image)
    found = estimate(header, manifest.entries({}), price=price, on_invalid=on_invalid)
    checked = None if check == "none" else check_urls(manifest.entries({}), check)
    warnings = (*found.warnings, *manifest.warnings(), *(checked.warnings if checked else ()))
    return {
        **found._asdict(),
        "warnings": warnings,
        **({"inputs": checked.as_json()} if checked else {}),
        "price_per_image": price,
        "files": len(files),
        "uploads": len(missing),
        "upload_bytes": sum(file.bytes for file in missing),
    }


def print_estimate(found: Mapping[str, Any], *, as_json: bool, dry_run: bool = True) -> None:
    """Say it."""
    print_warnings(found["warnings"])
    if as_json:
        print_json({"dry_run": True, **found})
        return
    least, most = found["images_least"], found["images_most"]
    files, uploads = found["files"], found["uploads"]
    there = f", {files - uploads} there already" if files > uploads else ""
    print_pairs(
        [
            (
                "edits",
                f"{found['edits']}" + (f", {found['invalid']} of them faulty and skipped" if found["invalid"] else ""),
            ),
            ("images", plural(most, "image") if least == most else f"likely {least}, at most {most}"),
            ("cost", _cost(found["cost_likely"], found["cost_worst"], found["price_per_image"])),
            ("inputs", _looked_at(found["inputs"]) if "inputs" in found else ""),
            ("uploads", f"{plural(uploads, 'file')}, {decimal(found['upload_bytes'])}{there}" if files else ""),
            ("written", "nothing: this was a dry run" if dry_run else ""),
        ]
    )


def _looked_at(inputs: Mapping[str, Any]) -> str:
    refused = inputs["refused"]
    for found in refused[:SHOWN_REFUSALS]:
        screen.print(one_line(f"line {found['line']}: {found['reason']}"), markup=False)
    if len(refused) > SHOWN_REFUSALS:
        screen.print(f"and {len(refused) - SHOWN_REFUSALS} more")
    of = f" of {inputs['distinct']}" if inputs["looked_at"] < inputs["distinct"] else ""
    return f"{plural(inputs['looked_at'], 'URL')}{of} looked at, {len(refused)} of them refused"


def _cost(likely: Decimal, worst: Decimal, price: Decimal) -> str:
    each = f"at ${price.normalize():f} an image"
    return f"${worst:.2f} {each}" if likely == worst else f"likely ${likely:.2f}, at most ${worst:.2f}, {each}"
