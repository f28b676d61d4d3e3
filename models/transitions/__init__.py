"""The arrows: the only place that writes a `state` column.

Each function moves a set of rows in one or two guarded statements and belongs into the caller's transaction.
A row that somebody else moved first is simply not moved: losing the race is an answer, not an error. Rows
are always locked edit first, then its submissions and images, in the order of edit ids, so that two sets that
overlap wait for each other instead of deadlocking. What a verdict means is decided in `decisions.py`.
"""

from models.transitions.batch_actions import (
    CHUNK,
    SkippedEdit,
    cancel_batch,
    cancel_chunk,
    cancelled_with_open_edits,
    fail_skipped,
    record_cancel_asked,
    retry_failed,
)
from models.transitions.finish_batches import finishable_batches, settle_batches
from models.transitions.image_sets import take_instead
from models.transitions.incident_failures import excuse_failures
from models.transitions.stored_images import (
    ImageFault,
    StoredImage,
    put_images_back,
    record_image_faults,
    record_stored,
)
from models.transitions.submission_ends import (
    EditMove,
    SubmissionEnd,
    add_images,
    close_submissions,
    move_edits,
)
from models.transitions.submissions import (
    Postponement,
    Refusal,
    Submission,
    give_up_unknown,
    lock_edits,
    poll_again,
    record_accepted,
    record_refused,
    reveal_request,
    start_submissions,
    take_back,
)

__all__ = [
    "CHUNK",
    "EditMove",
    "ImageFault",
    "Postponement",
    "Refusal",
    "SkippedEdit",
    "StoredImage",
    "Submission",
    "SubmissionEnd",
    "add_images",
    "cancel_batch",
    "cancel_chunk",
    "cancelled_with_open_edits",
    "close_submissions",
    "excuse_failures",
    "fail_skipped",
    "finishable_batches",
    "give_up_unknown",
    "lock_edits",
    "move_edits",
    "poll_again",
    "put_images_back",
    "record_accepted",
    "record_cancel_asked",
    "record_image_faults",
    "record_refused",
    "record_stored",
    "retry_failed",
    "reveal_request",
    "settle_batches",
    "start_submissions",
    "take_back",
    "take_instead",
]
