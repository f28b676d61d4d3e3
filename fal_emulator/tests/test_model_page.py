"""The code of the model's own page, letter by letter, in a process of its own; only fal's host names lead here."""

import ast
import os
import subprocess
import sys

import pytest

from .emulator_process import EDIT

LEAD_HERE = """
import httpx

def here(request):
    request.url = request.url.copy_with(scheme="http", host="127.0.0.1", port={port})
    return request

sync, asynchronous = httpx.HTTPTransport.handle_request, httpx.AsyncHTTPTransport.handle_async_request
httpx.HTTPTransport.handle_request = lambda self, request: sync(self, here(request))
httpx.AsyncHTTPTransport.handle_async_request = lambda self, request: asynchronous(self, here(request))
"""

INPUTS = """["https://storage.googleapis.com/falserverless/example_inputs/seedream4_edit_input_1.png", "https://storage.googleapis.com/falserverless/example_inputs/seedream4_edit_input_2.png", "https://storage.googleapis.com/falserverless/example_inputs/seedream4_edit_input_3.png", "https://storage.googleapis.com/falserverless/example_inputs/seedream4_edit_input_4.png"]"""  # noqa: E501

SUBSCRIBE = f"""
import fal_client

def on_queue_update(update):
    if isinstance(update, fal_client.InProgress):
        for log in update.logs:
           print(log["message"])

result = fal_client.subscribe(
    "fal-ai/bytedance/seedream/v4/edit",
    arguments={{
        "prompt": "Dress the model in the clothes and hat. Add a cat to the scene and change the background to a Victorian era building.",
        "image_urls": {INPUTS}
    }},
    with_logs=True,
    on_queue_update=on_queue_update,
)
print(result)
"""  # noqa: E501

SUBSCRIBE_ASYNC = f"""
import asyncio
import fal_client

async def subscribe():
    def on_queue_update(update):
        if isinstance(update, fal_client.InProgress):
            for log in update.logs:
                print(log["message"])

    result = await fal_client.subscribe_async(
        "fal-ai/bytedance/seedream/v4/edit",
        arguments={{
            "prompt": "Dress the model in the clothes and hat. Add a cat to the scene and change the background to a Victorian era building.",
            "image_urls": {INPUTS}
        }},
        with_logs=True,
        on_queue_update=on_queue_update,
    )
    print(result)


if __name__ == "__main__":
    asyncio.run(subscribe())
"""  # noqa: E501

SUBMIT = f"""
import fal_client

handler = fal_client.submit(
    "fal-ai/bytedance/seedream/v4/edit",
    arguments={{
        "prompt": "Dress the model in the clothes and hat. Add a cat to the scene and change the background to a Victorian era building.",
        "image_urls": {INPUTS}
    }},
    webhook_url="WEBHOOK",
)

request_id = handler.request_id
status = fal_client.status("fal-ai/bytedance/seedream/v4/edit", request_id, with_logs=True)
result = fal_client.result("fal-ai/bytedance/seedream/v4/edit", request_id)
url = fal_client.upload_file("path/to/file")
print(status)
print(url)
print(result)
"""  # noqa: E501


def printed(emulator, folder, code):
    """What the program prints, line by line."""
    (folder / "sitecustomize.py").write_text(LEAD_HERE.format(port=emulator.port))
    (folder / "path" / "to").mkdir(parents=True)
    (folder / "path" / "to" / "file").write_bytes(b"a file")
    (folder / "program.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(folder), "FAL_KEY": "kid:ksecret"}
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("code", [SUBSCRIBE, SUBSCRIBE_ASYNC])
def test_subscribe(make_emulator, tmp_path, code):
    """Logs while it runs, then the result in the model's own shape."""
    emulator = make_emulator(latency=1.0)
    *logs, last = printed(emulator, tmp_path, code)
    result = ast.literal_eval(last)

    assert any("emulator" in line for line in logs)
    assert result["images"][0]["url"].startswith("https://v3b.fal.media/files/b/")
    assert isinstance(result["seed"], int)
    assert [(row["endpoint_id"], row["charges"]) for row in emulator.ledger()] == [(EDIT, 1)]


def test_submit_status_result_and_upload(emulator, tmp_path, receiver):
    """The queue by hand, with a webhook, and a file."""
    status, url, result = printed(emulator, tmp_path, SUBMIT.replace("WEBHOOK", receiver.url))

    assert status.startswith(("Queued(", "InProgress(", "Completed("))
    assert url.startswith("https://v3b.fal.media/files/b/")
    assert ast.literal_eval(result)["images"]
    assert len(receiver.wait()) == 1
