"""SQL conditions that several statements share, each defined once, for a table that goes by the name given."""

from collections.abc import Iterable

from models.states import IN_FLIGHT


def listed(words: Iterable[str]) -> str:
    """SQL: the words as the inside of `IN (…)`."""
    return ", ".join(f"'{word}'" for word in words)


def edit_in_flight(edit: str = "edits") -> str:
    """SQL: the edit counts against the in-flight window. It reads the index `edits_open`."""
    return f"{edit}.due_at IS NOT NULL AND {edit}.state IN ({listed(sorted(IN_FLIGHT))})"


def submission_open(submission: str = "submissions") -> str:
    """SQL: the submission is in flight: nobody knows its outcome yet. It reads `submissions_open`."""
    return f"{submission}.outcome IS NULL"


def batch_submits(batch: str = "batches") -> str:
    """SQL: more edits of the batch may be submitted. It reads `batches_active`."""
    return f"{batch}.finished_at IS NULL AND {batch}.paused_at IS NULL AND {batch}.cancelled_at IS NULL"


def batch_waits_for_inputs(batch: str = "batches") -> str:
    """SQL: some edits of the batch are held back until inputs have been looked at. It reads `batches_active`."""
    return f"{batch}.finished_at IS NULL AND {batch}.cancelled_at IS NULL AND {batch}.inputs_ready_to IS NOT NULL"


def edit_has_inputs(edit: str = "e", batch: str = "b") -> str:
    """SQL: the edit is not held back for its inputs. It is a bound on the `position` that `edits_open` reads by."""
    return f"{edit}.position < coalesce({batch}.inputs_ready_to, 2147483647)"


def batch_to_be_audited(batch: str = "batches") -> str:
    """SQL: the batch is finished, and was not audited since. It reads the index `batches_unaudited`."""
    return (
        f"{batch}.finished_at IS NOT NULL AND ({batch}.audited_at IS NULL OR {batch}.audited_at < {batch}.finished_at)"
    )
