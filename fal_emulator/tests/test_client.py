"""The official client, unmodified: only the hosts are rewritten, inside httpx (provider-protocol 10.7 D)."""

import asyncio
import base64
import io

import fal_client
import httpx
import pytest
from PIL import Image

from .emulator_process import EDIT, KEY, wait_for

HOSTS = {"fal.run", "queue.fal.run", "rest.fal.ai", "v3.fal.media", "v3b.fal.media"}
ARGUMENTS = {"prompt": "x", "image_urls": ["https://v3b.fal.media/files/b/x/y.png"], "seed": 42}
SDXL = "fal-ai/fast-sdxl"
TO_IMAGE = "fal-ai/fast-sdxl/image-to-image"


@pytest.fixture
def fal(emulator, monkeypatch):
    """fal's host names lead to the emulator; Host headers and URLs stay fal's."""

    def here(request):
        if request.url.host in HOSTS:
            request.url = request.url.copy_with(scheme="http", host="127.0.0.1", port=emulator.port)
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
    yield emulator
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
    """In the queue, while it runs, when it is over, and for nothing at all."""
    fal.put("/_emulator/options", json={"latency": 10.0, "concurrency": 1})
    running, queued = (client.submit(EDIT, arguments=ARGUMENTS) for _ in range(2))
    wait_for(lambda: isinstance(running.status(), fal_client.InProgress))
    assert queued.status() == fal_client.Queued(position=0)
    for handle in (queued, running):
        handle.cancel()
        with pytest.raises(fal_client.FalClientHTTPError) as caught:
            handle.get()
        assert (caught.value.status_code, caught.value.error_type) == (499, "client_cancelled")
    with pytest.raises(fal_client.FalClientHTTPError) as caught:
        running.cancel()
    assert (caught.value.status_code, "ALREADY_COMPLETED" in str(caught.value)) == (400, True)
    with pytest.raises(fal_client.FalClientHTTPError) as caught:
        client.cancel(EDIT, "00000000-0000-4000-8000-000000000000")
    assert caught.value.status_code == 404


def code_of(call, *given, **more):
    """The HTTP status with which the client's call fails."""
    with pytest.raises(fal_client.FalClientHTTPError) as caught:
        call(*given, **more)
    return caught.value.status_code


def test_errors(client, fal):
    """A refused input comes as 422 with its details; a bad key, a locked account and an unknown application at once."""
    with pytest.raises(fal_client.FalClientHTTPError) as caught:
        client.subscribe(EDIT, arguments={"prompt": "x"})
    assert (caught.value.status_code, caught.value.message[0]["type"]) == (422, "missing")
    assert code_of(client.submit, "fal-ai/nobody", arguments={}) == 404
    assert code_of(client.result, EDIT, "00000000-0000-4000-8000-000000000000") == 404
    assert code_of(fal_client.SyncClient(key="no-colon").submit, EDIT, arguments=ARGUMENTS) == 401
    fal.put("/_emulator/options", json={"credits": 0.0})
    with pytest.raises(fal_client.FalClientHTTPError, match="User is locked") as caught:
        client.submit(EDIT, arguments=ARGUMENTS)
    assert caught.value.status_code == 403


def test_failures_of_the_infrastructure(client):
    """The client tells the type from the body."""
    with pytest.raises(fal_client.FalClientHTTPError) as caught:
        client.subscribe(EDIT, arguments={**ARGUMENTS, "prompt": "[[fault:runner_server_error]]"})

    assert (caught.value.status_code, caught.value.error_type) == (500, "runner_server_error")


def test_client_timeout(client, fal):
    """The client gives up, cancels, and names the request; the timeout went along as start deadline."""
    fal.put("/_emulator/options", json={"latency": 30.0})
    with pytest.raises(fal_client.FalClientTimeoutError) as caught:
        client.subscribe(EDIT, arguments=ARGUMENTS, client_timeout=1.5)
    row = fal.row({"request_id": caught.value.request_id})

    wait_for(lambda: fal.row(row)["error_type"] == "client_cancelled")
    assert row["cancelled_at"]


def test_start_timeout(client, fal):
    """A request that has not started in time ends by itself; the client sees 504 with its type."""
    fal.put("/_emulator/options", json={"concurrency": 0})
    handle = client.submit(EDIT, arguments=ARGUMENTS, start_timeout=1.1)
    with pytest.raises(fal_client.FalClientHTTPError) as caught:
        handle.get()

    assert (caught.value.status_code, caught.value.error_type) == (504, "startup_timeout")
    assert caught.value.response_headers["x-fal-request-timeout-type"] == "user"


def test_priority(client, fal):
    """Low priority waits behind normal."""
    fal.put("/_emulator/options", json={"concurrency": 0})
    low = client.submit(EDIT, arguments=ARGUMENTS, priority="low")
    client.submit(EDIT, arguments=ARGUMENTS)

    assert low.status() == fal_client.Queued(position=1)


def test_encoded_inputs(client, fal, tmp_path):
    """The three ways of sending an image inside the body are inputs like any other."""
    fal.put("/_emulator/options", json={"image_mode": "full"})
    sample, path = Image.new("RGB", (300, 200), "navy"), tmp_path / "image.png"
    sample.save(path)
    uris = [
        fal_client.encode(path.read_bytes(), "image/png"),
        fal_client.encode_file(path),
        fal_client.encode_image(sample),
    ]
    result = client.subscribe(EDIT, arguments={"prompt": "x", "image_urls": uris, "image_size": "auto"})

    assert [uri.partition(";")[0] for uri in uris] == ["data:image/png", "data:image/png", "data:image/jpeg"]
    assert (result["images"][0]["width"], result["images"][0]["height"]) == (1176, 784)


def test_the_client_repeats_a_broken_submit(client, fal):
    """The hazard of the real world shows here, too: one lost answer, two paid requests (provider-protocol 10.5)."""
    fal.put("/_emulator/faults", json={"reset_after_accept": "1*1"})
    client.submit(EDIT, arguments=ARGUMENTS).get()

    wait_for(lambda: [row["charges"] for row in fal.ledger()] == [1, 1])


def test_uploads(client, fal, tmp_path):
    """Text, file and image come back byte by byte, anonymously, from a URL on fal's CDN."""
    path = tmp_path / "note.txt"
    path.write_bytes(b"from a file")
    sample = Image.new("RGB", (64, 48), "teal")
    urls = [client.upload(b"text", "text/plain"), client.upload_file(path), client.upload_image(sample)]

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


def test_uploaded_images_are_inputs(client, fal):
    """A URL on fal's CDN means our own files, never the real one."""
    fal.put("/_emulator/options", json={"image_mode": "full"})
    url = client.upload_image(Image.new("RGB", (300, 200), "navy"))
    result = client.subscribe(EDIT, arguments={"prompt": "x", "image_urls": [url], "image_size": "square"})

    assert (result["images"][0]["width"], result["images"][0]["height"]) == (960, 960)


def test_run_and_stream(client, fal):
    """The run host: one image at once, also from a data URI, and a stream whose last event is not partial."""
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


def test_async_client(fal, receiver, monkeypatch, tmp_path):
    """The asynchronous twin: submit, status, result, subscribe, uploads, run, stream."""
    path = tmp_path / "big.bin"
    path.write_bytes(bytes(range(256)) * 100)

    async def work(client):
        handle = await client.submit(
            TO_IMAGE,
            arguments={"seed": 42},
            webhook_url=receiver.url,
            priority="low",
            hint="H2",
            start_timeout=60,
        )
        result = await handle.get()
        assert result["seed"] == 42
        assert result == await handle.get() == await client.result(TO_IMAGE, handle.request_id)
        bare, full = await handle.status(), await client.status(TO_IMAGE, handle.request_id, with_logs=True)
        assert (bare.logs, bool(full.logs), bare.metrics) == (None, True, full.metrics)
        assert await client.get_handle(TO_IMAGE, handle.request_id) == handle
        updates = []
        result = await client.subscribe(EDIT, arguments=ARGUMENTS, with_logs=True, on_queue_update=updates.append)
        assert (result["seed"], bool(updates)) == (42, True)
        urls = [await client.upload(b"async", "text/plain"), await client.upload_file(path)]
        await client.upload_image(Image.new("RGB", (64, 48)))
        monkeypatch.setattr("fal_client.client.MULTIPART_THRESHOLD", 1000)
        urls.append(await client.upload_file(path))
        assert len((await client.run(SDXL, arguments={}))["images"]) == 1
        events = [event async for event in client.stream("fal-ai/any-llm", arguments={})]
        assert not events[-1]["partial"]
        return urls

    urls = with_async_client(work, monkeypatch)
    with httpx.Client() as anonymous:
        assert [anonymous.get(url).content for url in urls] == [b"async", path.read_bytes(), path.read_bytes()]
    assert len(receiver.wait()) == 1
    assert fal.ledger()[0]["headers"]["X-Fal-Runner-Hint"] == "H2"


def test_async_failures(fal, monkeypatch):
    """Refusals, cancels in every state, and giving up, asynchronously."""

    async def code(awaitable):
        with pytest.raises(fal_client.FalClientHTTPError) as caught:
            await awaitable
        return caught.value.status_code

    async def work(client):
        assert await code(client.subscribe(EDIT, arguments={"prompt": "x"})) == 422
        assert await code(client.submit("fal-ai/nobody", arguments={})) == 404
        assert await code(client.cancel(EDIT, "00000000-0000-4000-8000-000000000000")) == 404
        assert await code(fal_client.AsyncClient(key="no-colon").submit(EDIT, arguments=ARGUMENTS)) == 401
        fal.put("/_emulator/options", json={"latency": 30.0, "concurrency": 1})
        running = await client.submit(EDIT, arguments=ARGUMENTS)
        queued = await client.submit(EDIT, arguments=ARGUMENTS)
        for handle in (queued, running):
            await handle.cancel()
            assert await code(handle.get()) == 499
        assert await code(running.cancel()) == 400
        with pytest.raises(fal_client.FalClientTimeoutError) as caught:
            await client.subscribe(EDIT, arguments=ARGUMENTS, client_timeout=1.5)
        fal.put("/_emulator/options", json={"credits": 0.0})
        assert await code(client.submit(EDIT, arguments=ARGUMENTS)) == 403
        return caught.value.request_id

    request_id = with_async_client(work, monkeypatch)
    wait_for(lambda: fal.row({"request_id": request_id})["error_type"] == "client_cancelled")
