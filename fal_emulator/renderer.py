"""Draws images and stores them, in a few threads, one image in memory at a time."""

import asyncio
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

from . import drawing, plain_images, sizes
from .files import Files

THUMBNAIL = (160, 80)  # pixels
INPUTS_AT_ONCE = 16  # runs that hold input images in memory


@dataclass(frozen=True, slots=True)
class RenderJob:
    """What is to be made."""

    owner: str
    prompt: str
    seed: int
    size: tuple[int, int] | None
    size_name: str
    count: int
    max_side: int
    encoding: str
    keep: bool


@dataclass(frozen=True, slots=True)
class RenderedImage:
    """One finished image; `data` only when it is not stored."""

    path: str
    data: bytes
    sha256: str
    size: int
    width: int
    height: int
    content_type: str


class Renderer:
    """The drawing threads."""

    def __init__(self, files: Files, threads: int) -> None:
        self._files = files
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="renderer")
        self.places = asyncio.Semaphore(INPUTS_AT_ONCE)

    def close(self) -> None:
        """End the threads after the image that each draws."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def render(self, spec: RenderJob, inputs: Sequence[bytes]) -> list[RenderedImage]:
        """Images made from the inputs; raises images.Unreadable."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._render, spec, inputs)

    async def flat(self, spec: RenderJob) -> list[RenderedImage]:
        """Plain images that cost next to nothing; the inputs are not looked at."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._flat, spec)

    async def thumbnail(self, path: Path) -> bytes:
        """A stored image, small, as JPEG."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, _small, path)

    def _render(self, spec: RenderJob, inputs: Sequence[bytes]) -> list[RenderedImage]:
        opened = drawing.open_inputs(inputs)
        size = spec.size or sizes.automatic(spec.size_name, opened[0].size, spec.max_side)
        made = []
        for index in range(spec.count):
            image = drawing.ImageSpec(spec.prompt, spec.seed, *size, index)
            made.append(self._keep(spec, index, drawing.draw(image, opened, spec.encoding), size))
        return made

    def _flat(self, spec: RenderJob) -> list[RenderedImage]:
        size = spec.size or sizes.automatic(spec.size_name, (1, 1), spec.max_side)
        texts = [f"{spec.owner} {index}" for index in range(spec.count)]
        return [self._keep(spec, index, plain_images.flat(*size, text), size) for index, text in enumerate(texts)]

    def _keep(self, spec: RenderJob, index: int, data: bytes, size: tuple[int, int]) -> RenderedImage:
        jpeg = data.startswith(b"\xff\xd8")
        path = self._files.path_for(spec.owner, f"{index}.{'jpg' if jpeg else 'png'}")
        sha256 = self._files.write(path, data) if spec.keep else hashlib.sha256(data).hexdigest()
        content_type = "image/jpeg" if jpeg else "image/png"
        return RenderedImage(path, b"" if spec.keep else data, sha256, len(data), *size, content_type)


def _small(path: Path) -> bytes:
    target = BytesIO()
    with Image.open(path) as image:
        image.thumbnail(THUMBNAIL)
        image.convert("RGB").save(target, "JPEG", quality=80)
    return target.getvalue()
