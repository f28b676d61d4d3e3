"""Standard output and error as they are found: any encoding, closed, full, or a pipe whose reader has gone.

No control character of a name or a message reaches a terminal: it is written out.
"""

import os
import re
import sys
from contextlib import suppress
from io import TextIOWrapper

PIPE_CLOSED = 141
"""The exit code of a command whose reader went away: what a shell makes of SIGPIPE. 0 could be taken for success."""

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
"""What moves a cursor, changes colours, hides or turns round what stands beside it; a tab and a line end may stay."""


class OutputClosed(Exception):
    """Whoever read our output has gone."""


def show_controls(text: str) -> str:
    r"""The text with its control characters written out, as `\\x1b`; line ends and tabs stay."""
    return CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    """The same on one line."""
    return show_controls(text).replace("\n", "\\n").replace("\t", "\\t")


def quote_controls(document: str) -> str:
    """JSON that means the same, with every control character in its strings as an escape."""
    return CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", document)


def prepare_streams() -> None:
    """Make standard output and error show what their encoding lacks as escapes instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def close_output(code: int) -> int:
    """Send what is still to be written; the exit code, or what becomes of it where that cannot be done."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        code = PIPE_CLOSED
    except OSError as error:
        say(f"The output cannot be written: {error.strerror}.")
        code = 2
    else:
        return code
    discard_output()
    return code


def discard_output() -> None:
    """Let what is still to be written go nowhere: the interpreter would try, and complain, once more."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(sentence: str) -> None:
    """Why a command ends, on standard error: a sentence, or a list of faults."""
    with suppress(OSError, ValueError):
        text = show_controls(sentence)
        print(text if "\n" in text else f"darkroom: {text}", file=sys.stderr, flush=True)
