"""The arrows: the only place that writes a `state` column.

Each function moves a set of rows in one or two guarded statements and belongs into the caller's transaction.
A row that somebody else moved first is simply not moved: losing the race is an answer, not an error. Rows
are always locked edit first, then its submissions and images, in the order of edit ids, so that two sets that
overlap wait for each other instead of deadlocking. What a verdict means is decided in `decisions.py`.
"""

from models.changes import EditMove, SubmissionEnd
from models.transitions.batch_actions import (
    EDITS_PER_STATEMENT,
    PRUNED,
    SkippedEdit,
    cancel_batch,
    cancel_chunk,
    cancelled_with_open_edits,
    fail_skipped,
    record_cancel_sent,
    request_cancel,
    retry_failed,
)
from models.transitions.finish_batches import finishable_batches, settle_batches
from models.transitions.image_sets import replace_image_set
from models.transitions.incident_failures import excuse_failures
from models.transitions.stored_images import (
    ImageFault,
    StoredImage,
    record_image_faults,
    record_stored,
    release_images,
)
from models.transitions.submission_ends import (
    add_images,
    close_submissions,
    move_edits,
)
from models.transitions.submissions import (
    DenialCount,
    NextPoll,
    Refusal,
    Submission,
    attach_request_id,
    lock_edits,
    record_accepted,
    record_refused,
    resolve_unknown,
    revert_unsent,
    schedule_poll,
    start_submissions,
)

__all__ = [
    "EDITS_PER_STATEMENT",
    "PRUNED",
    "DenialCount",
    "EditMove",
    "ImageFault",
    "NextPoll",
    "Refusal",
    "SkippedEdit",
    "StoredImage",
    "Submission",
    "SubmissionEnd",
    "add_images",
    "attach_request_id",
    "cancel_batch",
    "cancel_chunk",
    "cancelled_with_open_edits",
    "close_submissions",
    "excuse_failures",
    "fail_skipped",
    "finishable_batches",
    "lock_edits",
    "move_edits",
    "record_accepted",
    "record_cancel_sent",
    "record_image_faults",
    "record_refused",
    "record_stored",
    "release_images",
    "replace_image_set",
    "request_cancel",
    "resolve_unknown",
    "retry_failed",
    "revert_unsent",
    "schedule_poll",
    "settle_batches",
    "start_submissions",
]
