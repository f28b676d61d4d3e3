"""The buffering server between granian and a Flask application."""

from buffering.server import ANSWER_LATER, NEEDS_THREAD, STREAMED, BufferingServer, Limits

__all__ = ["ANSWER_LATER", "NEEDS_THREAD", "STREAMED", "BufferingServer", "Limits"]
