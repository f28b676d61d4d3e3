"""docs/notifications.md against a message that really came: its example, its five lines, its numbers."""

import json
import re
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from models.claims import claim_images
from models.record_reports import record_reports
from models.states import NotificationEvent
from models.transitions import StoredImage, record_stored, settle_batches
from models.verdict import Retry
from tests.support.factories import POLICY, answer, failure, make_submitted, success
from tests.support.notify_receiver import SECRET, owe, receiver, run
from tests.support.receiving import rows
from tests.support.servers import Received
from worker.lanes.notify import DELAYS
from worker.webhook_sender import TIMEOUT

PAGE = (Path(__file__).parents[3] / "docs" / "notifications.md").read_text()
CHANGING = ("timestamp", "batch_id", "created_at", "finished_at", "results_url", "storage_prefix")


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


def finished_batch(engine: Engine) -> Received:
    """The message about the batch of the page's example: 23 images, one failure."""
    with receiver(200) as wire:
        header = {"name": "catalogue", "client": "shop", "metadata": {"order": "4711"}, "notify_url": wire.url}
        with engine.begin() as connection:
            last, *others = make_submitted(connection, 24, **header)
            answers = [answer(submission, success()) for submission in others]
            record_reports(connection, [*answers, answer(last, failure("no_images", Retry.NEVER))], POLICY)
            due = claim_images(connection, limit=100, lease=60)
            record_stored(connection, [StoredImage(i.id, i.name, "ab", 1, "image/png", 1, 1) for i in due])
        with engine.begin() as connection:
            settle_batches(connection)
        assert run(engine) == 1
    return wire.received[0]


def flat(message: dict[str, Any]) -> dict[str, Any]:
    return {**{name: value for name, value in message.items() if name != "data"}, **message["data"]}


def shapes(message: dict[str, Any]) -> dict[str, Any]:
    """What is the same for every such batch as it is, of the rest its shape."""
    return {name: shape(value) if name in CHANGING else value for name, value in flat(message).items()}


def shape(text: str) -> str:
    # PostgreSQL leaves the last zeros of a fraction out
    return re.sub(r"[0-9a-f]", "0", re.sub(r"\.\d+", "", text))


def test_example_is_a_real_message(engine: Engine) -> None:
    """Every field that the example shows is sent, and no other; the page's five lines believe it."""
    request = finished_batch(engine)
    sent, shown = json.loads(request.body), json.loads(block("json"))
    assert list(sent) == sorted(shown, key=lambda name: (len(name), name))
    assert shapes(sent) == shapes(shown)
    assert rows(engine, "SELECT id::text FROM batches") == [(sent["data"]["batch_id"],)]

    space: dict[str, Any] = {}
    exec(block("python"), space)
    assert space["ended"](request.body, dict(request.headers), SECRET) == sent["data"]


def test_numbers_of_the_page(engine: Engine) -> None:
    """The events, the deadline and the delays are the code's."""
    assert re.findall(r"^\| `(batch\.\w+)`", PAGE, re.MULTILINE) == [event.value for event in NotificationEvent]
    assert f"within {TIMEOUT:.0f} seconds" in PAGE
    seconds, minutes, more, *hours = DELAYS
    assert (seconds, minutes, more) == (5, 5 * 60, 30 * 60)
    listed = ", ".join(f"{delay / 3600:.0f}" for delay in hours[:-1])
    assert f"after 5 seconds, 5 minutes, 30 minutes, then {listed} and {hours[-1] / 3600:.0f} hours" in PAGE


def test_page_says_how_to_make_a_secret(engine: Engine) -> None:
    """What the page's command makes is a secret."""
    command = re.search(r'python3 -c "(import base64.*?)"$', PAGE, re.MULTILINE)
    assert command
    made: list[str] = []
    exec(command[1], {"print": made.append})
    with receiver(200) as wire:
        owe(engine, wire.url)
        assert run(engine, notify_secret=made[0]) == 1
