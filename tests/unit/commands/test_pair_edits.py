"""Each image with each prompt: legal names that never clash, and a sample that favours no image and no prompt."""

import json
from collections import Counter
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.batches.image_folder import ImageFolder
from cli.batches.pair_edits import PairedEdits, draw_pairs, name_images, pair_edits
from cli.batches.prompts_file import Prompt, Prompts
from core.errors import UserError
from intake.manifest import NewEdit, read_jsonl

sides = st.integers(1, 40)


def paired(images: list[str], prompts: list[str], sample: int | None = None) -> PairedEdits:
    folder = ImageFolder(Path("/photos"), [Path(image) for image in images], Counter())
    asked = [Prompt(number, str(number), {"prompt": text}) for number, text in enumerate(prompts, 1)]
    return pair_edits(folder, Prompts(asked, []), sample)


def lines(edits: PairedEdits) -> list[dict[str, object]]:
    stream = BytesIO()
    edits.write(stream)
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_all_pairs_in_order() -> None:
    """The images in their order, each with the prompts in theirs; the paths hold from any folder."""
    found = lines(paired(["a.jpg", "b/ü.png"], ["Blue", "Ünter"]))
    assert [(line["custom_id"], line["image_urls"], line["prompt"]) for line in found] == [
        ("a.1", ["/photos/a.jpg"], "Blue"),
        ("a.2", ["/photos/a.jpg"], "Ünter"),
        ("u.1", ["/photos/b/ü.png"], "Blue"),
        ("u.2", ["/photos/b/ü.png"], "Ünter"),
    ]


@settings(max_examples=50)
@given(images=sides, prompts=sides, share=st.floats(0, 1))
def test_a_sample_favours_none(images: int, prompts: int, share: float) -> None:
    """Every pair once; each image, and each prompt within a round over the images, as often as any other."""
    count = max(1, int(images * prompts * share))
    pairs = draw_pairs(images, prompts, count)
    assert len(set(pairs)) == len(pairs) == count
    assert all(0 <= image < images and 0 <= prompt < prompts for image, prompt in pairs)
    of_images = Counter(image for image, _ in pairs)
    assert max(of_images.values()) - min(of_images[image] for image in range(images)) <= 1
    if count >= prompts:
        assert len({prompt for _, prompt in pairs}) == prompts or images < prompts


def test_a_sample_is_the_same_again_and_called_the_same() -> None:
    """So that an idempotency key holds, and the whole can be submitted afterwards under the same names."""
    images, prompts = [f"{number}.jpg" for number in range(30)], ["Blue", "Red", "Green"]
    sample, again = lines(paired(images, prompts, 10)), lines(paired(images, prompts, 10))
    assert sample == again
    assert [line for line in lines(paired(images, prompts)) if line in sample] == sample
    assert len(sample) == 10


def test_a_sample_of_more_than_there_are() -> None:
    """All of them."""
    assert len(paired(["a.jpg"], ["Blue", "Red"], 5)) == 2


def test_a_slip_is_refused_before_it_fills_the_disk() -> None:
    """With what it would have been, and the way out."""
    images, prompts = [f"{number}.jpg" for number in range(2_000)], [f"{number}" for number in range(1_000)]
    with pytest.raises(UserError, match="2000 images with 1000 prompts are 2000000 edits; at most 1000000 are made"):
        paired(images, prompts)
    assert len(paired(images, prompts, 50)) == 50


NAMES = ["IMG_1.jpg", "IMG_1.png", "img_1.jpeg", "b/IMG_1.jpg", "Käse Größe.png", "写真.png", "絵.png", "image.png"]


def test_names_are_told_apart() -> None:
    """Where only the ending, the case, the folder or the alphabet differs; a store may not tell case apart."""
    names = name_images([Path(name) for name in NAMES], 60)
    assert names == ["IMG_1", "IMG_1-2", "img_1-3", "b-IMG_1", "Kase-Groe", "image", "image-2", "image-3"]


@settings(max_examples=50)
@given(
    names=st.lists(st.text(min_size=1, max_size=90).filter(lambda name: "/" not in name and name != "."), max_size=9)
)
def test_every_name_is_legal(names: list[str]) -> None:
    """Whatever files are called, the manifest's own reader takes the edits."""
    edits = paired([f"{number % 2}/{name}.png" for number, name in enumerate(names)] + ["x.png"] * 3, ["Blue"] * 11)
    stream = BytesIO()
    edits.write(stream)
    for entry in read_jsonl(BytesIO(stream.getvalue()), local_paths=True):
        legal = isinstance(entry, NewEdit) or all(fault.field == "image_urls" for fault in entry.faults)
        assert legal, str(entry)


def test_examples_are_from_first_to_last() -> None:
    """Three of many, and no more than there are."""
    many = paired([f"{number:02}.jpg" for number in range(11)], ["Blue"])
    assert [edit["custom_id"] for edit in many.examples(3)] == ["00.1", "05.1", "10.1"]
    assert [edit["custom_id"] for edit in paired(["a.jpg"], ["Blue"]).examples(3)] == ["a.1"]
