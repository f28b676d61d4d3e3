"""docs/example-service.md, as it stands there, beside a whole system: order, signed message, list of images."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from benchmarks.system import System
from cli.settings import environment
from cli.stack.embedded import free_port
from tests.support.notify_receiver import stand
from tests.support.running_stack import eventually
from tests.whole.conftest import IMAGE, Start

PAGE = Path(__file__).parents[2] / "docs" / "example-service.md"
LONGEST = 60.0
PRODUCTS = ("red-hat", "blue-hat", "green-hat")


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


@pytest.fixture(scope="module")
def system(start: Start) -> System:
    """A whole system that may tell services of this machine; its secret is the one that it made for itself."""
    return start(NOTIFY_PRIVATE_HOSTS="127.0.0.1")


@pytest.fixture(scope="module")
def shop(system: System, session: requests.Session, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page's service, started as the page says."""
    folder = tmp_path_factory.mktemp("shop")
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
            assert eventually(lambda: responds(session, f"{url}/images"), within=LONGEST)
            yield url
        finally:
            process.terminate()


def responds(session: requests.Session, url: str) -> bool:
    try:
        return session.get(url, timeout=5).ok
    except requests.ConnectionError:
        return False


def test_order_becomes_images(system: System, shop: str, session: requests.Session) -> None:
    """The order is one batch however often it is sent; the message is believed; every product has its image."""
    order = dict.fromkeys(PRODUCTS, IMAGE)
    first, again = (session.post(f"{shop}/orders/4711", json=order, timeout=30) for _ in range(2))
    assert first.ok, first.text
    assert first.json()["batch_id"] == again.json()["batch_id"]

    assert eventually(lambda: set(session.get(f"{shop}/images", timeout=5).json()) == set(PRODUCTS), within=LONGEST)
    listed = session.get(f"{shop}/images", timeout=5).json()
    for (url,) in listed.values():
        assert Path(urlsplit(url).path).is_file()
    assert eventually(lambda: stand(system.engine) == [(1, True, None, 204, None)])


@pytest.mark.parametrize("signature", ["v1,AAAA", "v1,not base64", "nonsense", "v1,ключ", ""])
def test_stranger_is_turned_away(shop: str, session: requests.Session, signature: str) -> None:
    """What darkroom did not sign is answered 401, however malformed its headers are."""
    headers = {"webhook-id": "1", "webhook-timestamp": str(int(time.time())), "webhook-signature": signature.encode()}
    answer = session.post(f"{shop}/darkroom", data=b'{"data": {}}', headers=headers, timeout=5)
    assert answer.status_code == 401
