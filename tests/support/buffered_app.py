"""A small application behind a buffering server with small limits; granian serves it in a process of its own."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from flask import Flask, Response, request

from buffering import NEEDS_THREAD, STREAMED, BufferingServer, Limits

LONG = 60.0
"""Seconds of every clock, until a test sets it shorter by `/limits`."""
BODY_MAX, IN_MEMORY, HELD_MAX = 20_000_000, 10_000, 30_000_000
"""Bytes."""
AT_ONCE = 100
"""Bytes of a body that is tried on the event loop."""
STREAMS, PIECE = 4, 50_000
"""Answers at one time; bytes."""


class Broken(Exception):
    """An error that the application knows how to explain."""


def create_server() -> BufferingServer:
    """Echoes, makes long answers, breaks off, takes its time."""
    app = Flask("buffered", static_folder=None)
    gate = Gate()

    @app.get("/livez")
    def livez() -> Response:
        return Response("ok")

    @app.post("/length")
    def length() -> Response:
        return Response(f"{len(request.get_data())}")

    @app.get("/pieces/<int:number>")
    def pieces(number: int) -> Response:
        size = int(request.args.get("size", 1000))
        return Response((b"x" * size for _ in range(number)), headers={"X-Made": str(number)})

    @app.get("/broken/<int:number>")
    def broken(number: int) -> Response:
        def made() -> Iterator[bytes]:
            for _ in range(number):
                yield b"x" * 1000
            raise Broken

        return Response(made())

    add_streams(app)
    add_slow(app, gate)
    add_tried(app, gate)

    @app.errorhandler(Broken)
    def explained(error: Broken) -> tuple[str, int]:
        return "it broke", 502

    bodies = Limits(lambda _: BODY_MAX, IN_MEMORY, HELD_MAX, LONG, LONG, chunked=False)
    limits = replace(bodies, streams=STREAMS, taken_within=LONG)
    server = BufferingServer(app, limits, threads=2, large=1, at_once=_is_tried_at_once)

    @app.post("/limits")
    def set_limits() -> dict[str, int]:
        """Those given, in seconds; and the bytes that are held, and the requests that wait for `/end`."""
        server._limits = replace(server._limits, **{name: float(value) for name, value in request.args.items()})
        return {"held": server._memory.held, "waiting": gate.waiting}

    return server


def _is_tried_at_once(scope: Any, size: int) -> bool:
    return scope.path == "/tried" and size <= AT_ONCE


def add_streams(app: Flask) -> None:
    """Answers that are sent as they are made, and how many pieces of them were made."""
    made = {"pieces": 0, "open": 0}

    @app.get("/streamed/<int:number>")
    def streamed(number: int) -> Response:
        breaks = "broken" in request.args

        def pieces() -> Iterator[bytes]:
            made["open"] += 1
            try:
                for _ in range(number):
                    made["pieces"] += 1
                    yield b"x" * PIECE
                if breaks:
                    raise Broken
            finally:
                made["open"] -= 1

        return Response(pieces(), headers=[STREAMED])

    @app.get("/made")
    def count() -> dict[str, int]:
        return made


class Gate:
    """Whatever takes its time takes it until somebody says so."""

    def __init__(self) -> None:
        self.is_open, self.waiting = threading.Event(), 0

    def wait(self) -> None:
        self.waiting += 1
        assert self.is_open.wait(LONG)
        self.waiting -= 1


def add_slow(app: Flask, gate: Gate) -> None:
    """What takes its time, from `/hold` to `/end`."""

    @app.post("/slow")
    def slow() -> Response:
        gate.wait()
        return Response(f"{len(request.get_data())}")

    @app.post("/hold")
    def hold() -> Response:
        gate.is_open.clear()
        return Response("ok")

    @app.post("/end")
    def end() -> Response:
        gate.is_open.set()
        return Response("ok")


def add_tried(app: Flask, gate: Gate) -> None:
    """What is tried on the event loop."""

    @app.post("/tried")
    def tried() -> Response:
        """Where it is served; whoever asks it to wait is not served on the event loop."""
        needs_thread = request.environ.get(NEEDS_THREAD)
        if needs_thread and "wait" in request.args:
            return needs_thread()
        if "wait" in request.args:
            gate.wait()
        body = request.get_data()
        return Response(f"{'loop' if needs_thread else 'thread'} {len(body)}")
