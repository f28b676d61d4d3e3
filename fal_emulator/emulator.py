"""The parts of one running emulator and how they hang together; routes find it under the key `EMULATOR`."""

import asyncio
import contextlib
import logging
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator
from dataclasses import fields, replace
from typing import Any

import aiohttp
from aiohttp import web

from .catalogue import EDIT, Catalogue
from .fault_plan import FaultPlan
from .files import Files
from .inputs import Inputs
from .job import Job
from .ledger import Ledger
from .options import DAY, Options
from .reads import Reads
from .renderer import Renderer
from .runner import Runner
from .seedream import Seedream
from .signing_keys import SigningKeys
from .store import Store
from .webhook_payloads import WebhookPayloads
from .webhooks import Webhooks, expires_at

log = logging.getLogger(__name__)

JANITOR_EVERY = 5.0  # seconds
STORAGE_PERIOD = 30 * DAY  # how long payloads are kept (provider-protocol 6)


class Emulator:
    """Everything that belongs to one state folder."""

    def __init__(self, options: Options, session: aiohttp.ClientSession) -> None:
        self.options = options
        self.started_at = time.time()
        self.store = Store(options.state_dir)
        self.secret = self._secret()
        self.ledger = Ledger(self.store)
        self.reads = Reads(self.store)
        self.keys = SigningKeys(self.store, padded=options.padded_jwks)
        self.faults = FaultPlan(self.store, options.fault_seed, options.fault)
        self.files = Files(self.store, options, self.secret)
        self.renderer = Renderer(self.files, options.render_threads)
        seedream = Seedream(Inputs(session, self.files, options), self.files, self.renderer, self.faults)
        self.catalogue = Catalogue(seedream, self.files)
        payloads = WebhookPayloads(self.ledger, self.keys, lambda: self.options)
        self.webhooks = Webhooks(session, self.ledger, self.store, payloads, self.faults, lambda: self.options)
        self.runner = Runner(self.ledger, self.store, lambda: self.options, self.catalogue.run, self.webhooks.start)
        self._chores: list[asyncio.Task[None]] = []

    def _secret(self) -> bytes:
        row = self.store.one("SELECT value FROM secrets WHERE name = 'paths'")
        if row:
            return bytes(row[0])
        secret = secrets.token_bytes(32)
        self.store.write("INSERT INTO secrets VALUES ('paths', ?)", (secret,))
        return secret

    def start(self) -> None:
        """Take up what was left over and begin the chores."""
        self.webhooks.resume()
        self.runner.resume()
        chores = (self.store.checkpoint_forever(), self._janitor())
        self._chores = [asyncio.create_task(chore) for chore in chores]

    async def stop(self) -> None:
        """Stop in an order that leaves nothing half-written."""
        for chore in self._chores:
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)
        await self.runner.stop()
        await self.webhooks.stop()
        self.renderer.close()
        self.store.close()

    async def _janitor(self) -> None:
        while True:
            await asyncio.sleep(JANITOR_EVERY)
            try:
                self._tidy_up()
            except (OSError, sqlite3.Error):
                log.exception("tidying up went wrong; the next turn tries again")

    def _tidy_up(self) -> None:
        self.files.purge_expired()
        self.files.purge_abandoned()
        now, scaled = time.time(), self.options.scaled
        self.ledger.purge_payloads(now - scaled(STORAGE_PERIOD), now - scaled(self.options.result_retention))

    def change(self, changes: dict[str, Any]) -> None:
        """Turn live knobs; others are refused with a sentence."""
        live = {field.name for field in fields(Options) if field.metadata.get("live")}
        if unknown := sorted(set(changes) - live):
            raise ValueError(f"cannot change {', '.join(unknown)} at run time; what can be: {', '.join(sorted(live))}")
        self.options = replace(self.options, **changes)
        self.runner.fill()

    @property
    def balance(self) -> float:
        """Dollars left on the account."""
        return self.options.credits - self.ledger.totals.charges * self.catalogue.price(EDIT)

    def find(self, request_id: str) -> Job | None:
        """A request, wherever it is now."""
        return self.runner.live.get(request_id) or self.ledger.find(request_id)

    def result_is_readable(self, job: Job) -> bool:
        """Retention of the stored result (provider-protocol 2.4)."""
        options, now = self.options, time.time()
        if now < expires_at(job, options):
            return True
        stored = options.store_io and job.store_io and job.result_bytes <= 2**20
        return options.result_from_storage and stored and now < (job.ended_at or now) + options.scaled(STORAGE_PERIOD)


EMULATOR = web.AppKey("emulator", Emulator)


def emulator_of(request: web.Request) -> Emulator:
    """The emulator that serves this request."""
    return request.config_dict[EMULATOR]


@contextlib.asynccontextmanager
async def running(options: Options) -> AsyncIterator[Emulator]:
    """An emulator from start to stop."""
    connector = aiohttp.TCPConnector(limit=0, force_close=False)
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        headers={"User-Agent": "fal-emulator/1"},
    ) as session:
        emulator = Emulator(options, session)
        emulator.start()
        try:
            yield emulator
        finally:
            await emulator.stop()
