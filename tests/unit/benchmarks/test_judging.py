"""The judge sees each kind of fault: books that balance, then the same books with one thing wrong in them."""

import shlex
from collections import Counter
from dataclasses import replace as with_fields
from pathlib import Path

import pytest

from benchmarks.audit import Audit, handed_in_wrongly, judge
from benchmarks.books import Batch, Books, Edit, File, Image, Request, Submission, canonical_sha256, read_request
from benchmarks.faults import VICTIMS
from benchmarks.manifests import NO_OBJECT, Manifest
from benchmarks.notified import Message, wrong_notifications
from benchmarks.system import part_of
from cli.stack.processes import Stage, emulator, intake, local_workers, receiver

UNKNOWN_DEADLINE = 24.0
INPUTS = {n: {"prompt": "p", "seed": 1, "image_urls": [f"data:,{n}"]} for n in (1, 2)}


def request(name: str, number: int = 1, **changed: object) -> Request:
    """A charged success for input `number`, told at once."""
    made = Request(
        id=f"r-{name}",
        token=f"s-{name}",
        foreign=False,
        input_sha256=canonical_sha256(INPUTS[number]),
        submitted_at=100.0,
        ended_at=101.0,
        status=200,
        error_type=None,
        charges=1,
        files=(File(f"sha-{name}", 1, 0),),
        faults=frozenset(),
        listed=True,
        told_at=101.5,
    )
    return made._replace(**changed)  # type: ignore[arg-type]


UNCHARGED = {"status": 500, "charges": 0, "files": (), "error_type": "internal_server_error"}


def edit(number: int = 1, **changed: object) -> Edit:
    made = Edit(number, "b", number, None, "stored", True, INPUTS[number], None)
    return made._replace(**changed)  # type: ignore[arg-type]


def submission(name: str, number: int = 1, **changed: object) -> Submission:
    made = Submission(f"s-{name}", number, f"r-{name}", "succeeded", 1, False, 0.03)
    return made._replace(**changed)  # type: ignore[arg-type]


def books(
    requests: list[Request],
    submissions: list[Submission],
    edits: list[Edit],
    stored: dict[str, int],
    batch: Batch | None = None,
) -> Books:
    """Books in which of each named submission, image 0 is stored for the edit of that number."""
    images = [Image(f"s-{name}", 0, f"b/{number}/0.png", f"sha-{name}") for name, number in stored.items()]
    return Books(
        requests={one.id: one for one in requests},
        edits={one.id: one for one in edits},
        submissions={one.id: one for one in submissions},
        images=images,
        batches={"b": batch or Batch("b", "b", 200.0, None, None, None, None, None)},
        objects={image.key: image.sha256 for image in images},
        imbalances=[],
        callbacks={},
    )


def balanced() -> Books:
    """Two edits, each charged once and stored."""
    return books(
        [request("a"), request("b", 2)],
        [submission("a"), submission("b", 2)],
        [edit(1), edit(2)],
        {"a": 1, "b": 2},
    )


def seen(found: Audit) -> dict[str, int]:
    """How much is wrong, by kind."""
    kinds = ("lost", "double_paid", "wrong_images", "missing_images", "unexplained")
    return {kind: len(getattr(found, kind)) for kind in kinds if getattr(found, kind)}


def test_balanced_books_are_clean() -> None:
    """Nothing is found where nothing is wrong."""
    assert seen(judge(balanced(), unknown_deadline=UNKNOWN_DEADLINE)) == {}


def test_another_edits_image() -> None:
    """Two edits swapped their requests: the database agrees with itself, and both images are wrong."""
    crossed = books(
        [request("a"), request("b", 2)],
        [submission("a", request_id="r-b"), submission("b", 2, request_id="r-a")],
        [edit(1), edit(2)],
        {},
    )._replace(
        images=[Image("s-a", 0, "b/1/0.png", "sha-b"), Image("s-b", 0, "b/2/0.png", "sha-a")],
        objects={"b/1/0.png": "sha-b", "b/2/0.png": "sha-a"},
    )
    assert seen(judge(crossed, unknown_deadline=UNKNOWN_DEADLINE)) == {"wrong_images": 4}


def test_twins_may_swap() -> None:
    """Of two requests that are the same in every respect either may be taken, once."""
    twins = {**INPUTS, 2: INPUTS[1]}
    crossed = books(
        [request("a"), request("b")],
        [submission("a", request_id="r-b"), submission("b", 2, request_id="r-a")],
        [edit(1), edit(2, input=twins[2])],
        {},
    )._replace(
        images=[Image("s-a", 0, "b/1/0.png", "sha-b"), Image("s-b", 0, "b/2/0.png", "sha-a")],
        objects={"b/1/0.png": "sha-b", "b/2/0.png": "sha-a"},
    )
    assert seen(judge(crossed, unknown_deadline=UNKNOWN_DEADLINE)) == {}


def test_a_twin_and_another_program() -> None:
    """One edit has its twin's request, the twin another program's equal one: each was posted once, none is doubled."""
    taken = books(
        [request("a"), request("b"), request("f", foreign=True, token="")],
        [submission("a", request_id="r-b"), submission("b", 2, request_id="r-f")],
        [edit(1), edit(2, input=INPUTS[1])],
        {},
    )._replace(
        images=[Image("s-a", 0, "b/1/0.png", "sha-b"), Image("s-b", 0, "b/2/0.png", "sha-f")],
        objects={"b/1/0.png": "sha-b", "b/2/0.png": "sha-f"},
    )
    assert seen(judge(taken, unknown_deadline=UNKNOWN_DEADLINE)) == {}


def test_another_programs_request() -> None:
    """Taken for an edit of another input: wrong; its charge is not ours."""
    taken = balanced()
    stranger = request("a", 2, foreign=True, token="")
    found = judge(taken._replace(requests={**taken.requests, "r-a": stranger}), unknown_deadline=UNKNOWN_DEADLINE)
    assert seen(found) == {"wrong_images": 2}
    assert found.charges == 1


SECOND = {
    "too early": ({"told_at": None, "listed": False}, 110.0, False),
    "told before": ({"told_at": 101.5}, 130.0, False),
    "listed before": ({"told_at": None}, 130.0, False),
    "told afterwards, listed before": ({"told_at": 140.0}, 130.0, False),
    "told before, though never listed": ({"told_at": 129.0, "listed": False}, 130.0, False),
    "still running": ({"told_at": 140.0, "ended_at": 139.0}, 130.0, True),
    "ended too late, just after the listing was read": ({"told_at": None, "ended_at": 138.0}, 140.0, True),
    "ended too late, and was long listed": ({"told_at": None, "ended_at": 134.0}, 140.0, False),
    "ended in time, and was listed": ({"told_at": None, "ended_at": 121.0}, 125.0, False),
    "never heard of, in no listing": ({"told_at": None, "listed": False}, 130.0, True),
}


@pytest.mark.parametrize(("first", "posted_at", "excused"), SECOND.values(), ids=SECOND)
def test_a_second_charge(first: dict[str, object], posted_at: float, *, excused: bool) -> None:
    """It has its excuse only past the unknown deadline, of a first request that could not be known of."""
    second = request("a2", submitted_at=posted_at, ended_at=posted_at + 1, told_at=posted_at + 2)
    twice = books(
        [request("a", **first), second],
        [submission("a", doubled=True), submission("a2")],
        [edit(1)],
        {"a2": 1},
    )
    found = judge(twice, unknown_deadline=UNKNOWN_DEADLINE)
    assert seen(found) == ({} if excused else {"double_paid": 1})
    assert found.doubled_recorded == excused


@pytest.mark.parametrize(("given_up", "excused"), [(127.0, True), (139.0, False), (110.0, False)])
def test_who_must_wait_after_it_was_given_up(given_up: float, *, excused: bool) -> None:
    """The first ended after it was rightly given up, while the edit waited; not if it was listed then, or not due."""
    second = request("a2", submitted_at=160.0, ended_at=161.0, told_at=162.0)
    twice = books(
        [request("a", told_at=None, ended_at=130.0), second],
        [submission("a", request_id=None, outcome="unknown", images_returned=None), submission("a2")],
        [edit(1, given_up=(given_up,))],
        {"a2": 1},
    )
    assert seen(judge(twice, unknown_deadline=UNKNOWN_DEADLINE)) == ({} if excused else {"double_paid": 1})


@pytest.mark.parametrize(
    ("told_at", "given_up", "excused"), [(159.5, 158.0, True), (159.5, 159.8, False), (158.5, 158.0, False)]
)
def test_what_is_told_while_the_next_is_sent(told_at: float, given_up: float, *, excused: bool) -> None:
    """It comes between the claim and the arrival of the POST; not before it was given up, nor much earlier."""
    second = request("a2", submitted_at=160.0, ended_at=161.0, told_at=162.0)
    twice = books(
        [request("a", told_at=told_at, ended_at=157.5), second],
        [submission("a", doubled=True), submission("a2")],
        [edit(1, given_up=(given_up,))],
        {"a2": 1},
    )
    assert seen(judge(twice, unknown_deadline=UNKNOWN_DEADLINE)) == ({} if excused else {"double_paid": 1})


def test_what_was_not_charged_needs_no_excuse() -> None:
    """A failed request, and at once the next one."""
    again = books(
        [request("a", **UNCHARGED), request("a2", submitted_at=101.0)],
        [submission("a", outcome="failed", images_returned=None), submission("a2")],
        [edit(1)],
        {"a2": 1},
    )
    assert seen(judge(again, unknown_deadline=UNKNOWN_DEADLINE)) == {}


def test_rows_that_lie_about_money() -> None:
    """`doubled` where one was charged; a double charge that no row tells of; a charge that the row says failed."""
    one = balanced()
    flagged = {**one.submissions, "s-a": submission("a", doubled=True)}
    assert seen(judge(one._replace(submissions=flagged), unknown_deadline=UNKNOWN_DEADLINE)) == {"unexplained": 1}
    failed = {**one.submissions, "s-a": submission("a", outcome="failed", images_returned=None)}
    assert seen(judge(one._replace(submissions=failed), unknown_deadline=UNKNOWN_DEADLINE)) == {"unexplained": 1}
    for cost in (0.06, None):
        dear = {**one.submissions, "s-a": submission("a", cost=cost)}
        assert seen(judge(one._replace(submissions=dear), unknown_deadline=UNKNOWN_DEADLINE)) == {"unexplained": 1}


@pytest.mark.parametrize(
    ("progress", "found"),
    [((2, 0, 0, 0.06), {}), ((1, 1, 0, 0.06), {"unexplained": 1}), ((2, 0, 0, 0.03), {"unexplained": 1})],
)
def test_views_that_lie_about_a_batch(progress: tuple[int, int, int, float], found: dict[str, int]) -> None:
    """They rest on counters, which may have missed what the rows say."""
    one = balanced()
    shown = {"b": one.batches["b"]._replace(progress=progress)}
    assert seen(judge(one._replace(batches=shown), unknown_deadline=UNKNOWN_DEADLINE)) == found


def test_an_overwritten_object() -> None:
    """What lies in storage is neither what the row says nor what the provider made for it."""
    late = balanced()
    found = judge(
        late._replace(objects={**late.objects, "b/1/0.png": "sha-of-another"}), unknown_deadline=UNKNOWN_DEADLINE
    )
    assert seen(found) == {"wrong_images": 2}


def test_missing_and_nameless_objects() -> None:
    """A stored image that is not there; an object that no row names; a set that is not whole."""
    there = balanced()
    gone = judge(there._replace(objects={"b/2/0.png": "sha-b", "b/9/0.png": "x"}), unknown_deadline=UNKNOWN_DEADLINE)
    assert seen(gone) == {"missing_images": 1, "unexplained": 1}
    two = request("a", charges=2, files=(File("sha-a", 1, 0), File("sha-a1", 1, 0)))
    half = there._replace(
        requests={**there.requests, "r-a": two},
        submissions={**there.submissions, "s-a": submission("a", images_returned=2, cost=0.06)},
    )
    assert seen(judge(half, unknown_deadline=UNKNOWN_DEADLINE)) == {"missing_images": 1}


def test_paid_for_and_not_delivered() -> None:
    """Failed for our own trouble is lost; failed because the provider kept the image back is not."""
    for error_type, kept_back, lost in (
        ("storage_error", File("sha-a", 3, 1), True),
        ("result_expired", File("sha-a", 0, 0), True),
        ("http_404", File("sha-a", 0, 8), False),
    ):
        left = books([request("a", files=(kept_back,))], [submission("a")], [], {})
        found = judge(
            left._replace(edits={1: edit(1, state="failed", error_type=error_type)}), unknown_deadline=UNKNOWN_DEADLINE
        )
        assert seen(found) == ({"lost": 1} if lost else {}), error_type


@pytest.mark.parametrize(("ended_at", "lost"), [(120.0, True), (130.0, False)])
def test_what_nobody_told_may_be_unknown_only_past_every_allowance(ended_at: float, *, lost: bool) -> None:
    """The edit failed by its second request; its first one made an image of which nothing was ever heard."""
    first = request("a", ended_at=ended_at, told_at=None)
    second = request("b", submitted_at=140.0, ended_at=141.0, told_at=141.5, faults=frozenset({"wrong_size"}))
    unheard = submission("a", request_id=None, outcome="unknown", images_returned=None)
    left = books([first, second], [unheard, submission("b")], [], {})
    left = left._replace(edits={1: edit(1, state="failed", error_type="size_mismatch")})
    assert bool(judge(left, unknown_deadline=UNKNOWN_DEADLINE).lost) is lost


def test_edits_that_do_not_end() -> None:
    """Neither final, nor finished."""
    stuck = books(
        [request("a", **UNCHARGED)],
        [submission("a", outcome="failed", images_returned=None)],
        [edit(1, state="pending", final=False)],
        {},
        Batch("b", "b", None, None, None, None, None, None),
    )
    assert seen(judge(stuck, unknown_deadline=UNKNOWN_DEADLINE)) == {"lost": 1, "unexplained": 1}


def test_failures_must_stand_in_the_ledger() -> None:
    """The reason is the provider's; an incident of the whole model is none."""
    for said, happened, wrong in (
        ("internal_server_error", "internal_server_error", 0),
        ("internal_server_error", "generation_timeout", 1),
        ("downstream_service_unavailable", "downstream_service_unavailable", 1),
        ("no_images", "internal_server_error", 1),
    ):
        failed = books(
            [request("a", **{**UNCHARGED, "error_type": happened})],
            [submission("a", outcome="failed", images_returned=None)],
            [edit(1, state="failed", error_type=said)],
            {},
        )
        assert len(judge(failed, unknown_deadline=UNKNOWN_DEADLINE).unexplained) == wrong, said


def test_limits_of_a_batch() -> None:
    """More cost than allowed, POSTs after a cancel, a limit that was broken untruly, cancelled by nobody."""
    whole = balanced()
    batch = whole.batches["b"]
    for changed, count in (
        ({"max_cost": 0.06}, 0),
        ({"max_cost": 0.05}, 1),
        ({"cancelled_at": 99.5}, 0),
        ({"cancelled_at": 50.0}, 1),
        ({"tolerated_failures": 0}, 0),
        ({"tolerated_failures": 0, "broken_criterion": "tolerated_failures"}, 1),
    ):
        found = judge(whole._replace(batches={"b": batch._replace(**changed)}), unknown_deadline=UNKNOWN_DEADLINE)
        assert len(found.unexplained) == count, changed
    nobody = books([], [], [edit(1, state="cancelled")], {})
    assert seen(judge(nobody, unknown_deadline=UNKNOWN_DEADLINE)) == {"unexplained": 1}


def test_requests_that_nobody_answers_for() -> None:
    """A POST that was never written down; a row that names a request which is none."""
    whole = balanced()
    unwritten = judge(
        whole._replace(requests={**whole.requests, "r-x": request("x")}), unknown_deadline=UNKNOWN_DEADLINE
    )
    assert seen(unwritten) == {"unexplained": 1}
    invented = {**whole.submissions, "s-x": submission("x", outcome="failed", images_returned=None)}
    assert seen(judge(whole._replace(submissions=invented), unknown_deadline=UNKNOWN_DEADLINE)) == {"unexplained": 1}


URL = "http://127.0.0.1:1/ended"


def message(event: str = "batch.finished", **counts: int) -> Message:
    data = {"batch_id": "b", "stored": 2, "failed": 0, "cancelled": 0, **counts}
    return Message("m", verified=True, event=event, data=data)


@pytest.mark.parametrize(
    ("messages", "wrong"),
    [
        ([message()], 0),
        ([message(), message()], 0),
        ([], 1),
        ([message("batch.failed")], 1),
        ([message(stored=1, failed=1)], 1),
        ([message()._replace(verified=False)], 1),
        ([message(), message(stored=1)], 1),
    ],
    ids=["told", "twice", "never", "another event", "other counts", "unsigned", "one id, two contents"],
)
def test_notifications(messages: list[Message], wrong: int) -> None:
    """Each batch that ended was told as it is, signed, once or more; the same id never tells two things."""
    whole = balanced()
    with_notify = whole._replace(batches={"b": whole.batches["b"]._replace(notify_url=URL)})
    assert len(list(wrong_notifications(with_notify, URL, messages))) == wrong
    assert list(wrong_notifications(whole, URL, messages)) or not messages


def test_batches_are_what_was_handed_in() -> None:
    """Not there, there twice, an edit too few, an edit that is not its line."""
    whole = balanced()
    edits = {1: edit(1, position=0), 2: edit(2, position=1)}
    whole = whole._replace(edits=edits)
    lines = [INPUTS[1], {name: value for name, value in INPUTS[2].items() if name != "seed"}]
    assert list(handed_in_wrongly(whole, [Manifest("b", "api", lines)])) == []
    assert len(list(handed_in_wrongly(whole, [Manifest("c", "api", lines)]))) == 1
    twice = whole._replace(batches={**whole.batches, "b2": whole.batches["b"]._replace(id="b2")})
    assert len(list(handed_in_wrongly(twice, [Manifest("b", "api", lines)]))) == 1
    assert len(list(handed_in_wrongly(whole, [Manifest("b", "api", [*lines, INPUTS[1]])]))) == 2
    assert len(list(handed_in_wrongly(whole, [Manifest("b", "api", list(reversed(lines)))]))) == 2


def test_the_ledger_is_read_as_it_is() -> None:
    """A row of the emulator's JSON: first word that got through, files with their counts, whose it is."""
    reads = {"intact": 0, "spoilt": 2, "first_at": None}
    row = {
        "request_id": "r",
        "webhook_url": "http://x/webhooks/fal/s",
        "headers": {"User-Agent": "other-program/1"},
        "input_sha256": "i",
        "submitted_at": 1.0,
        "ended_at": 2.0,
        "outcome": 200,
        "error_type": None,
        "charges": 1,
        "sha256": ["f"],
        "faults": ["drop_webhook"],
        "store_io": True,
        "webhook": {"delivered_at": None},
        "reads": {"result": {"intact": 1, "spoilt": 0, "first_at": 3.0}, "files": [reads]},
    }
    read = read_request(row)
    assert (read.token, read.foreign, read.told_at, read.files) == ("s", True, 3.0, (File("f", 0, 2),))
    for faults, told_at in ((["drop_webhook"], 2.5), (["mismatched_id"], 3.0)):
        assert read_request({**row, "faults": faults, "webhook": {"delivered_at": 2.5}}).told_at == told_at


def test_every_process_is_a_victim() -> None:
    """What the local stack starts may be killed, and so may the servers below it."""
    started = {process.name for process in (receiver("", 1), intake("", 1), *local_workers())}
    assert {Stage.HTTP, Stage.WORKERS} == {process.stage for process in (receiver("", 1), *local_workers())}
    assert set(VICTIMS) == started | {"redis", "postgres", "supervisor", "flush"}


def test_every_process_is_recognised() -> None:
    """By its command line: whoever is not cannot be killed, and would be spared without a word."""
    started = (receiver("127.0.0.1", 1), intake("127.0.0.1", 2), *local_workers(), emulator(3, Path("fal"), ()))
    assert {process.name: part_of(shlex.join(process.command)) for process in started} == {
        process.name: process.name for process in started
    }


def test_an_audit_is_clean_only_if_it_settled() -> None:
    """A run that did not come to its end proves nothing."""
    found = judge(balanced(), unknown_deadline=UNKNOWN_DEADLINE)
    assert found.clean
    assert not with_fields(found, settled=False).clean
    assert Counter(found.edits) == {"stored": 2}


def of_own_file(sent: dict[str, str], **changed: object) -> Books:
    """One edit that names an object of its caller, and was sent with what the provider has at `sent`."""
    given = {"prompt": "p", "seed": 1, "image_urls": ["data:,1", "storage://a.png"]}
    posted = {**given, "image_urls": ["data:,1", *sent.values()] if sent else given["image_urls"]}
    asked = request("a", input_sha256=canonical_sha256(posted))
    found = books([asked], [submission("a", sent=sent)], [edit(1, input=given)], {"a": 1})
    there = {**found.objects, "inputs/local/a.png": "bytes"}
    return found._replace(objects=there, delivered={"https://cdn/1": "bytes", "https://cdn/2": "others"}, **changed)


@pytest.mark.parametrize(
    ("sent", "wrong"), [({"1": "https://cdn/1"}, 0), ({"1": "https://cdn/2"}, 1), ({"1": "https://cdn/3"}, 1), ({}, 1)]
)
def test_what_was_sent_is_the_object_named(sent: dict[str, str], wrong: int) -> None:
    """By its bytes; another object's, none, or the name itself is found."""
    found = judge(of_own_file(sent), unknown_deadline=UNKNOWN_DEADLINE)
    assert len(found.wrong_images) == wrong, found.wrong_images
    assert found.unexplained == []


def test_refused_inputs_are_never_posted() -> None:
    """And nothing else fails for its inputs."""
    given = {"prompt": "p", "seed": 1, "image_urls": [NO_OBJECT]}
    failed = {"state": "failed", "error_type": "input_unreachable"}
    ended = books([], [], [edit(1, input=given, **failed)], {})
    assert judge(ended, unknown_deadline=UNKNOWN_DEADLINE).clean
    posted = books([request("a")], [submission("a")], [edit(1, input=given)], {"a": 1})
    assert any("is none" in one for one in judge(posted, unknown_deadline=UNKNOWN_DEADLINE).unexplained)
    fit = books([], [], [edit(1, **failed)], {})
    assert any("are fit" in one for one in judge(fit, unknown_deadline=UNKNOWN_DEADLINE).unexplained)
