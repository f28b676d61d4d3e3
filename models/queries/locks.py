"""Locks that no row stands for."""

from models.statements import Statement

LOCK_UNTIL_COMMIT = Statement("SELECT pg_advisory_xact_lock(%s)")
