"""The buffering server between granian and a Flask application."""

from buffering.server import BufferingServer, Limits

__all__ = ["BufferingServer", "Limits"]
