"""A small application behind a buffering server with small limits; granian serves it in a process of its own."""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from flask import Flask, Response, request

from buffering import NEEDS_THREAD, STREAMED, BufferingServer, Limits

WHOLE_WITHIN, IDLE_WITHIN = 6.0, 1.0
"""Seconds."""
BODY_MAX, IN_MEMORY, HELD_MAX = 20_000_000, 10_000, 30_000_000
"""Bytes."""
AT_ONCE = 100
"""Bytes of a body that is tried on the event loop."""
STREAMS, TAKEN_WITHIN, PIECE = 4, 4.0, 50_000
"""Answers at one time; seconds; bytes."""


class Broken(Exception):
    """An error that the application knows how to explain."""


def create_server() -> BufferingServer:
    """Echoes, makes long answers, breaks off, takes its time."""
    app = Flask("buffered", static_folder=None)

    @app.get("/livez")
    def livez() -> Response:
        return Response("ok")

    @app.post("/length")
    def length() -> Response:
        return Response(f"{len(request.get_data())}")

    @app.post("/slow")
    def slow() -> Response:
        time.sleep(3)
        return Response(f"{len(request.get_data())}")

    @app.get("/pieces/<int:number>")
    def pieces(number: int) -> Response:
        return Response((b"x" * 1000 for _ in range(number)), headers={"X-Made": str(number)})

    @app.get("/broken/<int:number>")
    def broken(number: int) -> Response:
        def made() -> Iterator[bytes]:
            for _ in range(number):
                yield b"x" * 1000
            raise Broken

        return Response(made())

    add_streams(app)

    add_tried(app)

    @app.errorhandler(Broken)
    def explained(error: Broken) -> tuple[str, int]:
        return "it broke", 502

    bodies = Limits(lambda _: BODY_MAX, IN_MEMORY, HELD_MAX, WHOLE_WITHIN, IDLE_WITHIN, chunked=False)
    limits = replace(bodies, streams=STREAMS, taken_within=TAKEN_WITHIN)
    return BufferingServer(app, limits, threads=2, large=1, at_once=_is_tried_at_once)


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


def add_tried(app: Flask) -> None:
    """What is tried on the event loop."""

    @app.post("/tried")
    def tried() -> Response:
        """Where it is served; whoever asks it to wait is not served on the event loop."""
        needs_thread = request.environ.get(NEEDS_THREAD)
        if needs_thread and "wait" in request.args:
            return needs_thread()
        if "wait" in request.args:
            time.sleep(3)
        body = request.get_data()
        return Response(f"{'loop' if needs_thread else 'thread'} {len(body)}")
