"""THE PORCH. What stands between granian and a Flask application. Imports nothing of ours."""

from front.porch import Bounds, Front

__all__ = ["Bounds", "Front"]
