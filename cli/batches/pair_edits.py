"""Each image of a folder with each prompt of a file: the edits, their names, and a sample that favours none."""

import json
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from cli.batches.image_folder import ImageFolder
from cli.batches.prompts_file import Prompts
from core.errors import UserError

EDITS_MAX = 1_000_000
"""Of one batch that is made so: a slip of ten thousand prompts more would fill the disk, and empty the account."""
CUSTOM_ID_MAX = 64
DRAW = 15
"""Seed of the sample: the same sample of the same images and prompts, whenever it is drawn."""


@dataclass(frozen=True)
class PairedEdits:
    """Edits of each image with each prompt, or of a sample of the pairs."""

    folder: ImageFolder
    prompts: Prompts
    pairs: Sequence[tuple[int, int]] | None
    """By the numbers of image and prompt, in order; None: all there are."""
    names: list[str]
    """Of each image: what its edits are called, before the prompt's id."""

    @property
    def total(self) -> int:
        """How many pairs there are."""
        return len(self.folder.images) * len(self.prompts.prompts)

    def __len__(self) -> int:
        return self.total if self.pairs is None else len(self.pairs)

    def edit(self, number: int) -> dict[str, Any]:
        """One of the edits, as a line of a manifest."""
        image, prompt = divmod(number, len(self.prompts.prompts)) if self.pairs is None else self.pairs[number]
        asked = self.prompts.prompts[prompt]
        path = (self.folder.folder / self.folder.images[image]).absolute()
        return {"custom_id": f"{self.names[image]}.{asked.id}", "image_urls": [str(path)], **asked.fields}

    def write(self, stream: BinaryIO) -> None:
        """All of them, as JSON lines."""
        for number in range(len(self)):
            stream.write(json.dumps(self.edit(number)).encode() + b"\n")

    def examples(self, most: int) -> Iterator[dict[str, Any]]:
        """Some of them from first to last."""
        count = min(most, len(self))
        return (self.edit(number * (len(self) - 1) // max(count - 1, 1)) for number in range(count))


def pair_edits(folder: ImageFolder, prompts: Prompts, sample: int | None) -> PairedEdits:
    """The edits of each image with each prompt, or `sample` of them.

    Raises:
        UserError: they are too many.
    """
    images, asked = len(folder.images), len(prompts.prompts)
    pairs = None if sample is None or sample >= images * asked else draw_pairs(images, asked, sample)
    longest = CUSTOM_ID_MAX - 1 - max(len(prompt.id) for prompt in prompts.prompts)
    found = PairedEdits(folder, prompts, pairs, name_images(folder.images, longest))
    if len(found) > EDITS_MAX:
        raise UserError(
            f"{images} images with {asked} prompts are {found.total} edits; at most {EDITS_MAX} are made: "
            "take part of them, or a --sample."
        )
    return found


def draw_pairs(images: int, prompts: int, count: int) -> list[tuple[int, int]]:
    """So many different pairs, drawn by lot: no image and no prompt stands in two more of them than another."""
    chance = random.Random(DRAW)
    image_order, prompt_order = chance.sample(range(images), images), chance.sample(range(prompts), prompts)
    # round after round over the images, each time with the next prompt: (image + round) never meets a pair again
    numbers = ((number % images, number // images) for number in range(count))
    return sorted((image_order[image], prompt_order[(image + turn) % prompts]) for image, turn in numbers)


def name_images(images: Sequence[Path], longest: int) -> list[str]:
    """What the edits of each image are called: legal in a `custom_id`, of at most `longest` characters, without a full
    stop, and different even where case does not count."""
    stems = [_slug(path.stem) for path in images]
    often = Counter(stem.casefold() for stem in stems)
    used: set[str] = set()
    last: Counter[str] = Counter()
    names = []
    for path, stem in zip(images, stems, strict=True):
        base = stem if often[stem.casefold()] == 1 else _slug("-".join(path.with_suffix("").parts))
        base = base[:longest]
        name = base
        while name.casefold() in used:
            last[base] += 1
            mark = f"-{last[base] + 1}"
            name = base[: longest - len(mark)] + mark
        used.add(name.casefold())
        names.append(name)
    return names


def _slug(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9_]+", "-", plain).strip("-") or "image"
