"""The rules of the audit, pure: books in, sentences about what is wrong out.

A second charge for an edit has exactly one excuse: when it was decided on, the provider had let nothing be known of the
first one. By the provider's own ledger that means all of this: the unknown deadline of the first had passed; none of
its webhooks had been taken and its result had never been read until the second was posted; and it stood in no listing,
because it was still running past every allowance, or because its payloads are not kept. What was not charged (a
refusal, a failure) needs no excuse.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.books import Batch, Books, Edit, Image, Request, Submission, canonical_sha256
from benchmarks.manifests import NO_IMAGE, NO_OBJECT

PRICE = 0.03
"""USD per image, at the emulator."""
STILL_UNDER_WAY = 5.0
"""Seconds after a cancel within which a POST that had begun may still be accepted, on a busy machine."""
LISTED_WITHIN = 3.0
"""Seconds from a request's end to the decision that rests on a listing with it, on a busy machine."""
SENT_WITHIN = 1.0
"""Seconds from the claim of an edit to its POST at the provider, on a busy machine; a callback then stops none."""
WRONG_SIZE = frozenset({"wrong_size", "one_wrong_size", "wrong_dimensions"})
INCIDENT = "downstream_service_unavailable"
NOT_OURS = ("quarantine/", ".incoming/", "inputs/")
"""Where storage may hold what no row names: refused files, what a killed writer left half-way, what callers own."""
OBJECT, OBJECTS = "storage://", "inputs/local/"
"""How an input begins that is an object of a caller, and where storage holds it."""
OF_INPUTS = ("input_refused", "input_unreachable")


class Owned:
    """Whose each request is.

    Who has it: the submission whose row holds its id, else the one in its webhook URL. Who posted it: the other way
    round. They differ where of two requests that are the same in every respect one was taken for the other.
    """

    def __init__(self, books: Books) -> None:
        self.books = books
        self.held = {s.request_id: s for s in books.submissions.values() if s.request_id}
        self.posts = Counter(submission.edit_id for submission in books.submissions.values())
        self.of_edit: dict[int, list[Request]] = defaultdict(list)
        self._charged: dict[int, list[Request]] = defaultdict(list)
        for request in sorted(books.requests.values(), key=lambda one: one.submitted_at):
            if owner := self.owner(request):
                self.of_edit[owner.edit_id].append(request)
            poster = books.submissions.get(request.token) or owner
            if poster and request.charges and not request.foreign:
                self._charged[poster.edit_id].append(request)

    def owner(self, request: Request) -> Submission | None:
        return self.held.get(request.id) or self.books.submissions.get(request.token)

    def edit(self, submission: Submission) -> Edit:
        return self.books.edits[submission.edit_id]

    def sent(self, submission: Submission) -> dict[str, Any]:
        """The input as it was POSTed."""
        edit = self.edit(submission)
        urls = [submission.sent.get(str(n), entry) for n, entry in enumerate(edit.input.get("image_urls", ()))]
        return {**edit.input, "image_urls": urls}

    def charged(self, edit_id: int) -> list[Request]:
        """What we were charged for POSTs of this edit, the earliest first; not what another program was."""
        return self._charged[edit_id]

    def seen_twice(self, edit_id: int) -> bool:
        """Whether its rows hold more than one charged request; nothing else can tell that it was charged twice."""
        return sum(bool(one.charges) for one in self.of_edit[edit_id]) > 1

    def successes(self, edit_id: int) -> list[Request]:
        return [one for one in self.of_edit[edit_id] if one.status == 200 and one.files]


def wrong_requests(owned: Owned) -> Iterator[str]:
    """Requests that an edit holds, or was charged for, though they were made for another input."""
    for request in owned.books.requests.values():
        owner = owned.owner(request)
        if owner and request.input_sha256 != canonical_sha256(owned.sent(owner)):
            whose = "another program's" if request.foreign else "another input's"
            yield f"edit {owned.edit(owner).name} has {whose} request {request.id}"


def wrong_inputs(owned: Owned) -> Iterator[str]:
    """POSTs with something else than the bytes of the object that their edit names."""
    for submission in owned.books.submissions.values():
        if submission.outcome == "rejected" and not submission.request_id:
            continue  # it was never sent
        edit = owned.edit(submission)
        for number, entry in enumerate(edit.input.get("image_urls", ())):
            if not entry.startswith(OBJECT):
                continue
            there = owned.books.delivered.get(submission.sent.get(str(number), ""))
            if there is None or there != owned.books.objects.get(OBJECTS + entry.removeprefix(OBJECT)):
                yield f"edit {edit.name} was sent with something else than {entry}"


def unfit_inputs(owned: Owned) -> Iterator[str]:
    """Edits that were POSTed with an input that had to be refused, or failed for an input that had not."""
    sent = {s.edit_id for s in owned.books.submissions.values() if s.outcome != "rejected" or s.request_id}
    for edit in owned.books.edits.values():
        unfit = not {NO_IMAGE, NO_OBJECT}.isdisjoint(edit.input.get("image_urls", ()))
        if unfit and edit.id in sent:
            yield f"edit {edit.name} was POSTed with an input that is none"
        if not unfit and edit.error_type in OF_INPUTS:
            yield f"edit {edit.name} failed with {edit.error_type}, and its inputs are fit"


def unknown_requests(owned: Owned) -> Iterator[str]:
    """Requests that nobody answers for, and rows that name no request."""
    for request in owned.books.requests.values():
        if not request.foreign and owned.owner(request) is None:
            yield f"request {request.id} is no submission of ours"
    for request_id, submission in owned.held.items():
        if request_id not in owned.books.requests:
            yield f"submission {submission.id} names a request that the provider does not know"


def excuse(first: Request, second: Request, unknown_deadline: float, given_up: Sequence[float] = ()) -> str | None:
    """Why `second` may have been posted though `first` was charged; None where it may not.

    `given_up`: when our rows say that a submission of the edit was held to be dead. From then on nobody looks, however
    long the edit must wait for its next POST. Whether it could be known then, the ledger says.
    """
    at = second.submitted_at
    if at < first.submitted_at + unknown_deadline:
        return None  # posted before the first could be proven dead
    decided = max((when for when in given_up if first.submitted_at + unknown_deadline <= when <= at), default=at)
    if first.told_at is not None and first.told_at < at and not decided < first.told_at > at - SENT_WITHIN:
        return None
    if first.ended_at is None or first.ended_at > decided - LISTED_WITHIN:
        return "the first ran past every allowance"
    return None if first.listed else "never delivered, never read, in no listing"


def double_charges(owned: Owned, unknown_deadline: float, excused: Counter[str]) -> Iterator[str]:
    """Edits that were charged twice without the one excuse; those with it are counted.

    Edits of one input may have each other's requests: one takes that of its twin, which is then POSTed again. So what
    counts is whether all of an input's edits together were charged more often than once each.
    """
    twins: dict[str, list[int]] = defaultdict(list)
    for edit in owned.books.edits.values():
        twins[canonical_sha256(edit.input)].append(edit.id)
    for edit_ids in twins.values():
        excess = sum(len(owned.charged(edit_id)) for edit_id in edit_ids) - len(edit_ids)
        seconds = [found for edit_id in edit_ids for found in _second_charges(owned, edit_id, unknown_deadline)]
        # what has its excuse comes first: only the rest of the excess needs one
        for sentence, reason in sorted(seconds, key=lambda found: found[1] is None)[: max(0, excess)]:
            if reason is None:
                yield sentence
            else:
                excused[reason] += 1


def _second_charges(owned: Owned, edit_id: int, unknown_deadline: float) -> Iterator[tuple[str, str | None]]:
    charged, edit = owned.charged(edit_id), owned.books.edits[edit_id]
    for place, second in enumerate(charged[1:], 1):
        reasons = [excuse(first, second, unknown_deadline, edit.given_up) for first in charged[:place]]
        first = charged[reasons.index(None) if None in reasons else 0]
        sentence = f"edit {edit.name}: {_twice(first, second)}"
        yield sentence, None if None in reasons else reasons[0]


def _twice(first: Request, second: Request) -> str:
    later = second.submitted_at - first.submitted_at
    if first.told_at is not None and first.told_at < second.submitted_at:
        known = f"the first was known for {second.submitted_at - first.told_at:.1f} s"
    elif first.ended_at is not None and first.ended_at < second.submitted_at and first.listed:
        known = f"the first was listed for {second.submitted_at - first.ended_at:.1f} s"
    else:
        known = "the first was not proven dead"
    return f"{second.id} is charged {later:.1f} s after {first.id}; {known}"


def untrue_rows(owned: Owned) -> Iterator[str]:
    """Where the database tells of money otherwise than the ledger does."""
    flagged: set[int] = set()
    for submission in owned.books.submissions.values():
        request = owned.books.requests.get(submission.request_id or "")
        charges = request.charges if request else 0
        if submission.outcome == "succeeded" and submission.images_returned != charges:
            yield f"submission {submission.id}: {charges} charged, {submission.images_returned} noted"
        elif submission.outcome == "succeeded" and not _same_money(submission.cost, PRICE * charges):
            yield f"submission {submission.id}: {charges} charged, {submission.cost} USD noted"
        knowable = request is not None and (request.told_at is not None or request.listed)
        if charges and knowable and submission.outcome != "succeeded":
            yield f"submission {submission.id} was charged and is {submission.outcome}"
        if submission.outcome == "unknown":
            flagged.add(submission.edit_id)  # it says that it may have been charged
        if submission.doubled:
            flagged.add(submission.edit_id)
            if len(owned.charged(submission.edit_id)) < 2 and not owned.seen_twice(submission.edit_id):
                yield f"submission {submission.id} is said to be doubled; its edit was charged once"
    for edit_id in owned.books.edits:
        if len(owned.charged(edit_id)) > 1 and owned.seen_twice(edit_id) and edit_id not in flagged:
            yield f"edit {owned.books.edits[edit_id].name} was charged twice, and no row says so"


def _same_money(one: float | None, other: float) -> bool:
    return one is not None and abs(one - other) < 1e-6


def untrue_views(owned: Owned) -> Iterator[str]:
    """Batches of which the views, which rest on counters, tell otherwise than their rows."""
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    cost: dict[str, float] = defaultdict(float)
    for edit in owned.books.edits.values():
        rows[edit.batch_id][edit.state] += 1
    for submission in owned.books.submissions.values():
        cost[owned.edit(submission).batch_id] += submission.cost or 0
    for batch in owned.books.batches.values():
        if batch.progress is None:
            continue
        counted = tuple(rows[batch.id][state] for state in ("stored", "failed", "cancelled"))
        if batch.progress[:3] != counted or not _same_money(batch.progress[3], cost[batch.id]):
            by_rows = f"{counted} and {cost[batch.id]:.2f} USD by its rows"
            yield f"batch {batch.name} is {batch.progress} to whoever asks, {by_rows}"


def missing_images(owned: Owned) -> Iterator[str]:
    """Stored edits of which the set in storage is not whole, under the names that callers rely on."""
    sets: dict[int, list[Image]] = defaultdict(list)
    for image in owned.books.images:
        if image.key not in owned.books.objects:
            yield f"{image.key} is stored, and not there"
        if image.taken:
            sets[owned.books.submissions[image.submission_id].edit_id].append(image)
    for edit in owned.books.edits.values():
        if edit.state != "stored":
            continue
        by_submission = Counter(image.submission_id for image in sets[edit.id])
        whole = {s for s, count in by_submission.items() if _complete(owned, owned.books.submissions[s], count)}
        named = {image.place for image in sets[edit.id] if image.submission_id in whole and _named(owned, edit, image)}
        if len(whole) != 1 or named != set(range(len(named))) or not named:
            yield f"{edit.name} is stored, and its images are {sorted(image.key for image in sets[edit.id])}"


def _complete(owned: Owned, submission: Submission, count: int) -> bool:
    request = owned.books.requests.get(submission.request_id or "")
    return request is not None and count == len(request.files)


def _named(owned: Owned, edit: Edit, image: Image) -> bool:
    """Whether it lies where callers look for it: with a set's number behind only where a first set gave way to it."""
    name = image.key.rpartition(".")[0].removeprefix(f"{edit.name}/{image.place}")
    return not name or (name.startswith(".") and name[1:].isdigit() and len(owned.charged(edit.id)) > 1)


def wrong_images(owned: Owned) -> Iterator[str]:
    """Stored images whose bytes are not what the provider made, or were made for another input."""
    for image in owned.books.images:
        submission = owned.books.submissions[image.submission_id]
        request = owned.books.requests.get(submission.request_id or "")
        there = owned.books.objects.get(image.key)
        if there is not None and there != image.sha256:
            yield f"{image.key} is not what the database says"
        if request is None or there not in (None, *(file.sha256 for file in request.files[image.place :][:1])):
            yield f"{image.key} is not what the provider made for it"
        elif request.input_sha256 != canonical_sha256(owned.sent(submission)):
            yield f"{image.key} was made for another input"


def nameless_objects(owned: Owned) -> Iterator[str]:
    """Objects in storage that no row names."""
    named = {image.key for image in owned.books.images}
    for key in owned.books.objects:
        if key not in named and not key.startswith(NOT_OURS):
            yield f"{key} is in storage, but in no row"


def lost_edits(owned: Owned, unknown_deadline: float) -> Iterator[str]:
    """Edits that never ended, and edits that were paid for and not delivered though the images could be had."""
    for edit in owned.books.edits.values():
        if not edit.final:
            yield f"{edit.name} is {edit.state}"
        elif edit.state == "cancelled" and owned.successes(edit.id):
            yield f"{edit.name} is cancelled, and was paid for"
        elif edit.state == "failed" and not all(
            _could_not_be_had(one, unknown_deadline) for one in owned.successes(edit.id)
        ):
            yield f"{edit.name} failed with {edit.error_type}, and was paid for"


def _could_not_be_had(request: Request, unknown_deadline: float) -> bool:
    """Whether the provider itself kept a paid image back: declared it wrong, never served a file whole, or ran past
    every allowance and then told nobody.

    What the last of many tries met is told as the reason, and need not be the same each time.
    """
    if request.faults & WRONG_SIZE:
        return True
    if request.told_at is None and (
        request.ended_at is None or request.ended_at > request.submitted_at + unknown_deadline
    ):
        return True
    return any(file.spoilt and not file.intact for file in request.files)


def unexplained_failures(owned: Owned) -> Iterator[str]:
    """Failed edits for which the ledger holds no reason, and cancelled ones that nobody cancelled."""
    for edit in owned.books.edits.values():
        requests, batch = owned.of_edit[edit.id], owned.books.batches[edit.batch_id]
        if edit.state == "cancelled" and batch.cancelled_at is None and batch.broken_criterion is None:
            yield f"{edit.name} is cancelled, and nobody cancelled it"
        if edit.state != "failed" or owned.successes(edit.id):
            continue
        if edit.error_type == INCIDENT:
            yield f"{edit.name} failed in an incident of the whole model"
        elif edit.error_type == "no_images":
            if not any(one.status == 200 and not one.files for one in requests):
                yield f"{edit.name} failed with no_images; the ledger knows of none"
        elif edit.error_type == "invalid_input":
            if owned.posts[edit.id]:
                yield f"{edit.name} failed with invalid_input, and was POSTed"
        elif edit.error_type in OF_INPUTS:
            continue  # `unfit_inputs` looks at these
        elif edit.error_type == "submission_unknown":
            if owned.posts[edit.id] <= len(requests):
                yield f"{edit.name} failed with submission_unknown, and the provider had accepted every POST"
        elif not any(one.error_type == edit.error_type for one in requests):
            yield f"{edit.name} failed with {edit.error_type}; the ledger knows of none"


def broken_limits(owned: Owned) -> Iterator[str]:
    """Batches that cost more than they may, went on after their cancel, or broke a limit untruly."""
    by_batch: dict[str, list[Edit]] = defaultdict(list)
    for edit in owned.books.edits.values():
        by_batch[edit.batch_id].append(edit)
    for batch in owned.books.batches.values():
        edits = by_batch[batch.id]
        requests = [one for edit in edits for one in owned.of_edit[edit.id] if not one.foreign]
        cost = PRICE * sum(one.charges for edit in edits for one in owned.charged(edit.id))
        if batch.max_cost is not None and cost > batch.max_cost + 1e-9:
            yield f"batch {batch.name} cost {cost:.2f} of at most {batch.max_cost:.2f}"
        if batch.cancelled_at is not None:
            late = [one for one in requests if one.submitted_at > batch.cancelled_at + STILL_UNDER_WAY]
            if late:
                yield f"batch {batch.name}: {len(late)} POSTs after its cancel"
        yield from _tolerance(batch, sum(edit.state == "failed" for edit in edits))
        if batch.finished_at is None:
            yield f"batch {batch.name} is not finished"


def _tolerance(batch: Batch, failed: int) -> Iterator[str]:
    if batch.tolerated_failures is None or batch.cancelled_at is not None:
        return
    if (batch.broken_criterion == "tolerated_failures") != (failed > batch.tolerated_failures):
        yield f"batch {batch.name}: {failed} failed, {batch.tolerated_failures} tolerated, {batch.broken_criterion}"
