"""Where a list of batches goes on: the last one shown, in one word that an address can carry."""

import base64
import binascii
import json
from datetime import datetime
from uuid import UUID

from intake.problems import RequestFaults
from models.seedream import Fault


def write_cursor(created_at: datetime, batch_id: UUID) -> str:
    """The place after this batch."""
    place = json.dumps([created_at.isoformat(), str(batch_id)])
    return base64.urlsafe_b64encode(place.encode()).decode()


def read_cursor(cursor: str | None) -> tuple[datetime | None, UUID | None]:
    """When the last batch shown was created, and its id; None twice where the list begins.

    Raises:
        RequestFaults: it is no cursor of ours.
    """
    if cursor is None:
        return None, None
    try:
        moment, batch_id = json.loads(base64.urlsafe_b64decode(cursor))
        return datetime.fromisoformat(moment), UUID(batch_id)
    except (binascii.Error, ValueError, TypeError, AttributeError, RecursionError):
        raise RequestFaults([Fault("cursor", "is not a cursor that this API returned")]) from None
