"""The run host: synchronous calls and the word stream, as far as the official client's tests need them.

A direct call is charged like a queued one, and its result is lost with its connection (provider-protocol 2.6).
"""

import asyncio

from aiohttp import web

from .authentication import refusal
from .catalogue import spoken_words
from .emulator import emulator_of
from .queue import outcome_headers
from .submit import UNREADABLE, bad_request, endpoint_of, read_request

WORD_PAUSE = 0.02  # seconds between two streamed events


async def run(request: web.Request) -> web.StreamResponse:
    """`POST https://fal.run/{endpoint}`: run at once and answer with the model's own reply."""
    emulator, endpoint = emulator_of(request), endpoint_of(request)
    if isinstance(endpoint, web.Response):
        return endpoint
    if emulator.runner.running >= emulator.options.concurrency:
        headers = {"X-Fal-needs-retry": "1", "X-Fal-Error-Type": "concurrent_requests_limit"}
        return refusal(429, "Concurrent requests limit reached", **headers)
    body = await request.read()
    try:
        job = read_request(request, endpoint, body, direct=True)
    except UNREADABLE as error:
        return bad_request(error)
    emulator.ledger.accept(job, body)
    await emulator.store.committed()
    emulator.runner.start(job)
    await emulator.runner.wait(job)
    headers = {"x-fal-request-id": job.request_id, **outcome_headers(job)}
    output = emulator.ledger.output(job)
    return web.Response(body=output, status=job.status or 500, content_type="application/json", headers=headers)


async def stream(request: web.Request) -> web.StreamResponse:
    """`POST https://fal.run/{endpoint}/stream`: words one by one, as server-sent events."""
    if isinstance(refused := endpoint_of(request), web.Response):
        return refused
    reply = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await reply.prepare(request)
    for event in spoken_words():
        await reply.write(f"data: {event}\n\n".encode())
        await asyncio.sleep(WORD_PAUSE)
    return reply
