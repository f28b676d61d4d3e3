"""What a reply of the queue means for whoever asked: a request id, a word, or an error that says what to do next."""

import json
from collections.abc import Mapping
from typing import NamedTuple

from core.errors import AccountPaused, Gone, Refused, TryLater, UnknownOutcome
from http_client.sessions import HttpResponse
from models.verdict import Verdict, read_result

GONE = "the queue answers 404"
PAUSES = {401: "invalid_key", 403: "locked", 429: "rate_limited"}


class Cancellation(NamedTuple):
    """What the provider says to a cancel: whether it accepted it, and its own word for it."""

    taken: bool
    status_text: str


def read_submit_reply(status: int, reply: bytes, headers: Mapping[str, str]) -> str:
    """The request id in the reply to the paid POST.

    Raises:
        AccountPaused, Refused, UnknownOutcome: see `QueueAPI.submit`.
    """
    if 200 <= status < 300:
        try:
            request_id = json.loads(reply)["request_id"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UnknownOutcome(f"a {status} without a request id") from error
        if not isinstance(request_id, str) or not 0 < len(request_id) <= 200 or not request_id.isprintable():
            raise UnknownOutcome(f"a {status} with an unusable request id")
        return request_id
    _raise_for_account(status, reply)
    said = read_result(status, reply, headers.get("X-Fal-Error-Type"))
    message = said.message or f"answered {status}"
    if 400 <= status < 500 and status not in (408, 409):
        raise Refused(status, said.error_type or f"http_{status}", message)
    # 408 and 409 tell nothing about acceptance, a 3xx or 5xx may come from either side of it
    raise UnknownOutcome(f"{status} {message}")


def _raise_for_account(status: int, reply: bytes) -> None:
    """401, 403 and 429 are about the account, whatever was asked (provider-protocol 5.4)."""
    if status in PAUSES:
        raise AccountPaused(PAUSES[status], read_result(status, reply).message or f"answered {status}")


def raise_for_question(status: int, reply: bytes) -> None:
    """The refusals of a question that are none of the request's own outcome.

    Raises:
        AccountPaused: the account is refused.
        Gone: the queue does not know the request (any more).
    """
    _raise_for_account(status, reply)
    if status == 404:
        raise Gone(GONE)


class Outcome(NamedTuple):
    """The queue's own answer to a result GET, and what it means."""

    answer: HttpResponse
    verdict: Verdict


def read_outcome(answer: HttpResponse, *, failed: bool) -> Outcome:
    """What the answer to a result GET says; a 4xx or 5xx is the job's own verdict (provider-protocol 2.4).

    A 5xx without `x-fal-request-id` may be a gateway's trouble (provider-protocol 14.7). Taken for the job's, it
    would have a success paid for again; so it is believed only where the status said `failed` too. A 401, 403
    or 429 is about our key or our pace, unless the queue's own answer names an error type: gateways name none
    (provider-protocol 5.4), and a job that ended so would be asked about until its result expires.

    Raises:
        Gone, AccountPaused, TryLater: see `QueueAPI.outcome`.
    """
    status, body, headers = answer
    verdict = read_result(status, body, headers.get("X-Fal-Error-Type"), headers.get("X-Fal-Billable-Units"))
    the_queues_own = failed or "x-fal-request-id" in headers
    if status in PAUSES and not (the_queues_own and verdict.error_type):
        raise AccountPaused(PAUSES[status], verdict.message or f"answered {status}")
    if status == 404:
        raise Gone(GONE)
    if status == 400 and b"still in progress" in body:
        raise TryLater("still in progress")
    if status >= 500 and not the_queues_own:
        raise TryLater(f"a gateway answered {status}")
    return Outcome(answer, verdict)


def status_text(reply: bytes) -> str | None:
    """The `status` of a short answer; None where it is no word."""
    try:
        status_text = json.loads(reply)["status"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return (
        status_text if isinstance(status_text, str) and status_text.isprintable() and len(status_text) <= 100 else None
    )
