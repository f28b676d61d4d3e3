"""Finished edits as they come about: handed in, claimed, accepted, called back and stored, by darkroom's own code.

`python -m benchmarks.finished_edits [--edits N]` prints what each table takes for one of them, in bytes.
"""

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from uuid import UUID, uuid4

from nacl.signing import SigningKey
from sqlalchemy import Connection, Engine

from benchmarks.intake import server
from cli.migrate import upgrade
from core.settings import PolicySettings, load
from intake.batches import BatchHeader, create
from intake.manifest import read_jsonl
from models.claims import claim_edits, claim_images
from models.database import make_engine
from models.transitions import StoredImage, Submission, record_accepted, record_stored, settle_batches
from models.transitions import start_submissions as start
from webhook_receiver.recording import Delivery, record_deliveries
from webhook_receiver.signature import verify

EDITS, WAVE = 20_000, 40
ACCOUNT = "github|12345678"
PRICE = Decimal("0.03")
KEY = SigningKey(bytes(range(32)))
SIZES = """
    SELECT relname, pg_total_relation_size(oid), pg_relation_size(oid), pg_indexes_size(oid) FROM pg_class
    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 2 DESC
"""


def main() -> int:
    """Fill a database and print a table: as it is left behind, and packed, without what updates left free."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.finished_edits", description=__doc__)
    parser.add_argument("--edits", type=int, default=EDITS)
    edits = parser.parse_args().edits
    with tempfile.TemporaryDirectory(prefix="darkroom-bench-") as folder, server(Path(folder)) as url:
        upgrade(url)
        engine = make_engine(url, application="darkroom bench")
        finish_edits(engine, edits)
        left, packed = (_sizes(engine, how) for how in ("VACUUM ANALYZE", "VACUUM (FULL, ANALYZE)"))
        engine.dispose()
    print(f"{'bytes an edit':<20}{'as left':>9}{'packed':>9}{'rows':>7}{'indexes':>9}")
    for name, (total, rows, indexes) in packed.items():
        if total > edits:
            sizes = f"{total / edits:>9.0f}{rows / edits:>7.0f}{indexes / edits:>9.0f}"
            print(f"{name:<20}{left[name][0] / edits:>9.0f}{sizes}")
    everything = (sum(sizes[0] for sizes in found.values()) / edits for found in (left, packed))
    print(f"{'all':<20}" + "".join(f"{total:>9.0f}" for total in everything))
    return 0


def _sizes(engine: Engine, vacuum: str) -> dict[str, tuple[int, int, int]]:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(vacuum)
        return {row[0]: tuple(row[1:]) for row in connection.exec_driver_sql(SIZES)}


def finish_edits(engine: Engine, edits: int, *, each: int = 2_000) -> list[UUID]:
    """Batches of `each` edits, all stored; the ids of the batches."""
    return [_finish_batch(engine, min(each, edits - first)) for first in range(0, edits, each)]


def _finish_batch(engine: Engine, edits: int) -> UUID:
    with engine.begin() as connection:
        batch_id = create(connection, BatchHeader(name="catalogue"), read_jsonl(_manifest(edits))).batch_id
    policy = load(PolicySettings)
    for _ in range(0, edits, WAVE):
        with engine.begin() as connection:
            ids = claim_edits(connection, limit=WAVE, window=WAVE, probe_after=60, price=PRICE)
            submissions = start(connection, ids, unknown_deadline=1500, price=PRICE)
        requests = [(submission.id, str(uuid4())) for submission in submissions]
        with engine.begin() as connection:
            record_accepted(connection, requests, poll_after=60, unknown_deadline=1500)
        with engine.begin() as connection:
            record_deliveries(connection, _deliveries(submissions, requests), policy)
        with engine.begin() as connection:
            _store(connection)
    with engine.begin() as connection:
        settle_batches(connection)
    return batch_id


def _manifest(edits: int) -> BytesIO:
    """Edits of usual size: a sentence or two, two inputs, a size."""
    lines = (
        json.dumps(
            {
                "custom_id": f"sku-{uuid4().hex[:8]}",
                "prompt": f"Dress the model in coat number {number}, and keep face, pose and light as they are.",
                "image_urls": [
                    f"https://v3.fal.media/files/b/{uuid4().hex[:10]}/model-{number % 97}.png",
                    f"https://images.example/coats/{number}.png",
                ],
                "image_size": {"width": 2048, "height": 2048},
            }
        )
        for number in range(edits)
    )
    return BytesIO("\n".join(lines).encode())


def _deliveries(submissions: Sequence[Submission], requests: Sequence[tuple[UUID, str]]) -> list[Delivery]:
    return [
        sign(str(submission.id), request_id, body(request_id, submission.seed))
        for submission, (_, request_id) in zip(submissions, requests, strict=True)
    ]


def body(request_id: str, seed: int) -> bytes:
    """A success as it is delivered (provider-protocol 4.1)."""
    name = f"{uuid4().hex}{uuid4().hex[:10]}.png"
    image = {
        "content_type": "image/png",
        "file_name": name,
        "file_size": 4_404_019 + seed % 100_000,
        "height": 2048,
        "url": f"https://v3b.fal.media/files/b/{uuid4().hex[:8]}/{name}",
        "width": 2048,
    }
    content = {
        "error": None,
        "gateway_request_id": request_id,
        "payload": {"images": [image], "seed": seed},
        "request_id": request_id,
        "status": "OK",
    }
    return json.dumps(content, sort_keys=True).encode()


def sign(token: str, request_id: str, content: bytes) -> Delivery:
    """One delivery with the headers that come with it."""
    now = datetime.now(UTC)
    timestamp = str(int(now.timestamp()))
    message = "\n".join((request_id, ACCOUNT, timestamp, hashlib.sha256(content).hexdigest())).encode()
    headers = {
        "host": "images.example",
        "user-agent": "Python/3.11 aiohttp/3.9.5",
        "accept": "*/*",
        "accept-encoding": "gzip, deflate",
        "content-type": "application/json",
        "content-length": str(len(content)),
        "x-forwarded-for": "203.0.113.7",
        "x-forwarded-proto": "https",
        "x-fal-webhook-request-id": request_id,
        "x-fal-webhook-user-id": ACCOUNT,
        "x-fal-webhook-timestamp": timestamp,
        "x-fal-webhook-signature": KEY.sign(message).signature.hex(),
    }
    return Delivery(token, content, headers, verify(content, headers, [bytes(KEY.verify_key)], now))


def _store(connection: Connection) -> None:
    due = claim_images(connection, limit=2 * WAVE, lease=60)
    stored = [
        StoredImage(image.id, f"{image.name}.png", uuid4().hex * 2, 4_404_019, "image/png", 2048, 2048) for image in due
    ]
    record_stored(connection, stored)


if __name__ == "__main__":
    sys.exit(main())
