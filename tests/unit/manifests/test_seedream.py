"""The schema refuses, before money is spent, what the provider would refuse or silently change, and says why."""

import json
import re
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from models.image_inputs import is_local_path
from models.seedream import (
    MAX_SIDE,
    MIN_AREA,
    WIDEST_SHAPE,
    EditArguments,
    EditOutput,
    Fault,
    as_sent,
    expected_size,
    faults,
    most_images,
    warnings,
)

URL = "https://v3b.fal.media/files/b/koala/in.png"
JARGON = re.compile(r"Input should|valid|type=|pydantic|validat")
PLAIN = {"prompt": "Put a hat on the cat", "image_urls": [URL]}
PAGE_EXAMPLE = {
    "prompt": "Dress the model in the clothes and hat.",
    "image_size": {"height": 2160, "width": 3840},
    "num_images": 1,
    "max_images": 1,
    "enable_safety_checker": True,
    "enhance_prompt_mode": "standard",
    "image_urls": [URL] * 4,
}


def _edit(**fields: object) -> EditArguments:
    return EditArguments.model_validate({**PLAIN, **fields})


def _faults(document: object, **context: bool) -> list[Fault]:
    with pytest.raises(ValidationError) as caught:
        EditArguments.model_validate(document, context=context)
    return faults(caught.value)


def test_the_providers_own_example_is_accepted() -> None:
    """The request on the model's page is sent exactly as it stands there."""
    arguments = EditArguments.model_validate(PAGE_EXAMPLE)

    assert as_sent(arguments, 5) == {**PAGE_EXAMPLE, "seed": 5}


def test_defaults_are_the_providers() -> None:
    """What is not given counts as the provider counts it."""
    arguments = _edit()

    assert (arguments.num_images, arguments.max_images, most_images(arguments)) == (1, 1, 1)
    assert (arguments.sync_mode, arguments.enable_safety_checker) == (False, True)
    assert arguments.enhance_prompt_mode == "standard"
    assert expected_size(arguments) == (2048, 2048)


def test_only_what_the_caller_gave_is_sent() -> None:
    """No default of ours is written into a paid request, not even inside `image_size`."""
    assert as_sent(_edit(image_size={"width": 4096}), 7) == {**PLAIN, "image_size": {"width": 4096}, "seed": 7}
    assert as_sent({**PLAIN, "seed": None}, 7) == {**PLAIN, "seed": 7}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"prompt": None}, ("prompt", "must be text, not null")),
        ({"prompt": " \n\t"}, ("prompt", "must not be blank")),
        ({"prompt": "a\0b"}, ("prompt", "holds a NUL character")),
        ({"prompt": "a\ud800"}, ("prompt", "holds half of a surrogate pair")),
        ({"image_urls": URL}, ("image_urls", "must be a list, not text")),
        ({"image_urls": []}, ("image_urls", "at least one image is needed")),
        (
            {"image_urls": [URL] * 11},
            ("image_urls", "11 images given, at most 10 are allowed (the provider would drop the first ones)"),
        ),
        ({"image_urls": [URL, 7]}, ("image_urls", "image 2 must be text, not a whole number")),
        (
            {"image_urls": ["cat.png"]},
            ("image_urls", "image 1 is neither a URL (http, https) nor a data URI of an image"),
        ),
        ({"num_images": "2"}, ("num_images", "must be a whole number, not text")),
        ({"num_images": True}, ("num_images", "must be a whole number, not true or false")),
        ({"num_images": 2.0}, ("num_images", "must be a whole number, not a number with a fraction")),
        ({"num_images": 7}, ("num_images", "must be at most 6")),
        ({"max_images": 0}, ("max_images", "must be at least 1")),
        ({"seed": 2**63}, ("seed", "must be at most 9223372036854775807")),
        ({"sync_mode": 1}, ("sync_mode", "must be true or false, not a whole number")),
        ({"enhance_prompt_mode": "slow"}, ("enhance_prompt_mode", "must be 'standard' or 'fast'")),
        ({"image_size": {"width": 0}}, ("image_size", "width must be at least 1")),
        ({"image_size": {"width": 5000, "height": 2000}}, ("image_size", "width must be at most 4096")),
        ({"image_size": {"width": 2048, "height": 4097}}, ("image_size", "height must be at most 4096")),
        (
            {"image_size": {"width": 4096, "height": 10}},
            ("image_size", "4096x10 is too narrow: one side may be at most 16 times the other"),
        ),
        ({"image_size": {"widht": 1}}, ("image_size", "widht is not a known field; did you mean width?")),
        ({"image_url": URL}, ("image_url", "is not a known field; did you mean image_urls?")),
        ({"guidance_scale": 3}, ("guidance_scale", "is not a known field")),
        ({"name": "x"}, ("name", "is not a known field")),
    ],
)
def test_a_fault_is_a_plain_sentence_about_its_field(fields: dict[str, Any], expected: tuple[str, str]) -> None:
    """Whoever wrote the manifest learns what to change, without knowing how we validate."""
    assert _faults({**PLAIN, **fields}) == [Fault(*expected)]


@pytest.mark.parametrize("size", ["huge", 7, None, [1, 2]])
def test_a_wrong_size_is_told_all_its_forms(size: object) -> None:
    """Nobody has to look up the nine names."""
    [fault] = _faults({**PLAIN, "image_size": size})

    assert fault.field == "image_size"
    assert all(form in fault.reason for form in ("square_hd", "landscape_16_9", "auto_4K", "width and height"))


def test_all_faults_are_told_at_once() -> None:
    """Mending one fault does not only uncover the next."""
    document = {"image_urls": [], "num_images": 9, "seed": "lucky", "imagesize": "square"}

    assert [fault.field for fault in _faults(document)] == ["prompt", "image_urls", "num_images", "seed", "imagesize"]


def test_inputs_and_results_together_are_at_most_fifteen() -> None:
    """The provider's joint limit holds before the provider sees it; the numbers are in the sentence."""
    assert most_images(_edit(image_urls=[URL] * 9, num_images=2, max_images=3)) == 6

    [fault] = _faults({**PLAIN, "image_urls": [URL] * 10, "num_images": 2, "max_images": 3})

    assert fault.field == "num_images"
    assert {"6", "10", "16", "15"} <= set(re.findall(r"\d+", fault.reason))


@pytest.mark.parametrize(
    "entry",
    [
        "http://127.0.0.1:9000/a.png",
        "HTTPS://host/a%20b.png?x=1#y",
        "https://münchen.example/ü.png",
        "data:image/png;base64,iVBORw0KGgo=",
        "data:image/svg+xml;base64,AAAA",
    ],
)
def test_images_may_be_addresses_or_data(entry: str) -> None:
    """Both forms that the provider documents pass unchanged."""
    assert _edit(image_urls=[entry]).image_urls == [entry]


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "ftp://host/a.png",
        "file:///a.png",
        "s3://bucket/a.png",
        "https://",
        "https:///a.png",
        "https://host/a b.png",
        " https://host/a.png",
        "https://host/a.png\n",
        "data:text/html;base64,AAAA",
        "data:image/png,raw",
        "data:image/png;base64,",
        "data:image/png;base64,not base64",
    ],
)
@pytest.mark.parametrize("local_paths", [False, True])
def test_what_the_provider_cannot_fetch_is_refused(entry: str, local_paths: bool) -> None:
    """An image that cannot be loaded costs a run; allowing local paths opens no other entry point."""
    [fault] = _faults({**PLAIN, "image_urls": [entry]}, local_paths=local_paths)

    assert fault.field == "image_urls"


@pytest.mark.parametrize("entry", ["cat.png", "./in/cat.png", "/srv/cat 1.png", "C:\\cats\\1.png"])
def test_local_paths_pass_only_where_the_caller_uploads_them(entry: str) -> None:
    """A path that nobody uploads would be sent to the provider as it stands."""
    accepted = EditArguments.model_validate({**PLAIN, "image_urls": [entry]}, context={"local_paths": True})

    assert accepted.image_urls == [entry]
    assert is_local_path(entry)
    assert not is_local_path(URL)
    assert _faults({**PLAIN, "image_urls": [entry]})


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ({"width": 512, "height": 512}, (960, 960)),
        ({}, (960, 960)),
        ({"width": 1280, "height": 720}, (1280, 720)),
        ({"width": 1279, "height": 720}, (1280, 721)),
        ({"height": 100}, (2173, 425)),
        ({"width": 4096, "height": 4096}, (4096, 4096)),
        ("square", (960, 960)),
        ("square_hd", (1024, 1024)),
        ("portrait_4_3", (832, 1109)),
        ("landscape_16_9", (1280, 720)),
        ("auto", None),
        ("auto_2K", None),
        ("auto_4K", None),
    ],
)
def test_the_size_that_will_really_come(size: object, expected: tuple[int, int] | None) -> None:
    """A size under the provider's minimum comes scaled up, an `auto` size is the model's choice."""
    assert expected_size(_edit(image_size=size)) == expected


@given(st.integers(1, 4096), st.integers(1, 4096))
def test_scaling_reaches_the_minimum_and_keeps_the_shape(width: int, height: int) -> None:
    """Never below the minimum area, never further above it than rounding up both sides explains."""
    assume(max(width, height) <= WIDEST_SHAPE * min(width, height))
    real = expected_size(_edit(image_size={"width": width, "height": height}))

    assert real is not None
    assert real[0] * real[1] >= MIN_AREA
    assert max(real) <= MAX_SIDE
    if width * height < MIN_AREA:
        assert (real[0] - 1) * (real[1] - 1) < MIN_AREA
        assert (real[0] - 1) * height < real[1] * width
        assert (real[1] - 1) * width < real[0] * height


def test_a_size_that_changes_is_warned_of() -> None:
    """The caller learns the real size before paying; a size that stays brings no warning."""
    [warning] = warnings(_edit(image_size={"width": 512, "height": 512}))

    assert "512x512" in warning
    assert "960x960" in warning
    assert warnings(_edit(image_size={"width": 1280, "height": 720})) == []
    assert warnings(_edit(image_size="auto_4K")) == []
    assert warnings(_edit()) == []


def test_answers_inside_the_result_are_warned_of() -> None:
    """With sync_mode the provider forgets the result within minutes."""
    [warning] = warnings(_edit(sync_mode=True))

    assert warning.startswith("sync_mode")


def test_no_prompt_is_shown_in_an_error() -> None:
    """Validation errors reach logs, prompts must not."""
    with pytest.raises(ValidationError) as caught:
        EditArguments.model_validate({"prompt": 5, "image_urls": ["secret-address"]})

    assert "secret-address" not in str(caught.value)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys((*EditArguments.model_fields, "x\n", "\ud800"), _json)))
def test_whatever_is_given_is_accepted_or_told_plainly(document: dict[str, Any]) -> None:
    """No input raises anything else, no reason speaks the validator's jargon, every one can be printed."""
    assume(not JARGON.search(repr(document)))  # a reason may quote what was given
    try:
        arguments = EditArguments.model_validate(document)
    except ValidationError as error:
        reasons = faults(error)
        assert reasons
        for fault in reasons:
            assert not JARGON.search(fault.reason)
            assert f"{fault.field}: {fault.reason}".isprintable()
    else:
        json.dumps(as_sent(arguments, 1), ensure_ascii=False).encode()


def test_a_named_field_of_an_image_may_be_missing() -> None:
    """The model's page shows an answer with nothing but addresses; the other fields are a courtesy."""
    output = EditOutput.model_validate({"images": [{"url": URL}], "seed": 746406749})

    assert (output.images[0].url, output.images[0].width, output.seed) == (URL, None, 746406749)
