"""Fetches a run's input images: data URIs, our own files, and http(s) URLs, under caps of size and time.

Redirects are followed a few times. Nothing is decoded here, except a data URI's base64.
"""

import asyncio
import base64
import binascii
from collections.abc import Sequence
from urllib.parse import unquote_to_bytes, urlsplit

import aiohttp

from .arguments import InvalidInput
from .files import Files
from .options import Options
from .verdicts import model_error

MOST_REDIRECTS = 3
CHUNK = 64 * 1024


class _Unreachable(Exception):
    pass


class _TooLarge(Exception):
    pass


class Inputs:
    """Reads input images for the runner."""

    def __init__(self, session: aiohttp.ClientSession, files: Files, options: Options) -> None:
        self._session = session
        self._files = files
        self._options = options

    async def fetch(self, urls: Sequence[str], origin: str) -> list[bytes]:
        """All images, or InvalidInput naming the first that could not be had."""
        results = await asyncio.gather(*(self._fetch_one(url, origin) for url in urls), return_exceptions=True)
        images: list[bytes] = []
        for position, (url, result) in enumerate(zip(urls, results, strict=True)):
            if isinstance(result, BaseException):
                raise self._refusal(position, url, result) from result
            images.append(result)
        return images

    def _refusal(self, position: int, url: str, problem: BaseException) -> InvalidInput:
        if isinstance(problem, _TooLarge):
            limit = self._options.max_input_bytes
            return InvalidInput(model_error("file_too_large", url, position=position, max_size=limit))
        if isinstance(problem, _Unreachable | ValueError | OSError):  # no URL at all, or a file that just expired
            return InvalidInput(model_error("file_download_error", url, position=position))
        raise problem

    async def _fetch_one(self, url: str, origin: str) -> bytes:
        if url.startswith("data:"):
            return self._data_uri(url)
        if (path := self._files.own_path(url, origin)) is not None:
            found = self._files.find(path)
            if found is None or found.acl != "allow":
                raise _Unreachable
            return await asyncio.to_thread(self._files.on_disk(path).read_bytes)
        if urlsplit(url).scheme not in ("http", "https"):
            raise _Unreachable
        return await self._download(url)

    def _data_uri(self, url: str) -> bytes:
        head, comma, content = url.partition(",")
        if not comma:
            raise _Unreachable
        try:
            data = base64.b64decode(content, validate=True) if head.endswith(";base64") else unquote_to_bytes(content)
        except (binascii.Error, ValueError) as error:
            raise _Unreachable from error
        if len(data) > self._options.max_input_bytes:
            raise _TooLarge
        return data

    async def _download(self, url: str) -> bytes:
        timeout = aiohttp.ClientTimeout(total=self._options.input_timeout)
        try:
            async with self._session.get(url, timeout=timeout, max_redirects=MOST_REDIRECTS) as reply:
                if reply.status != 200:
                    raise _Unreachable
                return await self._read(reply)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise _Unreachable from error

    async def _read(self, reply: aiohttp.ClientResponse) -> bytes:
        data = bytearray()
        async for chunk in reply.content.iter_chunked(CHUNK):
            data += chunk
            if len(data) > self._options.max_input_bytes:
                raise _TooLarge
        return bytes(data)
