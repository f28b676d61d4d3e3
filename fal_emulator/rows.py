"""One request as a row of the page: HTML that is safe, whatever a client sent."""

import json
import time
from collections.abc import Iterable
from html import escape
from urllib.parse import urlsplit

from .catalogue import Catalogue
from .cdn import UNSPOILT
from .job import Job

IMAGES_SHOWN = 6
HEAD = ("accepted", "request", "state", "images", "charge", "webhook", "faults")
STATES = {
    "queued": ("In queue", "started_at IS NULL AND ended_at IS NULL"),
    "running": ("In progress", "started_at IS NOT NULL AND ended_at IS NULL"),
    "succeeded": ("Succeeded", "status = 200"),
    "failed": ("Failed", "status <> 200 AND error_type IS NOT 'client_cancelled'"),
    "cancelled": ("Cancelled", "error_type = 'client_cancelled'"),
}
"""What the page can be filtered by: its word, and the rows that it means."""


def row(catalogue: Catalogue, job: Job) -> str:
    """One request; every cell is HTML that is safe already."""
    took = "" if job.ended_at is None else f"<small>{job.ended_at - job.submitted_at:.1f} s</small>"
    state = _state(job)
    outcome = f"{job.status} {job.error_type or ''}".strip() if state == "failed" else ""
    seed = "" if job.seed is None else f"<span>seed {job.seed}</span>"
    cells = {
        "when": time.strftime("%H:%M:%S", time.localtime(job.submitted_at)) + took,
        "request": f"<code>{escape(job.request_id)}</code><small>{escape(job.endpoint_id)} {seed}</small>",
        "state": f'<span class="pill {state}">{STATES[state][0].lower()}</span><small>{escape(outcome)}</small>',
        "images": _images(job),
        "charge": _charge(job, catalogue.price(job.endpoint_id)),
        "webhook": _webhook(job),
        "faults": chips(job.injected.split(",")) if job.injected else "",
    }
    return "<tr>" + "".join(f'<td class="{name}">{cell}</td>' for name, cell in cells.items()) + "</tr>"


def _state(job: Job) -> str:
    if job.ended_at is None:
        return "queued" if job.started_at is None else "running"
    if job.error_type == "client_cancelled":
        return "cancelled"
    return "succeeded" if job.status == 200 else "failed"


def _charge(job: Job, price: float) -> str:
    if job.billed_units:
        return f"${job.billed_units * price:.2f}<small>{job.billed_units} charged</small>"
    return "" if job.ended_at is None else "<small>no charge</small>"


def _webhook(job: Job) -> str:
    if not job.webhook_url:
        return "<small>no webhook</small>"
    if job.webhook_state == "none":
        return f"<small>{'webhook not yet due' if job.ended_at is None else 'none for a cancel'}</small>"
    attempts = f"{job.webhook_tries} attempt{'' if job.webhook_tries == 1 else 's'}"
    trouble = job.webhook_state != "delivered" and job.webhook_status is not None
    answer = f", last answer {job.webhook_status}" if trouble else ""
    word = job.webhook_state
    return f'<span title="{escape(job.webhook_url)}">{word}</span><small>{attempts}{answer}</small>'


def _images(job: Job) -> str:
    """Thumbnails by path, so that the page shows them whatever host name the client used."""
    urls = [image["url"] for image in json.loads(job.images) if not image["url"].startswith("data:")]
    paths = [escape(urlsplit(url).path) for url in urls[:IMAGES_SHOWN]]
    shown = (  # looking must not use faults up
        f'<a href="{path}?{UNSPOILT}=1"><img src="/_emulator/thumbnails{path}" alt="" loading="lazy"></a>'
        for path in paths
    )
    return f"<span>{''.join(shown)}</span>" if paths else ""


def chips(words: Iterable[str]) -> str:
    """Words in little frames."""
    return f'<div class="chips">{"".join(f"<code>{escape(word)}</code>" for word in words)}</div>'
