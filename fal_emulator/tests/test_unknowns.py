"""What fal does not say is an option (provider-protocol, end of section 13), and what it changes is seen outside."""

import json

import pytest

from fal_emulator.options import Options

from .emulator_process import EDIT, wait_for
from .test_input import GOOD

LISTING = "/v1/models/requests/by-endpoint"


def code_of_submit(emulator, _receiver):
    return emulator.submit_raw(json=GOOD).status_code


def error_in_status(emulator, _receiver):
    job = emulator.submit(num_images=99)
    emulator.finish(job)
    return emulator.status(job).json().get("error_type")


def stamps_of_two_attempts(emulator, receiver):
    receiver.answers = [500, 200]
    emulator.submit(receiver.url)
    return len({headers["X-Fal-Webhook-Timestamp"] for _, headers, _ in receiver.wait(2)})


def webhook_of_a_cancelled_request(emulator, receiver):
    job = emulator.submit(receiver.url)
    emulator.put(job["cancel_url"])
    emulator.finish(job)
    wait_for(lambda: emulator.row(job)["webhook"]["state"] != "pending")
    return emulator.row(job)["webhook"]["state"]


def pauses(emulator, receiver):
    """Whether both pauses were as long as the options say."""
    receiver.answers = [500, 500, 200]
    emulator.submit(receiver.url)
    receiver.wait(3)
    first, second = (after - before for before, after in zip(receiver.times, receiver.times[1:], strict=False))
    options = emulator.options
    return first >= options.webhook_backoff and second >= options.webhook_backoff * options.webhook_backoff_factor


def webhook_without_payload(emulator, receiver):
    emulator.submit(receiver.url)
    return "payload_error" in json.loads(receiver.wait()[0][2])


def large_body(emulator, _receiver):
    return emulator.submit_raw(json={**GOOD, "prompt": "x" * 5000}).status_code


def sixteen_images(emulator, _receiver):
    reply = emulator.run(image_urls=["u"] * 10, num_images=6)
    return len(reply.json()["images"]) if reply.status_code == 200 else reply.status_code


def charge_of_a_refusal(emulator, _receiver):
    job = emulator.submit(prompt="[[fault:content_policy_violation]]")
    emulator.finish(job)
    return emulator.row(job)["charges"]


def header_of_429(emulator, _receiver):
    return emulator.submit_raw(json={**GOOD, "prompt": "[[fault:busy_429]]"}).headers.get("Retry-After")


def listed_in_flight(emulator, _receiver):
    emulator.submit()
    return [item["status_code"] for item in emulator.get(LISTING, params={"endpoint_id": EDIT}).json()["items"]]


def page_of_three(emulator, _receiver):
    for job in [emulator.submit(seed=n) for n in range(3)]:
        emulator.finish(job)
    return len(emulator.get(LISTING, params={"endpoint_id": EDIT, "limit": 100}).json()["items"])


def expired(emulator, store_io):
    """What the result says once its hour is over, which is a tenth of a second here: one that ended later has gone."""
    jobs = []
    for kept in (store_io, "0"):
        jobs.append(emulator.submit(headers={"X-Fal-Store-IO": kept}))
        wait_for(lambda: emulator.row(jobs[-1])["state"] == "COMPLETED")
        emulator.finish(jobs[-1])
    job, later = jobs
    wait_for(lambda: emulator.get(later["response_url"]).status_code == 404)
    return emulator.get(job["response_url"])


def detail_after_expiry(emulator, _receiver):
    return expired(emulator, "0").json()["detail"]


def result_after_expiry(emulator, _receiver):
    return expired(emulator, "1").status_code


HOUR_IS_SHORT = {"time_scale": 36_000.0}
UNKNOWNS = [
    # option, what is looked at, what each value shows, what else is needed to see it
    ("submit_status", code_of_submit, {200: 200, 202: 202}, {}),
    ("status_error_for_422", error_in_status, {False: None, True: "less_than_equal"}, {}),
    ("webhook_fresh_timestamps", stamps_of_two_attempts, {True: 2, False: 1}, {"webhook_backoff": 1.1}),
    ("webhook_on_cancel", webhook_of_a_cancelled_request, {False: "none", True: "delivered"}, {"concurrency": 0}),
    ("webhook_backoff", pauses, {0.05: True, 0.2: True}, {}),
    ("webhook_backoff_factor", pauses, {1.0: True, 4.0: True}, {"webhook_backoff": 0.05}),
    ("webhook_max_body", webhook_without_payload, {0: False, 10: True}, {}),
    ("max_body", large_body, {1000: 413, 10_000: 200}, {}),
    ("over_fifteen", sixteen_images, {"refuse": 422, "clamp": 5}, {}),
    ("charge_422", charge_of_a_refusal, {False: 0, True: 1}, {}),
    ("retry_after", header_of_429, {0: None, 7: "7"}, {}),
    ("list_in_flight", listed_in_flight, {False: [], True: [None]}, {"concurrency": 0}),
    ("listing_page", page_of_three, {100: 3, 2: 2}, {}),
    ("expired_detail", detail_after_expiry, {"Request not found": "Request not found", "x": "x"}, HOUR_IS_SHORT),
    ("result_from_storage", result_after_expiry, {False: 404, True: 200}, HOUR_IS_SHORT),
]


@pytest.mark.parametrize(
    ("option", "look", "value", "expected", "more"),
    [(option, look, value, seen, more) for option, look, shown, more in UNKNOWNS for value, seen in shown.items()],
    ids=lambda given: given if isinstance(given, str) else None,
)
def test_an_unknown_is_an_option(make_emulator, receiver, option, look, value, expected, more):
    """Each value of the option, and what a client or a receiver sees of it."""
    emulator = make_emulator(**more, **{option: value})

    assert look(emulator, receiver) == expected


@pytest.mark.parametrize(("option", "shown"), [(option, shown) for option, _, shown, _ in UNKNOWNS])
def test_the_default_is_one_of_them(option, shown):
    """What was looked at includes the default, but for limits and pauses, which are smaller in tests."""
    default = Options.__dataclass_fields__[option].default

    assert default in shown or option in ("max_body", "webhook_backoff", "webhook_backoff_factor")
