"""Manifests as people write them, all of it following from a seed.

Most repeat one prompt and one seed over many inputs; some repeat whole lines; inputs are data URIs; some ask for
several images. Nothing in an edit says which one it is, but its whole input.
"""

import base64
import csv
import hashlib
import io
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

SIZE = {"width": 960, "height": 960}
PROMPT = "Put the red hat on the model, keep face, pose and light as they are"
EditLine = dict[str, Any]


@dataclass(frozen=True)
class Manifest:
    """One batch as its caller has it: what it is called, how it is handed in, what it may do, its lines."""

    name: str
    entrance: str
    """`api` (lines over HTTP), `csv` (a file, at the command line) or `task` (Celery)."""
    lines: list[EditLine]
    header: Mapping[str, Any] = field(default_factory=dict)
    steer: str = ""
    """What its caller does in the middle of it: `cancel`, `pause`, `retry`, or nothing."""
    files: tuple[bytes, ...] = ()
    """What its caller hands in before, because its lines name it."""

    def jsonl(self) -> str:
        """Its lines as JSONL."""
        return "".join(json.dumps(line) + "\n" for line in self.lines)

    def csv(self) -> str:
        """Its lines as a spreadsheet writes them."""
        names = sorted({name for line in self.lines for name in line})
        out = io.StringIO()
        writer = csv.DictWriter(out, names)
        writer.writeheader()
        for line in self.lines:
            writer.writerow({name: _cell(value) for name, value in line.items()})
        return out.getvalue()


def _cell(value: Any) -> str:
    if isinstance(value, list) and len(value) == 1:
        return str(value[0])
    return value if isinstance(value, str) else json.dumps(value)


NO_OBJECT = "storage://never/there.png"
NO_IMAGE = "data:image/png;base64," + base64.b64encode(b"no image").decode()
"""Inputs that are refused, where somebody looks at them."""


def draw(number: int) -> bytes:
    """One of as many small images as there are numbers."""
    colour = (number % 256, number // 256 % 256, number // 65536 % 256)
    out = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(out, "PNG" if number % 3 else "GIF")
    return out.getvalue()


def image(number: int) -> str:
    """The same as a data URI."""
    kind = "png" if number % 3 else "gif"
    return f"data:image/{kind};base64," + base64.b64encode(draw(number)).decode()


def own_files(first: int, count: int, seed: int) -> tuple[list[EditLine], tuple[bytes, ...]]:
    """Edits that name files of their caller, each of two of them, beside an image of their own; and these files."""
    shared = {"prompt": PROMPT, "seed": seed, "image_size": SIZE}
    files = [draw(3 * (first + number) + 1) for number in range(count // 2 + 1)]  # all of them PNG
    names = [f"storage://files/{hashlib.sha256(content).hexdigest()}.png" for content in files]
    urls = [[names[number // 2], image(first + number)] for number in range(count)]
    return [{**shared, "image_urls": each} for each in urls], tuple(files)


def some_unfit(first: int, count: int, seed: int) -> list[EditLine]:
    """The usual manifest, in which every third input is refused by whoever looks at it."""
    lines = one_prompt(first, count, seed)
    for number in range(1, count, 3):
        lines[number]["image_urls"] = [image(first), NO_IMAGE if number % 2 else NO_OBJECT]
    return lines


def one_prompt(first: int, count: int, seed: int) -> list[EditLine]:
    """The usual manifest: one prompt, one seed, many inputs."""
    shared = {"prompt": PROMPT, "seed": seed, "image_size": SIZE}
    return [{**shared, "image_urls": [image(first + number)]} for number in range(count)]


def repeated(first: int, count: int, seed: int) -> list[EditLine]:
    """The same line again and again."""
    return one_prompt(first, 1, seed) * count


def no_seed(first: int, count: int) -> list[EditLine]:
    """One prompt over many inputs, some of them twice, and no seed."""
    shared = {"prompt": PROMPT, "image_size": SIZE}
    return [{**shared, "image_urls": [image(first + number // 2)]} for number in range(count)]


def several(first: int, count: int, seed: int) -> list[EditLine]:
    """Several inputs an edit, and several images asked for; with names of their own."""
    return [
        {
            "custom_id": f"sku-{first + number:06}",
            "prompt": PROMPT,
            "seed": seed,
            "image_urls": [image(first + number), image(first + number + 1)],
            "image_size": "square_hd" if number % 2 else SIZE,
            "num_images": 1 + number % 3,
            "max_images": 1 + number % 2,
        }
        for number in range(count)
    ]


def overtaken(first: int, count: int, seed: int, seconds: float) -> list[EditLine]:
    """Edits whose first request outlasts every allowance, and whose second brings one image that is refused.

    The reply of the first is lost and it runs for `seconds`; so it is given up, and the second POST is due.
    """
    faults = f"[[fault:reset_after_accept*1]] [[fault:slow_run*1@{seconds:g}]] [[fault:one_wrong_size*1]]"
    lines = several(first, count, seed)
    return [{**line, "prompt": f"{PROMPT} {faults}", "num_images": 2, "max_images": 1} for line in lines]


def reopened(first: int, count: int, seed: int, seconds: float) -> list[EditLine]:
    """Edits that are given up, and whose first request then makes itself heard by a callback that is too old."""
    faults = (
        f"[[fault:reset_after_accept*1]] [[fault:slow_run*1@{seconds:g}]] [[fault:stale_timestamp*1]] "
        "[[fault:status_500*4]] [[fault:result_500*4]]"
    )
    return [{**line, "prompt": f"{PROMPT} {faults}"} for line in one_prompt(first, count, seed)]


def wave(dice: random.Random, number: int, edits: int, notify_url: str) -> Iterator[Manifest]:
    """What callers hand in at one time, together so many edits."""
    first, seed = 1 + number * 100_000, dice.randrange(2**31)
    notify = {"notify_url": notify_url}
    shares = {"prompt": 0.26, "repeated": 0.08, "seedless": 0.10, "csv": 0.14, "task": 0.08, "several": 0.10}
    shares |= {"own": 0.08, "unfit": 0.05}
    count = {kind: max(2, round(edits * share)) for kind, share in shares.items()}
    count["steered"] = max(3, edits - sum(count.values()))
    made = f"wave {number}"
    yield Manifest(f"{made} one prompt", "api", one_prompt(first, count["prompt"], seed), notify)
    yield Manifest(f"{made} repeated", "api", repeated(first, count["repeated"], seed), notify)
    yield Manifest(f"{made} no seed", "api", no_seed(first + 20_000, count["seedless"]))
    yield Manifest(f"{made} spreadsheet", "csv", several(first + 30_000, count["csv"], seed), notify)
    yield Manifest(f"{made} task", "task", one_prompt(first + 40_000, count["task"], seed), notify)
    yield Manifest(f"{made} several", "api", several(first + 50_000, count["several"], seed), {"priority": 1})
    own, files = own_files(first + 70_000, count["own"], seed)
    yield Manifest(f"{made} own files", "api", own, notify, files=files)
    unfit, all_inputs = some_unfit(first + 80_000, count["unfit"], seed), {"check_inputs": "all"}
    yield Manifest(f"{made} unfit", "api", unfit, {**notify, **all_inputs})
    yield _build_controlled(made, number, one_prompt(first + 60_000, count["steered"], seed + 1), notify)


def _build_controlled(made: str, number: int, lines: list[EditLine], notify: Mapping[str, Any]) -> Manifest:
    """One batch a wave with which something is done: in turn a limit of its own, or its caller's hand."""
    limits: dict[str, Mapping[str, Any]] = {
        "max_cost": {"max_cost": f"{0.03 * max(1, len(lines) // 2):.2f}"},
        "tolerated": {"tolerated_failures": 0},
        **{kind: {} for kind in ("cancel", "pause", "retry")},
    }
    kind = list(limits)[number % len(limits)]
    steer = kind if kind in ("cancel", "pause", "retry") else ""
    return Manifest(f"{made} {kind}", "api", lines, {**notify, **limits[kind]}, steer)
