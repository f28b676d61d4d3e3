"""What stands between granian and Flask: bodies are gathered without a thread, within deadlines and bounds.

In WSGI mode granian reads a body inside a Python thread and without a deadline, so a few senders that stop in the
middle would keep an application from all other requests. Here the event loop gathers each body, above a small size in
a temporary file; only a whole one gets a thread. It judges nothing: what is too long goes to Flask one byte too long.

An answer of unknown length is made piece by piece, written down whole, and only then begun. One that says that nobody
should buffer it (`STREAMED`) is sent as it is made instead, without a thread while its client reads (`streaming.py`).
Not so over HTTP/1.0, as many proxies speak it: there a part of an answer cannot be told from the whole.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, aclosing, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol, runtime_checkable

from flask import Flask, Response
from werkzeug.test import run_wsgi_app

from buffering.environ import environ
from buffering.request_buffer import BufferFull, MemoryBudget, RequestBuffer
from buffering.streaming import FILE_KEPT, AnswerPipe, end_connection

STREAMED = ("X-Accel-Buffering", "no")
"""The header of an answer that is sent as it is made; nginx knows it too, and does not buffer such an answer."""
ANSWER_LATER = "buffering.answer_later"
"""In the WSGI environment: called by a view with a future and with what makes a response of its value, it gives what
the view returns at once. So whoever waits for somebody else's commit holds no thread."""
NEEDS_THREAD = "buffering.needs_thread"
"""In the WSGI environment of a request that is tried on the event loop: called by a view that would have to wait for
anything, it gives what the view returns at once; the request then begins again in a thread."""

HTTP_1_0 = "1"
"""As granian names it."""

Header = tuple[str, str]


class BodyCut(Exception):
    """The sender hung up in mid-body."""


class LengthRequired(Exception):
    """A body of undeclared length: granian does not tell one that was cut from one that ended."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the buffering server takes."""

    body_max: Callable[[Any], int]
    """Bytes of the body of a request with these headers; one more is passed on as a sign."""
    in_memory: int
    """Bytes of one body or answer; above it goes into a temporary file."""
    held_max: int
    """Bytes of all bodies and answers at one time; above it callers are asked to come again."""
    whole_within: float
    """Seconds for a whole body."""
    idle_within: float
    """Seconds without a byte of it."""
    chunked: bool = True
    """Whether a body may come without its length: only where a part of one cannot be taken for the whole."""
    streams: int = 16
    """Answers that are sent as they are made at one time, each with a piece in memory; above it callers are asked to
    come again."""
    taken_within: float = 600.0
    """Seconds in which the client takes nothing of such an answer; then it is cut."""


class BufferingServer:
    """An RSGI application around a Flask one.

    `threads` serve whatever fits into memory; bodies that do not have `large` threads of their own, so that small
    requests never wait for big ones. A request of which `at_once` says so, by its scope and the bytes of its body, is
    tried on the event loop first: where a view hardly ever waits, a thread for it costs more than all of its work.
    """

    def __init__(
        self,
        app: Flask,
        limits: Limits,
        *,
        threads: int,
        large: int = 1,
        at_once: Callable[[Any, int], bool] = lambda *_: False,
    ) -> None:
        self._app, self._limits, self._at_once = app, limits, at_once
        self._pool, self._large = ThreadPoolExecutor(threads), ThreadPoolExecutor(large)
        self._memory = MemoryBudget(limits.held_max)
        self._streams = 0

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        """One request."""
        with RequestBuffer(self._memory, self._limits.in_memory) as body:
            try:
                await self._gather(scope.headers, protocol, body)
                await self._answer(scope, protocol, body)
            except TimeoutError:
                _refuse(protocol, HTTPStatus.REQUEST_TIMEOUT)
            except LengthRequired:
                _refuse(protocol, HTTPStatus.LENGTH_REQUIRED)
            except BodyCut:
                _refuse(protocol, HTTPStatus.BAD_REQUEST)
            except (BufferFull, OSError):  # by our bounds, or the disk is
                _refuse(protocol, HTTPStatus.SERVICE_UNAVAILABLE, ("retry-after", "5"))

    async def _gather(self, headers: Any, protocol: Any, body: RequestBuffer) -> None:
        left = self._limits.body_max(headers) + 1
        declared = headers.get("content-length")
        loop = asyncio.get_running_loop()
        end = loop.time() + self._limits.whole_within
        async with asyncio.timeout(min(self._limits.whole_within, self._limits.idle_within)) as deadline:
            async for chunk in protocol:
                if chunk and declared is None and not self._limits.chunked:
                    raise LengthRequired
                body.write(bytes(chunk[:left]))
                left -= min(left, len(chunk))
                if not left:
                    return
                deadline.reschedule(min(end, loop.time() + self._limits.idle_within))
        if declared is not None and body.size < int(declared):
            raise BodyCut

    async def _answer(self, scope: Any, protocol: Any, body: RequestBuffer) -> None:
        loop = asyncio.get_running_loop()
        answer = self._call(scope, body, on_loop=True) if self._at_once(scope, body.size) else None
        if answer is None:
            pool = self._large if body.on_disk else self._pool
            answer = await loop.run_in_executor(pool, self._call_in_thread, scope, body)
        if answer.later is not None:
            try:
                response = answer.later.make(await asyncio.wrap_future(answer.later.value))
                answer = _Reply(response.status_code, list(response.headers.items()), response.iter_encoded(), True)
            except Exception as error:  # the application's own; it says what to answer
                answer = await loop.run_in_executor(self._pool, self._explain, error, scope, body)
        if answer.streamed and scope.http_version != HTTP_1_0:
            await self._stream(answer, scope, protocol, body)
            return
        if not answer.whole:
            with ExitStack() as kept:
                buffer = kept.enter_context(RequestBuffer(self._memory, self._limits.in_memory))
                failed = await self._write_down(answer, buffer)
                if failed is None:
                    headers = [*answer.headers, ("content-length", str(buffer.size))]
                    if buffer.on_disk:
                        protocol.response_file(answer.status, headers, buffer.path())
                        loop.call_later(FILE_KEPT, kept.pop_all().close)
                    else:
                        protocol.response_bytes(answer.status, headers, buffer.read())
                    return
            answer = await loop.run_in_executor(self._pool, self._explain, failed, scope, body)
        protocol.response_bytes(answer.status, answer.headers, b"".join(answer.pieces))

    async def _write_down(self, answer: "_Reply", buffer: RequestBuffer) -> Exception | None:
        """Piece by piece, so that no thread is held for a whole answer; gives what went wrong in making one."""
        async with aclosing(self._pieces(answer)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Exception):
                    return piece
                buffer.write(piece)
        return None

    async def _stream(self, answer: "_Reply", scope: Any, protocol: Any, body: RequestBuffer) -> None:
        """The same, to the client at once; where it breaks off, so does the connection, before its pipe ends."""
        async with AsyncExitStack() as stack:
            pieces = await stack.enter_async_context(aclosing(self._pieces(answer)))
            if self._streams >= self._limits.streams:
                raise BufferFull
            self._streams += 1
            stack.callback(self._end_stream)
            pipe = AnswerPipe()
            stack.callback(pipe.close)
            protocol.response_file(answer.status, answer.headers, pipe.path)
            cut = stack.enter_context(ExitStack())
            cut.callback(end_connection, scope)
            with suppress(TimeoutError, BrokenPipeError):  # the client has gone, or as good as
                async for piece in pieces:
                    if isinstance(piece, Exception):
                        await asyncio.get_running_loop().run_in_executor(self._pool, self._explain, piece, scope, body)
                        return
                    await pipe.send(piece, within=self._limits.taken_within)
                cut.pop_all()

    def _end_stream(self) -> None:
        self._streams -= 1

    async def _pieces(self, answer: "_Reply") -> AsyncGenerator[bytes | Exception]:
        """What the application makes, each piece in a thread; at last what went wrong in making one, if it did."""
        loop, pieces = asyncio.get_running_loop(), iter(answer.pieces)
        try:
            while (piece := await loop.run_in_executor(self._pool, next, pieces, None)) is not None:
                yield piece
        except Exception as error:  # the application's own; it says what to answer
            yield error
        finally:
            await loop.run_in_executor(self._pool, answer.close)

    def _call_in_thread(self, scope: Any, body: RequestBuffer) -> "_Reply":
        answer = self._call(scope, body)
        assert answer is not None
        return answer

    def _call(self, scope: Any, body: RequestBuffer, *, on_loop: bool = False) -> "_Reply | None":
        """What the application answers; None where it would have had to wait on the event loop."""
        later: list[_Later] = []
        would_wait: list[Response] = []

        def answer_later(value: "Future[Any]", make: Callable[[Any], Response]) -> Response:
            later.append(_Later(value, make))
            return _NOTHING_YET

        def needs_thread() -> Response:
            would_wait.append(_NOTHING_YET)
            return _NOTHING_YET

        request = environ(scope, body.file, body.size)
        request[ANSWER_LATER] = answer_later
        if on_loop:
            request[NEEDS_THREAD] = needs_thread
        try:
            content, status, headers = run_wsgi_app(self._app, request)
        except Exception as error:  # in the first piece, which is made already
            return self._explain(error, scope, body)
        if would_wait:
            return None
        whole = "content-length" in headers
        return _Reply(int(status.split()[0]), list(headers.items()), content, whole, later[0] if later else None)

    def _explain(self, error: Exception, scope: Any, body: RequestBuffer) -> "_Reply":
        """What the application answers to an error that it met after it had begun to answer."""
        with self._app.request_context(environ(scope, body.file, body.size)):
            response = self._app.make_response(self._app.handle_user_exception(error))
            return _Reply(response.status_code, list(response.headers.items()), response.iter_encoded(), whole=True)


class _NothingYet(Response):
    """What Flask hands back of a request that is answered later; nobody sees it, so it costs nothing to send."""

    def __call__(self, _: Any, start_response: Any) -> Iterable[bytes]:
        start_response(f"{HTTPStatus.ACCEPTED} ", [])
        return ()


_NOTHING_YET = _NothingYet()


@dataclass(frozen=True, slots=True)
class _Later:
    """An answer that `make` makes, without a wait, of a value that is still to come."""

    value: "Future[Any]"
    make: Callable[[Any], Response]


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    headers: list[Header]
    pieces: Iterable[bytes]
    whole: bool
    """Whether it names its length, so that its pieces are at hand."""
    later: _Later | None = None
    """What is answered in its place."""

    @property
    def streamed(self) -> bool:
        return not self.whole and STREAMED in self.headers

    def close(self) -> None:
        if isinstance(self.pieces, Closing):
            self.pieces.close()


@runtime_checkable
class Closing(Protocol):
    """An iterable that wants to be closed, as WSGI has it."""

    def close(self) -> None:
        """Let go of what it reads from."""


def _refuse(protocol: Any, status: HTTPStatus, *headers: Header) -> None:
    """What Flask never hears of is refused in the form of RFC 9457."""
    problem = {"type": "about:blank", "title": status.phrase, "status": int(status)}
    named = [("content-type", "application/problem+json"), ("connection", "close"), *headers]
    protocol.response_bytes(int(status), named, json.dumps(problem).encode())
