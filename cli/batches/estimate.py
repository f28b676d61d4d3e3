"""What a manifest would come to, without uploading or writing anything."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from rich.filesize import decimal
from sqlalchemy import Engine

from cli.batches.local_files import Manifest
from cli.output import plural, print_json, print_pairs, print_warnings
from core.settings import PriceSettings, load
from intake.batches import BatchHeader, estimate
from intake.insert_edits import OnInvalid
from models.provider import price_per_image
from provider.settings import ProviderSettings
from provider.uploads import not_uploaded


def estimate_manifest(
    engine: Engine, header: BatchHeader, manifest: Manifest, *, on_invalid: OnInvalid
) -> dict[str, Any]:
    """Counts, costs in USD, and what would be uploaded.

    Raises:
        ManifestFaults: lines are faulty, and are not to be skipped.
    """
    manifest.look_through(on_invalid=on_invalid)
    files = {file.sha256: file for file in manifest.files.values()}
    missing = not_uploaded(list(files.values()), load(ProviderSettings), engine) if files else []
    with engine.connect() as connection:
        price = price_per_image(connection, load(PriceSettings).price_per_image)
    found = estimate(header, manifest.entries({}), price=price, on_invalid=on_invalid)
    return {
        **found._asdict(),
        "price_per_image": price,
        "files": len(files),
        "uploads": len(missing),
        "upload_bytes": sum(file.bytes for file in missing),
    }


def print_estimate(found: Mapping[str, Any], *, as_json: bool) -> None:
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
            ("uploads", f"{plural(uploads, 'file')}, {decimal(found['upload_bytes'])}{there}" if files else ""),
            ("written", "nothing: this was a dry run"),
        ]
    )


def _cost(likely: Decimal, worst: Decimal, price: Decimal) -> str:
    each = f"at ${price.normalize():f} an image"
    return f"${worst:.2f} {each}" if likely == worst else f"likely ${likely:.2f}, at most ${worst:.2f}, {each}"
