"""What a decision asks to be changed; `transitions/` writes it."""

from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from models.states import EditState, LearnedBy, Outcome


class EditMove(NamedTuple):
    """One edit's step along an arrow; `delay` (seconds) is when the new state next needs attention."""

    edit_id: int
    was: EditState
    state: EditState
    delay: float
    error: dict[str, object] | None = None


class SubmissionEnd(NamedTuple):
    """What became of one submission."""

    id: UUID
    request_id: str | None
    outcome: Outcome
    learned_by: LearnedBy | None
    error_type: str | None = None
    images_returned: int | None = None
    set_number: int | None = None
    """Which set of images of its edit this becomes; None: its images are not taken."""
    seed: int | None = None
    inference_time: float | None = None
    """Seconds, as the provider reports; a callback does not tell."""
    billable_units: Decimal | None = None
    may_be_charged: bool = False
