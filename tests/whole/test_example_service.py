"""docs/example-service.md, as it stands there, beside a whole system on a real S3: photos, message, images by links."""

import hashlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
import requests
from PIL import Image

from benchmarks.system import System
from cli.settings import environment
from cli.stack.embedded import free_port
from tests.support.notify_receiver import stand
from tests.support.running_stack import eventually
from tests.support.stores import BUCKET, ObjectStore
from tests.whole.conftest import Start

PAGE = Path(__file__).parents[2] / "docs" / "example-service.md"
LONGEST = 60.0
PRODUCTS = ("red-hat", "blue-hat")
STORE = f"s3://{BUCKET}/shop"


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


@pytest.fixture(scope="module")
def system(start: Start, s3_server: ObjectStore) -> System:
    """A whole system that may tell services of this machine; its secret is the one that it made for itself."""
    return start(NOTIFY_PRIVATE_HOSTS="127.0.0.1", STORAGE_URL=STORE, **s3_server.environment)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the shop is."""
    return tmp_path_factory.mktemp("shop")


@pytest.fixture(scope="module")
def shop(system: System, session: requests.Session, folder: Path) -> Iterator[str]:
    """The page's service, started as the page says."""
    found = re.search(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found
    (folder / "shop.py").write_text(found[1])
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    secret = (system.home / "notify.secret").read_text().strip()
    variables = {"DARKROOM_URL": system.intake, "SHOP_URL": url, "NOTIFY_SECRET": secret}
    command = [sys.executable, "-m", "flask", "--app", "shop", "run", "--port", str(port)]
    with subprocess.Popen(command, cwd=folder, env={**environment(), **variables}) as process:
        try:
            assert eventually(lambda: responds(session, url), within=LONGEST)
            yield url
        finally:
            process.terminate()


def responds(session: requests.Session, url: str) -> bool:
    try:
        return session.get(url, timeout=5).status_code == 404
    except requests.ConnectionError:
        return False


def photo(colour: str) -> bytes:
    file = BytesIO()
    Image.new("RGB", (600, 400), colour).save(file, "PNG")
    return file.getvalue()


def test_order_becomes_images(
    system: System, shop: str, folder: Path, session: requests.Session, s3_server: ObjectStore
) -> None:
    """The order is one batch however often it is sent; the message is believed; every product has its image, which lies
    in the store and came by a link of the store's."""
    photos = {product: photo(product.partition("-")[0]) for product in PRODUCTS}
    first, again = (session.post(f"{shop}/orders/4711", files=photos, timeout=60) for _ in range(2))
    assert first.ok, first.text
    assert first.json()["batch_id"] == again.json()["batch_id"]

    assert eventually(lambda: stand(system.engine) == [(1, True, None, 204, None)], within=LONGEST)
    results = session.get(f"{system.intake}/v1/batches/{first.json()['batch_id']}/results", timeout=LONGEST)
    edits = {edit["custom_id"]: edit for edit in map(json.loads, results.content.splitlines())}
    assert set(edits) == set(PRODUCTS)
    for product, edit in edits.items():
        (image,) = edit["images"]
        assert image["url"].startswith(s3_server.url)
        assert hashlib.sha256((folder / "images" / f"{product}-0").read_bytes()).hexdigest() == image["sha256"]
        assert edit["edit"]["image_urls"] == [f"storage://files/{hashlib.sha256(photos[product]).hexdigest()}.png"]
    with system.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM submissions").scalar() == len(PRODUCTS)


@pytest.mark.parametrize("signature", ["v1,AAAA", "v1,not base64", "nonsense", "v1,ключ", ""])
def test_stranger_is_turned_away(shop: str, session: requests.Session, signature: str) -> None:
    """What darkroom did not sign is answered 401, however malformed its headers are."""
    headers = {"webhook-id": "1", "webhook-timestamp": str(int(time.time())), "webhook-signature": signature.encode()}
    answer = session.post(f"{shop}/darkroom", data=b'{"data": {}}', headers=headers, timeout=LONGEST)
    assert answer.status_code == 401
