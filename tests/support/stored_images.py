"""Batches whose images really lie in a folder, with rows that say what they are, and a host that still has them."""

import hashlib
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID

from PIL import Image
from sqlalchemy import Engine

from tests.support.finished_batches import finished


def png(number: int) -> bytes:
    """An image of its own for each number."""
    file = BytesIO()
    Image.new("RGB", (4, 3), (number, 0, 0)).save(file, "PNG")
    return file.getvalue()


def stored(engine: Engine, folder: Path, edits: int = 3, *, host: str = "", **given: Any) -> tuple[UUID, list[Path]]:
    """A finished batch of so many stored edits, and where their images lie, in order; `host` has them, too."""
    batch = finished(engine, edits, **given)
    paths = []
    with engine.begin() as connection:
        rows = connection.exec_driver_sql("SELECT id, storage_key FROM images WHERE state = 'stored' ORDER BY id").all()
        for number, (id_, key) in enumerate(rows[-edits:]):
            content, path = png(number), folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            paths.append(path)
            connection.exec_driver_sql(
                "UPDATE images SET sha256 = %s, stored_bytes = %s, stored_width = 4, stored_height = 3, url = %s "
                "WHERE id = %s",
                (hashlib.sha256(content).hexdigest(), len(content), f"{host}/{number}.png", id_),
            )
    return batch, paths
