"""What darkroom's receiver is measured against: a bare Flask, and a receiver as people usually write one.

The ordinary one verifies the same signature and makes the same four writes with SQLAlchemy's ORM, one transaction for
each callback. It judges nothing beyond that: no account, no duplicate, no stale delivery.
"""

import hashlib
import json
import os
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from flask import Flask, request
from flask.typing import ResponseReturnValue
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Session

from models import tables

KEY_VARIABLE = "BENCH_PUBLIC_KEY"
CONNECTIONS = 8


class Base(DeclarativeBase):
    """Of the ORM."""

    metadata = tables.metadata


class Edit(Base):
    """An edit."""

    __table__ = tables.edits


class Submission(Base):
    """A POST."""

    __table__ = tables.submissions


class Callback(Base):
    """A delivery."""

    __table__ = tables.callbacks


class Image(Base):
    """An image that came back."""

    __table__ = tables.images


def bare() -> Flask:
    """Reads the body and answers."""
    app = Flask("bare")

    @app.post("/webhooks/fal/<token>")
    def receive(token: str) -> ResponseReturnValue:
        request.get_data()
        return {"effect": token[:0] or "applied"}

    return app


def ordinary() -> Flask:
    """Verifies, and records through the ORM."""
    app = Flask("ordinary")
    engine = create_engine(os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://"), pool_size=8)
    key = VerifyKey(bytes.fromhex(os.environ[KEY_VARIABLE]))

    @app.post("/webhooks/fal/<token>")
    def receive(token: str) -> ResponseReturnValue:
        body, headers = request.get_data(), request.headers
        named = [headers[f"X-Fal-Webhook-{name}"] for name in ("Request-Id", "User-Id", "Timestamp")]
        message = "\n".join([*named, hashlib.sha256(body).hexdigest()]).encode()
        try:
            key.verify(message, bytes.fromhex(headers["X-Fal-Webhook-Signature"]))
        except BadSignatureError:
            return {"error": "forged"}, 401
        with Session(engine) as session, session.begin():
            _record(session, UUID(token), body, dict(headers), named)
        return {"effect": "applied"}

    return app


def _record(session: Session, token: UUID, body: bytes, headers: dict[str, str], named: list[str]) -> None:
    answer, now = json.loads(body), datetime.now(UTC)
    submission: Any = session.get_one(Submission, token, with_for_update=True)
    edit: Any = session.get_one(Edit, submission.edit_id, with_for_update=True)
    images = answer["payload"]["images"]
    submission.outcome, submission.learned_by, submission.due_at = "succeeded", "callback", None
    submission.completed_at, submission.images_returned, submission.set_number = now, len(images), 1
    submission.cost = len(images) * Decimal("0.03")
    edit.state, edit.due_at = "ready", now
    for index, image in enumerate(images):
        about = {key: image[key] for key in ("url", "content_type", "file_name", "file_size", "width", "height")}
        session.add(Image(submission_id=token, index=index, state="waiting", due_at=now, **about))
    session.add(
        Callback(
            effect="applied",
            submission_id=token,
            token=str(token),
            request_id=named[0],
            signed_at=datetime.fromtimestamp(int(named[2]), UTC),
            headers=headers,
            body=body,
            sha256=hashlib.sha256(body).hexdigest(),
        )
    )
