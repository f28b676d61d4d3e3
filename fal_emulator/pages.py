"""The page at `/`: what this is, the totals, and the ledger request by request. It loads nothing from elsewhere."""

import time
from collections.abc import Iterable
from html import escape
from importlib.resources import files as resources
from urllib.parse import urlencode

from aiohttp import web

from . import BANNER, NAME
from .admin import counts
from .authentication import origin, refusal
from .cdn import LONG_CACHE
from .emulator import Emulator, emulator_of
from .job import Job
from .options import Options
from .rows import HEAD, STATES, chips, row

SHOWN = 50  # requests on one page
THIN = "\u2009"  # space between thousands
STYLE = (resources(__package__) / "page.css").read_text()

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<link rel="icon" href="data:,"><title>{name}</title><style>{style}</style></head><body><main>
<h1><span class="lamp"></span>{name}</h1>
<p class="notice">{banner}</p>
<p>Up {uptime}: {how}.</p>
<dl class="card totals">{totals}</dl>
<h2>Requests</h2>
<nav aria-label="Filter by state">{filters}</nav>
{requests}
<h2>Faults</h2>{faults}
<h2>For programs</h2>
<p><a href="/_emulator/ledger">ledger</a> · <a href="/_emulator/state">state</a> ·
<a href="/_emulator/faults">faults</a> · <a href="/.well-known/jwks.json">keys</a> ·
<a href="/v1/models">models</a></p>
</main></body></html>
"""

PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAP///wAAACwAAAAAAQABAAACAkQBADs="
NOTHING_YET = """<div class="card empty"><b>Nothing was submitted yet.</b>
<p>Point a client here, or try it by hand:</p>
<pre>curl -H 'Authorization: Key any:key' {url}/fal-ai/bytedance/seedream/v4/edit \\
     -d '{{"prompt": "a red hat", "image_urls": ["{pixel}"]}}'
</pre></div>"""


async def index(request: web.Request) -> web.Response:
    """`GET /?state=&before=`: the page for people, newest request first."""
    emulator, state = emulator_of(request), request.query.get("state", "")
    if state and state not in STATES:
        return refusal(404, f"state must be one of: {', '.join(STATES)}")
    before = request.query.get("before", "")
    jobs = _jobs(emulator, state, int(before) if before.isdecimal() and len(before) < 19 else 2**62)
    text = PAGE.format(
        name=NAME,
        style=STYLE,
        banner=escape(BANNER),
        uptime=_span(time.time() - emulator.started_at),
        how=escape(_manner(emulator.options)),
        totals="".join(f"<div><dt>{escape(k)}</dt><dd>{v}</dd></div>" for k, v in _totals(emulator)),
        filters="".join(_filter(name, word, count, state) for name, word, count in _filters(emulator)),
        requests=_requests(emulator, jobs, state, origin(request)),
        faults=_faults(emulator),
    )
    return web.Response(text=text, content_type="text/html")


def _jobs(emulator: Emulator, state: str, before: int) -> list[Job]:
    """One more than is shown, so that the page knows whether there are older ones."""
    where = f"{STATES[state][1] if state else 'TRUE'} AND seq < ?"
    return list(emulator.ledger.select(where, (before,), "seq DESC", SHOWN + 1))


def _manner(options: Options) -> str:
    speed = f", clocks {options.time_scale:g} times faster" if options.time_scale != 1 else ""
    pace = f"{options.concurrency} at once, about {options.latency:g} s each"
    return f"{pace}, {options.image_mode} images{speed}"


def _totals(emulator: Emulator) -> list[tuple[str, str]]:
    totals = emulator.ledger.totals
    figures = {
        "accepted": totals.accepted,
        "images made": totals.images,
        "charges": totals.charges,
        "webhooks owed": emulator.webhooks.owed,
        "faults injected": sum(emulator.faults.injected.values()),
    }
    cost = emulator.options.credits - emulator.balance
    return [*((name, _grouped(value)) for name, value in figures.items()), ("would have cost", f"${cost:,.2f}")]


def _filters(emulator: Emulator) -> Iterable[tuple[str, str, int]]:
    found = counts(emulator)
    failed = found["completed"] - found["succeeded"] - found["cancelled"]
    each = (found["in_queue"], found["in_progress"], found["succeeded"], failed, found["cancelled"])
    yield "", "All", found["accepted"]
    yield from ((name, word, count) for (name, (word, _)), count in zip(STATES.items(), each, strict=True))


def _filter(name: str, word: str, count: int, chosen: str) -> str:
    current = ' aria-current="page"' if name == chosen else ""
    return f'<a href="/{f"?state={name}" if name else ""}"{current}>{word}<small>{_grouped(count)}</small></a>'


def _requests(emulator: Emulator, jobs: list[Job], state: str, url: str) -> str:
    if not jobs and not emulator.ledger.totals.accepted:
        return NOTHING_YET.format(url=escape(url), pixel=PIXEL)
    if not jobs:
        return '<div class="card empty"><b>No request is in this state.</b></div>'
    shown, older = jobs[:SHOWN], ""
    if len(jobs) > SHOWN:
        query = urlencode({"before": shown[-1].seq, **({"state": state} if state else {})})
        older = f'<p class="older"><a href="/?{escape(query)}">older requests</a></p>'
    head = "".join(f"<th>{word}</th>" for word in HEAD)
    rows = "".join(row(emulator.catalogue, job) for job in shown)
    return f'<div class="card"><table><tr class="head">{head}</tr>{rows}</table></div>{older}'


def _faults(emulator: Emulator) -> str:
    plan = emulator.faults
    injected = chips(f"{kind} × {count}" for kind, count in sorted(plan.injected.items()))
    rates = chips(f"{kind} {rule.rate:.0%}" for kind, rule in sorted(plan.rules.items()))
    injections = f"<p>Injected so far:</p>{injected}" if plan.injected else "<p>None was injected so far.</p>"
    return injections + (f"<p>Drawn by chance:</p>{rates}" if plan.rules else "")


def _grouped(count: int) -> str:
    return f"{count:,}".replace(",", THIN)


def _span(seconds: float) -> str:
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min {int(seconds) % 60} s"


async def thumbnail(request: web.Request) -> web.Response:
    """`GET /_emulator/thumbnails/files/…`: a produced image, small."""
    emulator = emulator_of(request)
    found = emulator.files.find(request.match_info["path"])
    if found is None or found.request_id is None:
        return refusal(404, "File not found")
    data = await emulator.renderer.thumbnail(emulator.files.on_disk(found.path))
    return web.Response(body=data, content_type="image/jpeg", headers={"Cache-Control": LONG_CACHE})


def add_routes(app: web.Application) -> None:
    """Hang the page and its images up."""
    app.router.add_get("/", index)
    app.router.add_get("/_emulator/thumbnails/files/{path:.+}", thumbnail)
