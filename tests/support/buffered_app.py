"""A small application behind a front with small bounds; granian serves `create_server` in a process of its own."""

import time
from collections.abc import Iterator

from flask import Flask, Response, request

from buffering import BufferingServer, Limits

WHOLE_WITHIN, IDLE_WITHIN = 6.0, 1.0
"""Seconds."""
BODY_MAX, IN_MEMORY, HELD_MAX = 20_000_000, 10_000, 30_000_000
"""Bytes."""


class Broken(Exception):
    """An error that the application knows how to explain."""


def create_server() -> BufferingServer:
    """Echoes, makes long answers, breaks off, takes its time."""
    app = Flask("buffered", static_folder=None)

    @app.get("/healthz")
    def healthz() -> Response:
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

    @app.errorhandler(Broken)
    def explained(error: Broken) -> tuple[str, int]:
        return "it broke", 502

    limits = Limits(lambda _: BODY_MAX, IN_MEMORY, HELD_MAX, WHOLE_WITHIN, IDLE_WITHIN, chunked=False)
    return BufferingServer(app, limits, threads=2, large=1)
