"""Images fetched, checked and stored a second: darkroom, and the few lines that people write for it."""

import json
import random
import subprocess
import sys
from functools import partial
from io import BytesIO
from tempfile import TemporaryDirectory

from PIL import Image

from benchmarks.measuring import Column, Found, take_turns
from benchmarks.rows.submit import distant
from cli.settings import environment

FILES = 100
"""Of one turn."""
SIDE = 2048
COLUMNS = (Column("rate", "files/s", 1), Column("cpu_ms", "CPU, ms each", 1))
TEXT = """\
PNG files of {megabytes:.1f} MB and {side} x {side} pixels, fetched over loopback, checked and stored. darkroom: 16
threads of one process; each file is held to what was declared, every checksum and every row, hashed, and synced to the
disk. The plain pipeline: `requests`, SHA-256, Pillow and a file, in two processes; it syncs and compares nothing."""
SETTINGS = {
    "DATABASE_URL": "postgresql://127.0.0.1/none",
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "STORAGE_URL": "file:///nowhere",
}
"""What the lane's settings need to be given, and nothing here uses."""


def measure(rounds: int) -> Found:
    """Let the downloaders run by turns."""
    image = draw()
    text = TEXT.format(megabytes=len(image) / 1e6, side=SIDE)
    with distant(0.0, image) as port:
        contestants = {
            "darkroom": partial(_measure, "darkroom", port),
            "darkroom, if Pillow decoded": partial(_measure, "decoding", port),
            "plain pipeline": partial(_measure, "plain", port),
        }
        return Found("Download", text, COLUMNS, take_turns(contestants, rounds), plotted="rate")


def draw() -> bytes:
    """A soft image, always the same, about as large as those that the model makes."""
    dots = random.Random(1).randbytes(12 * 12 * 3)
    file = BytesIO()
    Image.frombytes("RGB", (12, 12), dots).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()


def _measure(name: str, port: int) -> dict[str, float]:
    with TemporaryDirectory(prefix="darkroom-bench-") as folder:
        command = (sys.executable, "-m", "benchmarks.downloaders", name, str(port), str(FILES), folder)
        variables = {**environment(), **SETTINGS}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=variables)
    return dict(json.loads(done.stdout))
