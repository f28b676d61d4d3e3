"""The buffering server between granian and a Flask application."""

from buffering.server import ANSWER_LATER, STREAMED, BufferingServer, Limits

__all__ = ["ANSWER_LATER", "STREAMED", "BufferingServer", "Limits"]
