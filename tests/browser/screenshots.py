"""`make screenshots`: each of the operator's pages as `docs/screenshots/*.webp`, of a demo on the emulator.

Three batches: one is done, but for some failures that the emulator was told to make; one runs; one is paused.
"""

import json
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import requests
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, sync_playwright

from cli.stack.demo import PROMPTS, SIZES
from cli.stack.sample_images import draw_samples
from tests.browser.conftest import FLAGS, PROGRAMS
from tests.support.api_client import KEYS
from tests.support.pages import OLGA
from tests.support.running_stack import Stack, eventually

FOLDER = Path(__file__).parents[2] / "docs" / "screenshots"
LARGEST = 200_000
"""Bytes of one."""
FAULTS = {"content_policy_violation": "0.1", "generation_timeout": "0.08", "downstream_service_error": "0.1"}
BATCHES = {"spring catalogue": (40, "finished_at"), "lookbook": (120, "stored"), "archive": (600, "paused_at")}
"""How many edits, and what a batch must have before the next one is handed in."""
VIEWS = {
    "wide": {"viewport": {"width": 1280, "height": 800}},
    "phone": {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True},
    "dark": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"},
}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="darkroom-screenshots-") as folder, demo(Path(folder)) as stack:
        print("the demo runs", flush=True)
        batches = [submit(stack, Path(folder), name) for name in BATCHES]
        url = f"http://127.0.0.1:{stack.intake_port}"
        paths = {
            "batches": "/",
            "batch": f"/batches/{batches[0]}",
            "edit": f"/batches/{batches[0]}/edits/{_stored(stack, batches[0])}",
            "confirm": f"/batches/{batches[1]}/cancel",
            "system": "/system",
        }
        with chromium() as browser:
            for view, options in VIEWS.items():
                context = browser.new_context(base_url=url, **options)
                take(context, "/sign-in", f"sign-in-{view}")
                assert context.request.post("/sign-in", form={"key": OLGA}).ok
                for name, path in paths.items():
                    take(context, path, f"{name}-{view}")
                context.close()


@contextmanager
def demo(folder: Path) -> Iterator[Stack]:
    """A stack with keys, whose emulator edits the images that it is given."""
    stack = Stack(folder / "home")
    stack.variables |= {"DARKROOM_API_KEYS": KEYS, "DARKROOM_OPERATOR_KEYS": f"olga:{OLGA}"}
    stack.start()
    try:
        yield stack
    finally:
        stack.end(signal.SIGTERM, within=10)


def submit(stack: Stack, folder: Path, name: str) -> str:
    """The first batch is waited for, the second begins, the third is paused at once."""
    edits, wanted = BATCHES[name]
    emulator = f"http://127.0.0.1:{stack.emulator_port}/_emulator"
    requests.put(f"{emulator}/faults", json=FAULTS, timeout=5).raise_for_status()
    requests.put(f"{emulator}/options", json={"latency": 1.0, "concurrency": 6}, timeout=5).raise_for_status()
    said = stack.run("submit", str(write_manifest(folder, name, edits)), "--name", name, "--json")
    assert said.returncode == 0, said.stderr
    batch = str(json.loads(said.stdout.splitlines()[-1])["batch_id"])
    if wanted == "paused_at":
        assert stack.run("pause", batch).returncode == 0
    assert eventually(lambda: json.loads(stack.run("status", batch, "--json").stdout)[wanted], within=180)
    return batch


def write_manifest(folder: Path, name: str, edits: int) -> Path:
    images = draw_samples(folder)
    manifest = folder / f"{name}.jsonl"
    with manifest.open("w") as file:
        for n in range(edits):
            edit = {
                "custom_id": f"{name.split()[0]}-{n:03}",
                "prompt": PROMPTS[n % len(PROMPTS)],
                "image_urls": [str(images[n % len(images)])],
                "image_size": SIZES[n % len(SIZES)],
            }
            file.write(json.dumps(edit) + "\n")
    return manifest


def _stored(stack: Stack, batch: str) -> int:
    """The position of the stored edit to which most has happened."""
    found = map(json.loads, stack.run("export", batch, "--state", "stored").stdout.splitlines())
    return int(max(found, key=lambda line: len(line["errors"]))["position"])


@contextmanager
def chromium() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, PROGRAMS)))
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=program, args=FLAGS)


def take(context: BrowserContext, path: str, name: str) -> None:
    """One page as it looks when all of its images are there, no taller than what a reader would scroll."""
    page = context.new_page()
    page.goto(path)
    page.evaluate("for (const image of document.images) image.loading = 'eager'")
    page.wait_for_load_state("networkidle")
    width = page.viewport_size["width"]  # type: ignore[index]
    height = min(page.evaluate("document.body.scrollHeight"), 1400 if width > 600 else 1600)
    page.set_viewport_size({"width": width, "height": height})
    page.evaluate("Promise.all([...document.images].map((image) => image.decode().catch(() => 0)))")
    with Image.open(BytesIO(page.screenshot())) as image:
        file = FOLDER / f"{name}.webp"
        image.convert("RGB").save(file, "WEBP", quality=82, method=6)
    size = file.stat().st_size
    assert size < LARGEST, f"{file} has {size} bytes"
    print(f"{file.name}: {size // 1000} kB", flush=True)
    page.close()


if __name__ == "__main__":
    main()
