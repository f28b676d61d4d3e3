"""When two inputs are one: what an echo may add or rewrite, and what makes another image."""

import pytest

from models.seedream import has_unknown_fields, identify_input

GIVEN = {"prompt": "put the hat on", "image_urls": ["https://e.com/a.png", "data:image/png;base64,AAAA"], "seed": 7}
DEFAULTS = {
    "image_size": {"width": 2048, "height": 2048},
    "num_images": 1,
    "max_images": 1,
    "sync_mode": False,
    "enable_safety_checker": True,
    "enhance_prompt_mode": "standard",
}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, DEFAULTS),
        ({}, dict.fromkeys(DEFAULTS)),
        ({}, {"num_images": 1.0, "image_size": {"height": 2048.0, "width": 2048}}),
        ({"image_size": {"width": 1024}}, {"image_size": {"height": 512, "width": 1024}}),
        ({"num_images": 2}, {"num_images": 2.0}),
    ],
)
def test_same_input(one: dict, other: dict) -> None:
    """A default that is filled in, a null, another order, another way to write a number: all the same input."""
    assert identify_input({**GIVEN, **one}) == identify_input({**other, **GIVEN, **other})


@pytest.mark.parametrize(
    "other",
    [
        {"prompt": "put the hat on "},
        {"seed": 8},
        {"seed": None},
        {"image_urls": GIVEN["image_urls"][::-1]},
        {"image_urls": ["https://e.com/a.png?v=2", GIVEN["image_urls"][1]]},
        {"image_urls": [GIVEN["image_urls"][0], "data:image/png;base64,AAAB"]},
        {"num_images": 2},
        {"enable_safety_checker": False},
        {"sync_mode": True},
        {"image_size": "square_hd"},
        {"image_size": {"width": 2048, "height": 2047}},
        {"image_size": {}},
    ],
)
def test_another_input(other: dict) -> None:
    """Whatever changes the image makes another input."""
    assert identify_input({**GIVEN, **other}) != identify_input(GIVEN)


def test_unknown_field() -> None:
    """It may be ours, decorated, or another program's: told apart, not taken for the same."""
    decorated = {**GIVEN, "negative_prompt": "rain"}
    assert identify_input(decorated) == identify_input(GIVEN)
    assert (has_unknown_fields(decorated), has_unknown_fields(GIVEN)) == (True, False)
