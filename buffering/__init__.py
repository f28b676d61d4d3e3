"""THE PORCH. What stands between granian and a Flask application. Imports nothing of ours."""

from buffering.server import Bounds, Front

__all__ = ["Bounds", "Front"]
