"""The states of an edit and of an image: what each means, who moves it on, what happens if everything dies there.

Data only. `transitions/` holds one function per arrow and is the only writer of a `state` column;
`docs/states.md` and its diagram are tested against this file.
"""

from enum import StrEnum
from typing import NamedTuple


class EditState(StrEnum):
    """Where one edit stands."""

    PENDING = "pending"
    SUBMITTING = "submitting"
    SUBMITTED = "submitted"
    READY = "ready"
    STORED = "stored"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ImageState(StrEnum):
    """Where one returned image stands."""

    WAITING = "waiting"
    STORED = "stored"
    FAILED = "failed"
    DISCARDED = "discarded"


class InputState(StrEnum):
    """Where one input of a batch stands."""

    WAITING = "waiting"
    READY = "ready"
    REFUSED = "refused"


class InputCheck(StrEnum):
    """Which inputs of a batch are looked at before its edits are submitted; objects of the store always are."""

    NONE = "none"
    SAMPLE = "sample"
    ALL = "all"


class Outcome(StrEnum):
    """How one submission ended; NULL in the database while it is in flight."""

    REJECTED = "rejected"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"


class Effect(StrEnum):
    """What one callback did to us."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"
    LATE = "late"
    ORPHAN = "orphan"
    MISMATCH = "mismatch"
    STALE = "stale"
    UNREADABLE = "unreadable"


class LearnedBy(StrEnum):
    """How a submission's outcome became known."""

    REPLY = "reply"
    CALLBACK = "callback"
    POLL = "poll"
    LISTING = "listing"


class Criterion(StrEnum):
    """Which of its own limits a batch broke."""

    TOLERATED_FAILURES = "tolerated_failures"
    TOLERATED_FAILURE_PERCENT = "tolerated_failure_percent"
    DEADLINE = "deadline"
    MAX_COST = "max_cost"


class NotificationEvent(StrEnum):
    """What a caller is told about a batch."""

    FINISHED = "batch.finished"
    FAILED = "batch.failed"
    CANCELLED = "batch.cancelled"


class Kept(StrEnum):
    """What is kept for a time only (`worker/settings.py`, `RetentionSettings`)."""

    CALLBACK_BODIES = "callback_bodies"
    BATCHES = "batches"
    ORPHANS = "orphans"
    """Callbacks that belong to no submission; kept as long as finished batches are."""
    UPLOADS = "uploads"
    QUARANTINE = "quarantine"
    IMAGES = "images"
    """Stored images themselves, of batches that have finished."""
    PROVIDER_COPIES = "provider_copies"
    """What the provider keeps of requests of finished batches; deleted there as soon as may be."""
    INPUT_FILES = "input_files"
    """What callers handed in as inputs; each has its own end."""
    MOMENTS = "moments"
    """Figures by minute and by hour (`models/moments.py`); old ones become one."""


class Story(NamedTuple):
    """One state in words."""

    meaning: str
    moved_on_by: str
    if_everything_dies: str


EDIT_STATES: dict[EditState, Story] = {
    EditState.PENDING: Story(
        "accepted and validated; waits for a free slot", "the submit lane", "the next claim takes it"
    ),
    EditState.SUBMITTING: Story(
        "the POST is in flight, or its outcome is unknown",
        "the provider's reply, the callback, or the unknown deadline",
        "the callback reveals its request id; after the unknown deadline it is looked up, then resubmitted or parked",
    ),
    EditState.SUBMITTED: Story("the provider gave a request id", "the callback or the poll lane", "the poll lane asks"),
    EditState.READY: Story(
        "the result is recorded; its images wait for storage",
        "the download lane",
        "the same key is written again",
    ),
    EditState.STORED: Story("final: every image is in storage", "nobody", "nothing to do"),
    EditState.FAILED: Story("final until someone retries it", "a retry", "nothing to do"),
    EditState.CANCELLED: Story("final", "nobody", "nothing to do"),
}

EDIT_ARROWS: dict[tuple[EditState, EditState], str] = {
    (EditState.PENDING, EditState.SUBMITTING): "claimed: the submission is written down, then POSTed",
    (EditState.PENDING, EditState.CANCELLED): "cancelled before any POST",
    (
        EditState.PENDING,
        EditState.FAILED,
    ): "an input of it was refused, or its line was faulty and faulty lines were to be skipped",
    (EditState.SUBMITTING, EditState.SUBMITTED): "the reply, or an early callback, reveals the request id",
    (EditState.SUBMITTING, EditState.READY): "the callback overtakes the reply",
    (EditState.SUBMITTING, EditState.PENDING): "certainly not sent, refused for the account, or proven dead",
    (EditState.SUBMITTING, EditState.FAILED): "refused for good, or parked after the unknown deadline",
    (
        EditState.SUBMITTING,
        EditState.CANCELLED,
    ): "a cancelled edit whose POST never arrived, or ended cancelled",
    (EditState.SUBMITTED, EditState.READY): "the result has images",
    (EditState.SUBMITTED, EditState.PENDING): "a transient failure with attempts left",
    (EditState.SUBMITTED, EditState.FAILED): "the provider's verdict is final, or no attempt is left",
    (EditState.SUBMITTED, EditState.CANCELLED): "the provider ended it on our request",
    (EditState.READY, EditState.STORED): "the last image is in storage",
    (EditState.READY, EditState.FAILED): "an image can not be stored",
    (EditState.FAILED, EditState.PENDING): "someone retries it, or its failure is excused: the model was down",
    (EditState.FAILED, EditState.SUBMITTED): "someone retries it, and a submission of it turns out to be in flight",
    # Late results: a submission given up as dead shows itself after all. While it is in flight nothing is POSTed;
    # what was paid for is kept.
    (EditState.PENDING, EditState.SUBMITTED): "a submission given up, or taken back, turns out to be in flight",
    (EditState.PENDING, EditState.READY): "late result of a submission given up as dead",
    (
        EditState.FAILED,
        EditState.READY,
    ): "late result of a submission given up as dead, or its images are fetched again",
    (EditState.CANCELLED, EditState.READY): "late result of a submission given up as dead",
}

IMAGE_ARROWS: dict[tuple[ImageState, ImageState], str] = {
    (ImageState.WAITING, ImageState.STORED): "fetched, checked, stored",
    (ImageState.WAITING, ImageState.FAILED): "can not be stored",
    (ImageState.FAILED, ImageState.WAITING): "someone retries it",
    (ImageState.WAITING, ImageState.DISCARDED): "another submission's images are the ones that are kept",
    (ImageState.STORED, ImageState.DISCARDED): "its set could not be stored whole, and another one was taken instead",
    (ImageState.FAILED, ImageState.DISCARDED): "its set could not be stored whole, and another one was taken instead",
    (ImageState.DISCARDED, ImageState.WAITING): "the set that was taken first could not be stored whole",
}

INPUT_ARROWS: dict[tuple[InputState, InputState], str] = {
    (InputState.WAITING, InputState.READY): "looked at, and where it is an object of the store, delivered",
    (InputState.WAITING, InputState.REFUSED): "it cannot be had, or is no input that the model takes",
    (InputState.READY, InputState.WAITING): "what was delivered would expire before its next edit is over",
    (InputState.REFUSED, InputState.WAITING): "someone retries the edits that failed for it",
}

FINAL: frozenset[EditState] = frozenset({EditState.STORED, EditState.FAILED, EditState.CANCELLED})
IN_FLIGHT: frozenset[EditState] = frozenset({EditState.SUBMITTING, EditState.SUBMITTED})
