"""A URL is parsed and a data URI is read as RFC 2397 has it, by one rule at every entry point."""

import base64
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intake.csv_manifest import read_csv
from intake.manifest import FaultyLine, NewEdit, read_jsonl, read_objects
from models.image_inputs import check_web_url, is_local_path, is_web_url, read_image_url

PIXELS = base64.b64encode(b"\xfb\xff\xfe image").decode()
PLAIN = f"data:image/png;base64,{PIXELS}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("https://example.com/a.png,https://example.com/b.png", "joins several URLs"),
        ("https://example.com/a.png;https://example.com/b.png", "joins several URLs"),
        ("https://example.com/a.png|http://example.com/b.png", "joins several URLs"),
        ("https://example.com/a.png, https://example.com/b.png", "holds a blank"),
        ("https://example.com/a.png,data:image/png;base64,AAAA", "joins several URLs"),
        *(
            (f"https://example.com/a.png{mark}https://example.com/b.png", "joins several URLs")
            for mark in ("", "+", "=>", "\uff0c", "\uff1b", "\u3001")
        ),
        ("https://example.com/a.pngdata:image/png;base64,AAAA", "joins several URLs"),
        ("https://", "without a host"),
        ("https:///a.png", "without a host"),
        ("https:example.com/a.png", "without a host"),
        ("https:/example.com/a.png", "without a host"),
        ("https://?x", "without a host"),
        ("https://:80/a.png", "without a host"),
        ("https://https://example.com/a.png", "names its scheme twice"),
        ("https://https//example.com/a.png", "names its scheme twice"),
        ("https://example.com:port/a.png", "host or port"),
        ("https://example.com:99999/a.png", "host or port"),
        ("https://[::1/a.png", "host or port"),
        ("https://example..com/a.png", "host or port"),
        ("https://exa<mple.com/a.png", "host or port"),
        ("https://host/a b.png", "holds a blank"),
        ("https://host/a\tb.png", "holds a blank"),
        ("https://host/a\u00a0b.png", "holds a blank"),
        ("ftp://host/a.png", "is no URL"),
        ("example.com/a.png", "is no URL"),
    ],
)
def test_what_is_not_one_url(text: str, words: str) -> None:
    """The sentence says what is wrong with it."""
    reason = check_web_url(text)
    assert reason is not None
    assert words in reason


@pytest.mark.parametrize(
    "text",
    [
        "https://example.com/w_200,h_100/a.png",
        "https://example.com/a;v=1.png?x=1,2;3|4",
        "https://example.com/fetch/https://other.example/a.png",
        "https://example.com/?u=https://other.example/a.png",
        "https://example.com/?next=%2Fgo%3Fu%3Dhttps://other.example/a.png",
        "https://web.example/2026id_/https://other.example/a.png",
        "https://user:word@example.com:8443/a.png",
        "https://[2001:db8::1]:8080/a.png",
        "http://localhost/a.png",
        "http://my_host.example/a.png",
        "https://münchen.example./ü.png",
        "HTTPS://EXAMPLE.COM",
        "https://example.com/a%2Cb.png#part",
    ],
)
def test_urls_that_are_one(text: str) -> None:
    """Commas, semicolons and other URLs may be part of a URL."""
    assert is_web_url(text)
    assert not is_local_path(text)
    assert read_image_url(text) == text


@pytest.mark.parametrize(
    "given_",
    [
        PLAIN,
        f"data:image/png;charset=utf-8;base64,{PIXELS}",
        f"data:image/png;name=a.png; BASE64,{PIXELS}",
        f"data:image/png;base64,{PIXELS.rstrip('=')}",
        f"data:image/png;base64,{PIXELS[:8]}\r\n{PIXELS[8:]}\r\n",
        f"data:image/png;base64,{PIXELS[:8]} {PIXELS[8:]}",
        f"data:image/png;base64,{PIXELS.replace('+', '-').replace('/', '_')}",
        f"data:image/png;base64,{PIXELS.replace('+', '%2B').replace('/', '%2F').replace('=', '%3D')}",
    ],
)
def test_a_data_uri_is_sent_in_one_form(given_: str) -> None:
    """Parameters, line ends, padding and alphabets: at every entry point it becomes what the provider takes."""
    assert read_image_url(given_) == PLAIN
    edit = {"prompt": "x", "image_urls": [given_]}
    lines = read_jsonl(io.BytesIO(json.dumps(edit).encode()))
    for entry in (*lines, *read_objects([edit])):
        assert isinstance(entry, NewEdit), entry
        assert entry.arguments["image_urls"] == [PLAIN]


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ("data:image/png;base64", "without a comma"),
        ("data:text/html;base64,AAAA", "of no image"),
        ("data:,AAAA", "of no image"),
        ("data:;base64,AAAA", "of no image"),
        ("data:image/png,%89PNG", "not in base64"),
        ("data:image/svg+xml;utf8,<svg/>", "not in base64"),
        ("data:image/png;base64;charset=utf-8,AAAA", "not in base64"),
        ("data:image/png;base64,", "an empty data URI"),
        ("data:image/png;base64,A*AA", "characters that are no base64"),
        ("data:image/png;base64,AAAAA", "cut short"),
        ("DATA:image/png;base64,=", "an empty data URI"),
        ("data:image/png;base64,AA AA==", "a blank of each +"),
        ("data:image/png;base64,AAA==", "padding does not fit"),
    ],
)
@pytest.mark.parametrize("local_paths", [False, True])
def test_a_data_uri_that_cannot_be_sent_is_told_why(given_: str, words: str, local_paths: bool) -> None:
    """The reason is true, and the same whether paths are allowed or not."""
    line = json.dumps({"prompt": "x", "image_urls": [given_]}).encode()
    [entry] = read_jsonl(io.BytesIO(line), local_paths=local_paths)
    assert isinstance(entry, FaultyLine)
    assert words in str(entry)


@given(st.text(st.sampled_from("dataimge/png;base64,htps:.=%_-+ \n|A0é["), max_size=40))
def test_whatever_the_text_is(text: str) -> None:
    """It is taken in a form that is taken again unchanged, or refused in words."""
    reason = None
    try:
        sent = read_image_url(text)
    except ValueError as error:
        reason = str(error)
    if reason is not None:
        assert reason.isprintable()
    else:
        assert read_image_url(sent) == sent
        assert not set(sent) & set(" \n")


@pytest.mark.parametrize("name", ["a.png", "a b/ö %2F?#,c.png", "...", "C:/x", "x" * 512, "é" * 256])
def test_an_object_is_named_as_it_is(name: str) -> None:
    """Whatever a key holds; only the scheme may be in capitals."""
    assert read_image_url(f"storage://{name}") == f"storage://{name}"
    assert read_image_url(f"STORAGE://{name}") == f"storage://{name}"
    assert not is_local_path(f"storage://{name}")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "names no object"),
        ("/a", "no part of it is empty"),
        ("a//b", "no part of it is empty"),
        ("a/", "no part of it is empty"),
        ("a/../b", "no part of it is empty"),
        (".", "no part of it is empty"),
        ("a\nb", "no control character"),
        ("a\\b", "or backslash"),
        ("a.png, storage://b.png", "no part of it is empty"),
        ("é" * 257, "more than 512 bytes"),
    ],
)
def test_what_names_no_object_is_told_why(name: str, words: str) -> None:
    """The same at every entry point, and never a way out of the client's own objects."""
    [entry] = read_objects([{"prompt": "x", "image_urls": [f"storage://{name}"]}])
    assert isinstance(entry, FaultyLine)
    assert words in str(entry)


def test_objects_in_a_cell_of_a_table() -> None:
    """Several are told apart as URLs are, and one with blanks and commas is one."""
    table = b'prompt,image_urls\nx,"storage://a, b.png; storage://c.png"\nx,storage://my holiday.png\n'
    entries = list(read_csv(io.BytesIO(table)))
    assert [entry.arguments["image_urls"] for entry in entries if isinstance(entry, NewEdit)] == [
        ["storage://a, b.png", "storage://c.png"],
        ["storage://my holiday.png"],
    ]
