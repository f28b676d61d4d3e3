"""The model's input: sizes by the model page's rules, and fal's own words for every mistake."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_emulator import sizes
from fal_emulator.arguments import InvalidInput, read
from fal_emulator.options import Options

OPTIONS = Options(state_dir=Path("never-used"))
GOOD: dict[str, Any] = {"prompt": "x", "image_urls": ["u"]}


def mistakes(body: Any, options: Options = OPTIONS) -> list[tuple[str, list[Any]]]:
    """Type and place of everything that is wrong with a body."""
    try:
        read(json.dumps(body).encode(), options)
    except InvalidInput as error:
        return [(entry["type"], entry["loc"][1:]) for entry in error.details]
    return []


@pytest.mark.parametrize(
    ("wanted", "given_back"),
    [
        (None, (2048, 2048)),
        ("square_hd", (1024, 1024)),
        ("square", (960, 960)),
        ("portrait_4_3", (832, 1109)),
        ("portrait_16_9", (720, 1280)),
        ("landscape_4_3", (1109, 832)),
        ("landscape_16_9", (1280, 720)),
        ({"width": 3840, "height": 2160}, (3840, 2160)),
        ({"width": 960, "height": 960}, (960, 960)),
        ({"width": 959, "height": 961}, (960, 962)),
        ({"width": 512}, (960, 960)),
        ({}, (960, 960)),
        ({"width": "1024", "height": 1024.0}, (1024, 1024)),
        ({"width": 2, "height": 1}, (1358, 679)),
        ("auto", None),
        ("auto_2K", None),
    ],
)
def test_sizes(wanted, given_back):
    """Presets, objects with 512 as default, areas below 921600 scaled up, 2048 x 2048 when nothing is asked."""
    body = GOOD if wanted is None else {**GOOD, "image_size": wanted}

    assert given_back == read(json.dumps(body).encode(), OPTIONS).size


@pytest.mark.parametrize(
    ("name", "first_input", "size"),
    [
        ("auto", (1600, 1200), (1600, 1200)),
        ("auto", (300, 200), (1176, 784)),
        ("auto", (9000, 4500), (4096, 2048)),
        ("auto_2K", (100, 100), (2048, 2048)),
        ("auto_4K", (100, 100), (4096, 4096)),
        ("auto_4K", (160, 90), (4096, 2304)),
    ],
)
def test_automatic_sizes(name, first_input, size):
    """auto* takes its shape from the first input that is used."""
    assert size == sizes.automatic(name, first_input, 4096)


@given(width=st.integers(1, 4096), height=st.integers(1, 4096))
def test_scaling_up_keeps_the_shape(width, height):
    """Never below the minimum area, never larger than needed, the same shape to the pixel."""
    wide, high = sizes.at_least_minimum(width, height)

    assert wide * high >= sizes.MINIMUM_AREA
    if width * height >= sizes.MINIMUM_AREA:
        assert (width, height) == (wide, high)
    else:
        assert (wide - 1) * (high - 1) < sizes.MINIMUM_AREA
        assert abs(wide * height - high * width) <= max(width, height)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, [("missing", ["prompt"]), ("missing", ["image_urls"])]),
        ({**GOOD, "prompt": 5}, [("string_type", ["prompt"])]),
        ({**GOOD, "image_urls": "u"}, [("list_type", ["image_urls"])]),
        ({**GOOD, "image_urls": []}, [("sequence_too_short", ["image_urls"])]),
        ({**GOOD, "image_urls": ["u", 3]}, [("string_type", ["image_urls", 1])]),
        ({**GOOD, "num_images": 0}, [("greater_than_equal", ["num_images"])]),
        ({**GOOD, "num_images": 7}, [("less_than_equal", ["num_images"])]),
        ({**GOOD, "max_images": "many"}, [("int_parsing", ["max_images"])]),
        ({**GOOD, "max_images": 1.5}, [("int_from_float", ["max_images"])]),
        ({**GOOD, "max_images": None}, [("int_type", ["max_images"])]),
        ({**GOOD, "seed": "x"}, [("int_parsing", ["seed"])]),
        ({**GOOD, "seed": None}, []),
        ({**GOOD, "sync_mode": "perhaps"}, [("bool_parsing", ["sync_mode"])]),
        ({**GOOD, "enable_safety_checker": []}, [("bool_type", ["enable_safety_checker"])]),
        ({**GOOD, "enhance_prompt_mode": "slow"}, [("literal_error", ["enhance_prompt_mode"])]),
        ({**GOOD, "image_size": "huge"}, [("literal_error", ["image_size"])]),
        ({**GOOD, "image_size": 7}, [("literal_error", ["image_size"])]),
        ({**GOOD, "image_size": {"width": 0}}, [("greater_than", ["image_size", "width"])]),
        ({**GOOD, "image_size": {"height": 4097}}, [("less_than_equal", ["image_size", "height"])]),
        ({**GOOD, "image_size": {"width": "w"}}, [("int_parsing", ["image_size", "width"])]),
        ({**GOOD, "image_size": {"width": 4096, "height": 10}}, [("value_error", ["image_size"])]),
        ({**GOOD, "num_images": 3, "max_images": 5}, [("value_error", [])]),
        ({**GOOD, "image_urls": ["u"] * 10, "num_images": 6}, [("value_error", [])]),
        ({**GOOD, "image_urls": ["u"] * 40, "num_images": 5}, []),
        ({**GOOD, "guidance_scale": "ignored"}, []),
        ([], [("model_attributes_type", [])]),
    ],
)
def test_mistakes(body, expected):
    """Each rule of the schema answers with its type and its place; unknown keys are ignored."""
    assert expected == mistakes(body)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"seed": NaN}', b"[" * 100_000])
def test_bodies_that_are_no_json(emulator, body):
    """What is no JSON is accepted like anything else, and refused by the model."""
    job = emulator.submit_raw(data=body).json()

    assert emulator.finish(job).json()["detail"][0]["type"] == "json_invalid"


def test_only_the_last_ten_inputs_are_used():
    """More than ten inputs are no error; the first ones are silently dropped."""
    urls = [f"u{n}" for n in range(13)]

    assert tuple(urls[-10:]) == read(json.dumps({**GOOD, "image_urls": urls}).encode(), OPTIONS).image_urls


def test_a_long_value_is_not_echoed():
    """A 422 does not carry a data URI of megabytes back."""
    with pytest.raises(InvalidInput) as caught:
        read(json.dumps({**GOOD, "num_images": "x" * 100_000}).encode(), OPTIONS)

    assert "input" not in caught.value.details[0]


def test_enormous_seed(emulator):
    """A seed that no database takes as an integer still runs and comes back."""
    job = emulator.submit(seed=10**30)

    assert emulator.finish(job).json()["seed"] == 10**30
    assert emulator.row(job)["seed"] is None
