"""Every way in which the emulator can misbehave, in one table: what it is called, when it may fire, what it does."""

from dataclasses import dataclass

from .verdicts import MODEL_ERRORS, REQUEST_ERRORS


class UnknownFault(ValueError):
    """There is no fault of this name, or its rule cannot be read."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One line of the table. `value` is what the fault may be tuned by: seconds, bytes or a status, as it says."""

    kind: str
    moment: str
    says: str
    value: float = 0.0


_MB = 2.0**20
TABLE = {
    fault.kind: fault
    for fault in (
        # before the request is accepted: nothing is queued, nothing is charged
        Fault("refuse_500", "submit", "answer 500 JSON without accepting"),
        Fault("nginx_502_before", "submit", "answer nginx's 502 page without accepting"),
        Fault("reset_before_accept", "submit", "reset the connection without accepting"),
        Fault("busy_429", "submit", "answer 429 without accepting"),
        Fault("bad_key_401", "submit", "answer 401 'invalid key credentials' without accepting"),
        Fault("locked_403", "submit", "answer 403 'User is locked' without accepting"),
        # after it is accepted: the request runs and is charged, only the reply is spoilt
        Fault("reset_after_accept", "reply", "accept, then reset the connection"),
        Fault("hang_after_accept", "reply", "accept, then never answer (seconds until the cut)", 300.0),
        Fault("nginx_502_after", "reply", "accept, then answer nginx's 502 page"),
        Fault("broken_json", "reply", "accept, then answer 200 with JSON that breaks off"),
        Fault("missing_fields", "reply", "accept, then answer 200 without request_id and URLs"),
        Fault("slow_submit", "reply", "accept, then answer late (seconds)", 3.0),
        Fault("webhook_before_reply", "reply", "answer only after the first webhook attempt (seconds at most)", 60.0),
        # status and result requests; the request itself is untouched
        Fault("status_500", "status", "status answers 500"),
        Fault("status_404", "status", "status answers 404 NOT_FOUND"),
        Fault("slow_status", "status", "status answers late (seconds)", 3.0),
        Fault("result_500", "result", "result answers a gateway's 500, without x-fal-request-id"),
        Fault("result_404", "result", "result answers 404 'Request not found'"),
        Fault("slow_result", "result", "result answers late (seconds)", 3.0),
        # the list of requests, once per page; a marker fires where a page would show its request
        Fault("listing_401", "listing", "by-endpoint answers 401"),
        Fault("listing_403", "listing", "by-endpoint answers 403"),
        Fault("listing_404", "listing", "by-endpoint answers 404"),
        Fault("listing_500", "listing", "by-endpoint answers 500"),
        Fault("slow_listing", "listing", "by-endpoint answers late (seconds)", 3.0),
        # how the model's run ends
        *(
            Fault(kind, "outcome", f"model error: {error.msg.partition('.')[0].lower()} (status)", error.status)
            for kind, error in MODEL_ERRORS.items()
        ),
        *(
            Fault(kind, "outcome", f"request error {status}: {text.lower()}")
            for kind, (status, text) in REQUEST_ERRORS.items()
            if kind not in ("client_cancelled", "runner_disconnected")  # a cancel does that; and the next one this
        ),
        Fault("completed_with_error", "outcome", "503 runner_disconnected: COMPLETED with error and error_type"),
        Fault("internal_retry", "outcome", "first attempt fails inside; gateway_request_id changes"),
        Fault("slow_run", "outcome", "the run takes longer (seconds)", 30.0),
        Fault("finish_despite_cancel", "outcome", "a cancelled run finishes and is charged all the same"),
        # what the result says about the images
        Fault("fewer_images", "shape", "one image fewer than asked for, at least one"),
        Fault("no_images", "shape", "200 with an empty list of images"),
        Fault("bare_images", "shape", "images carry only their url"),
        Fault("wrong_dimensions", "shape", "width and height are declared wrong"),
        Fault("wrong_size", "shape", "file_size is declared wrong"),
        Fault("one_wrong_size", "shape", "file_size of the last image is declared wrong"),
        # once per webhook
        Fault("drop_webhook", "delivery", "never deliver"),
        Fault("duplicate_webhook", "delivery", "deliver twice"),
        Fault("delay_webhook", "delivery", "deliver late (seconds)", 5.0),
        Fault("reorder_webhook", "delivery", "deliver after a later request's webhook (seconds at most)", 10.0),
        # once per attempt; every one of these is sent for real
        Fault("wrong_key", "attempt", "sign with a key that is not published"),
        Fault("rotated_key", "attempt", "rotate the key, then sign with the new one"),
        Fault("stale_timestamp", "attempt", "sign with an old timestamp (seconds ago)", 3600.0),
        Fault("tampered_body", "attempt", "change the body after signing"),
        Fault("other_user", "attempt", "sign for another account"),
        Fault("payload_error", "attempt", "payload null with payload_error"),
        Fault("null_payload", "attempt", "status OK with payload null"),
        Fault("null_error", "attempt", "status ERROR with payload null and 'Internal server error'"),
        Fault("huge_body", "attempt", "a very large body (bytes)", 8 * _MB),
        Fault("mismatched_id", "attempt", "body and header name different requests"),
        Fault("foreign_id", "attempt", "body and header name a request of somebody else"),
        # downloads of produced files
        Fault("cdn_404", "cdn", "the file is gone"),
        Fault("cdn_403", "cdn", "the file is forbidden"),
        Fault("cdn_slow", "cdn", "the file comes in drops (seconds in all)", 10.0),
        Fault("cdn_truncated", "cdn", "the connection breaks in the middle of the file"),
        Fault("cdn_cut", "cdn", "the same, and the rest can be asked for by Range"),
        Fault("cdn_wrong_type", "cdn", "Content-Type text/plain"),
        Fault("cdn_html", "cdn", "an HTML page with 200"),
        Fault("cdn_corrupt", "cdn", "damaged bytes of the right length"),
        Fault("cdn_oversized", "cdn", "padding behind the image (bytes)", 64 * _MB),
        Fault("cdn_redirect", "cdn", "302 to the same file under another URL"),
    )
}
BY_MOMENT: dict[str, list[Fault]] = {}
for _fault in TABLE.values():
    BY_MOMENT.setdefault(_fault.moment, []).append(_fault)


def known(kind: str) -> str:
    """The kind itself, or a sentence that there is none of this name."""
    if kind not in TABLE:
        raise UnknownFault(f"there is no fault {kind!r}; the kinds are: {', '.join(sorted(TABLE))}")
    return kind
