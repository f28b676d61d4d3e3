"""The official client, unmodified: only the hosts are rewritten, inside httpx (fal-protocol 10.7 D)."""

import asyncio
import base64
import io

import fal_client
import httpx
import pytest
from PIL import Image

from .standin import EDIT, KEY, wait_for

HOSTS = {"fal.run", "queue.fal.run", "rest.fal.ai", "v3.fal.media", "v3b.fal.media"}
ARGUMENTS = {"prompt": "x", "image_urls": ["https://v3b.fal.media/files/b/x/y.png"], "seed": 42}
SDXL = "fal-ai/fast-sdxl"
TO_IMAGE = "fal-ai/fast-sdxl/image-to-image"


@pytest.fixture
def fal(standin, monkeypatch):
    """fal's host names lead to the stand-in; Host headers and URLs stay fal's."""

    def here(request):
        if request.url.host in HOSTS:
            request.url = request.url.copy_with(scheme="http", host="127.0.0.1", port=standin.port)
        return request

    sync, asynchronous = httpx.HTTPTransport.handle_request, httpx.AsyncHTTPTransport.handle_async_request
    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", lambda self, r: sync(self, here(r)))

    async def handle(self, r):
        return await asynchronous(self, here(r))

    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", handle)
    opened = []
    first = httpx.Client.__init__

    def remember(self, *args, **more):
        first(self, *args, **more)
        opened.append(self)

    monkeypatch.setattr(httpx.Client, "__init__", remember)
    yield standin
    for client in opened:  # the client keeps its connections open for ever
        client.close()


@pytest.fixture
def client(fal):
    """A synchronous client of its own."""
    return fal_client.SyncClient(key=KEY)


def with_async_client(work, monkeypatch):
    """Run `work(client)` with an asynchronous client of its own."""
    opened = []
    first = httpx.AsyncClient.__init__

    def remember(self, *args, **more):
        first(self, *args, **more)
        opened.append(self)

    monkeypatch.setattr(httpx.AsyncClient, "__init__", remember)

    async def run():
        try:
            return await work(fal_client.AsyncClient(key=KEY))
        finally:
            for client in opened:
                await client.aclose()

    return asyncio.run(run())


def test_submit_with_everything(client, fal, receiver):
    """Webhook, hint, priority, start timeout and extra headers arrive; the handle names fal's URLs."""
    handle = client.submit(
        EDIT,
        arguments=ARGUMENTS,
        webhook_url=receiver.url + "/hook?job=1&t=a b",
        hint="H1",
        priority="low",
        start_timeout=60,
        headers={"X-Fal-No-Retry": "1", "X-Fal-Tags": "job=1"},
    )
    row = fal.row({"request_id": handle.request_id})

    assert f"https://queue.fal.run/fal-ai/bytedance/requests/{handle.request_id}" == handle.response_url
    assert receiver.url + "/hook?job=1&t=a b" == row["webhook_url"]
    assert {"X-Fal-Runner-Hint": "H1", "X-Fal-Tags": "job=1"}.items() <= row["headers"].items()
    assert receiver.wait()[0][0].startswith("/hook?job=1&t=a")
    assert client.get_handle(EDIT, handle.request_id) == handle


def test_result_and_status(client, fal):
    """Repeatable results, logs on request only, the same metrics every time."""
    handle = client.submit(TO_IMAGE, arguments={"seed": 42, "image_url": "x"})
    result = handle.get()

    assert result["seed"] == 42
    assert result == handle.get() == client.result(TO_IMAGE, handle.request_id)
    bare, full = client.status(TO_IMAGE, handle.request_id), client.status(TO_IMAGE, handle.request_id, with_logs=True)
    assert isinstance(bare, fal_client.Completed)
    assert (bare.logs, bool(full.logs)) == (None, True)
    assert bare.metrics == full.metrics != {}
    assert f"https://queue.fal.run/{SDXL}/requests/{handle.request_id}/status" == handle.status_url
    assert client.get_handle(TO_IMAGE, handle.request_id) == handle


def test_subscribe(client, fal):
    """Updates from the queue to the end, with logs."""
    fal.put("/_emulator/options", json={"latency": 0.5})
    updates = []
    result = client.subscribe(EDIT, arguments=ARGUMENTS, with_logs=True, on_queue_update=updates.append)

    assert result["seed"] == 42
    assert {fal_client.InProgress, fal_client.Completed} <= {type(update) for update in updates}
    assert any(update.logs for update in updates if isinstance(update, fal_client.InProgress))


def test_cancel(client, fal):
    """Cancelled while it runs; the result is an error of the client's own kind."""
    fal.put("/_emulator/options", json={"latency": 10.0})
    handle = client.submit(EDIT, arguments=ARGUMENTS)
    handle.cancel()

    with pytest.raises(fal_client.FalClientHTTPError) as caught:
        handle.get()
    assert (caught.value.status_code, caught.value.error_type) == (499, "client_cancelled")
    with pytest.raises(fal_client.FalClientHTTPError):
        handle.cancel()


def test_errors(client, fal):
    """A refused input comes as 422 with its details, an unknown application as 404."""
    with pytest.raises(fal_client.FalClientHTTPError) as caught:
        client.subscribe(EDIT, arguments={"prompt": "x"})
    assert caught.value.status_code == 422
    assert "missing" in str(caught.value)
    with pytest.raises(fal_client.FalClientHTTPError) as caught:
        client.submit("fal-ai/nobody", arguments={})
    assert caught.value.status_code == 404


def test_the_client_repeats_a_broken_submit(client, fal):
    """The hazard of the real world shows here, too: one lost answer, two paid requests (fal-protocol 10.5)."""
    fal.put("/_emulator/faults", json={"reset_after_accept": "1*1"})
    client.submit(EDIT, arguments=ARGUMENTS).get()

    wait_for(lambda: [row["charges"] for row in fal.ledger()] == [1, 1])


def test_uploads(client, fal, tmp_path):
    """Text, file and picture come back byte by byte, anonymously, from a URL on fal's CDN."""
    path = tmp_path / "note.txt"
    path.write_bytes(b"from a file")
    picture = Image.new("RGB", (64, 48), "teal")
    urls = [client.upload(b"text", "text/plain"), client.upload_file(path), client.upload_image(picture)]

    assert all(url.startswith("https://v3b.fal.media/files/b/") for url in urls)
    with httpx.Client() as anonymous:
        texts = [anonymous.get(url) for url in urls]
    assert [reply.content for reply in texts[:2]] == [b"text", b"from a file"]
    assert texts[2].headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(texts[2].content)).size == (64, 48)


def test_multipart_upload(client, monkeypatch, tmp_path):
    """Above the client's threshold a file goes up in parts, in parallel."""
    monkeypatch.setattr("fal_client.client.MULTIPART_THRESHOLD", 1000)
    path = tmp_path / "big.bin"
    path.write_bytes(bytes(range(256)) * 100)
    url = client.upload_file(path)

    with httpx.Client() as anonymous:
        assert path.read_bytes() == anonymous.get(url).content


def test_uploaded_pictures_are_inputs(client, fal):
    """A URL on fal's CDN means our own shelf, never the real one."""
    fal.put("/_emulator/options", json={"picture_mode": "full"})
    url = client.upload_image(Image.new("RGB", (300, 200), "navy"))
    result = client.subscribe(EDIT, arguments={"prompt": "x", "image_urls": [url], "image_size": "square"})

    assert (result["images"][0]["width"], result["images"][0]["height"]) == (960, 960)


def test_run_and_stream(client, fal):
    """The run host: one picture at once, also from a data URI, and a stream whose last event is not partial."""
    assert len(client.run(SDXL, arguments={"prompt": "x"})["images"]) == 1
    target = io.BytesIO()
    Image.new("RGB", (1024, 1024)).save(target, "JPEG")
    uri = "data:image/jpeg;base64," + base64.b64encode(target.getvalue()).decode()
    image = client.run(TO_IMAGE, arguments={"image_url": uri})["images"][0]
    assert (image["width"], image["height"]) == (1024, 1024)

    events = list(client.stream("fal-ai/any-llm", arguments={"prompt": "x"}))
    assert len(events) >= 2
    assert events[0]["partial"]
    assert not events[-1]["partial"]


def test_direct_calls_have_a_limit(fal):
    """A direct call above the cap is 429 at once; a queued one just waits."""
    fal.put("/_emulator/options", json={"concurrency": 1, "latency": 1.0})
    fal.submit()
    reply = fal.post(f"/{EDIT}", json=ARGUMENTS, headers={"Host": "fal.run"})

    assert (reply.status_code, reply.headers["X-Fal-needs-retry"]) == (429, "1")


def test_async_client(fal, receiver, monkeypatch):
    """The asynchronous twin: submit, status, result, subscribe, cancel, upload, run, stream."""

    async def work(client):
        handle = await client.submit(TO_IMAGE, arguments={"seed": 42}, webhook_url=receiver.url, priority="low")
        assert (await handle.get())["seed"] == 42
        assert (await client.status(TO_IMAGE, handle.request_id, with_logs=True)).logs
        assert await client.get_handle(TO_IMAGE, handle.request_id) == handle
        updates = []
        result = await client.subscribe(EDIT, arguments=ARGUMENTS, on_queue_update=updates.append)
        assert (result["seed"], bool(updates)) == (42, True)
        with pytest.raises(fal_client.FalClientHTTPError):
            await handle.cancel()
        url = await client.upload(b"async", "text/plain")
        assert len((await client.run(SDXL, arguments={}))["images"]) == 1
        events = [event async for event in client.stream("fal-ai/any-llm", arguments={})]
        assert not events[-1]["partial"]
        return url

    url = with_async_client(work, monkeypatch)
    with httpx.Client() as anonymous:
        assert anonymous.get(url).content == b"async"
    assert len(receiver.wait()) == 1
