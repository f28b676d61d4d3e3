"""`--convert`: what a model may not take becomes what it takes, as a person sees it; the original is never touched."""

import io
from pathlib import Path
from typing import Any

import pillow_heif
import pytest
from PIL import Image, ImageCms

from cli.batches import convert_images
from cli.batches.convert_images import inspect_converted, open_content
from core.errors import UnfitInput, UserError
from provider.uploads import LocalFile
from tests.support.input_files import drawn, encoded, turned

RED = Image.new("RGB", (60, 40), (200, 30, 30))


def heic(image: Image.Image, **options: Any) -> bytes:
    pillow_heif.register_heif_opener(thumbnails=False)
    return encoded(image, "HEIF", **options)


def converted(folder: Path, data: bytes, name: str = "a.jpg") -> tuple[LocalFile, Image.Image]:
    path = folder / name
    path.write_bytes(data)
    file = inspect_converted(path)
    with open_content(file) as content:
        sent = content.read()
    image = Image.open(io.BytesIO(sent))
    image.load()
    assert (len(sent), path.read_bytes()) == (file.bytes, data)
    return file, image


def lab() -> Image.Image:
    found = ImageCms.profileToProfile(
        RED, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert found is not None
    return found


GIF = encoded(RED, "GIF", save_all=True, append_images=[drawn(), drawn(seed=2)])
KINDS: dict[str, tuple[bytes, str, str]] = {
    "HEIC": (heic(RED), "HEIC sent as JPEG", "a.jpg"),
    "AVIF": (encoded(RED, "AVIF"), "AVIF sent as JPEG", "a.jpg"),
    "TIFF": (encoded(RED, "TIFF"), "TIFF sent as PNG", "a.png"),
    "TIFF of printers": (encoded(RED.convert("CMYK"), "TIFF"), "TIFF sent as PNG", "a.png"),
    "TIFF in LAB": (encoded(lab(), "TIFF"), "TIFF sent as PNG", "a.png"),
    "BMP": (encoded(RED, "BMP"), "BMP sent as PNG", "a.png"),
    "JPEG 2000": (encoded(RED, "JPEG2000"), "JPEG 2000 sent as JPEG", "a.jpg"),
    "WebP": (encoded(RED, "WEBP"), "WEBP sent as JPEG", "a.jpg"),
    "CMYK": (encoded(RED.convert("CMYK"), "JPEG"), "JPEG sent as JPEG: CMYK as RGB", "a.jpg"),
    "animation": (GIF, "GIF sent as PNG: its first image", "a.png"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds(tmp_path: Path, kind: str) -> None:
    """In the colours of the original, under a name that fits, and nothing is left to warn of."""
    data, note, name = KINDS[kind]
    file, image = converted(tmp_path, data)
    assert (file.converted, file.name, file.warnings) == (note, name, ())
    assert (image.size, image.mode, file.content_type) == ((60, 40), "RGB", f"image/{note.split()[-1].lower()}") or (
        ":" in note
    )
    red, green, blue = image.getpixel((5, 5))  # type: ignore[misc]
    assert abs(red - 200) < 12
    assert abs(green - 30) < 12
    assert abs(blue - 30) < 12


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_what_is_fine_goes_as_it_is(tmp_path: Path, kind: str) -> None:
    """Byte for byte."""
    file, _ = converted(tmp_path, encoded(drawn(), kind))
    assert file.converted is None


def test_upright(tmp_path: Path) -> None:
    """As the camera was held; and what it noted is gone, which else would turn it once more."""
    image = RED.copy()
    image.putpixel((0, 0), (0, 0, 255))
    file, sent = converted(tmp_path, encoded(image, "PNG", exif=turned(6)), "a.png")
    assert (file.converted, sent.size) == ("PNG sent as PNG: turned upright", (40, 60))
    assert sent.getpixel((39, 0)) == (0, 0, 255)
    assert not sent.getexif()
    _, sent = converted(tmp_path, heic(RED, exif=turned(6).tobytes()), "a.heic")
    assert sent.size == (40, 60)


@pytest.mark.parametrize(("kind", "value", "shown"), [("PNG", 40_000, 156), ("TIFF", 65_535, 255), ("PNG", 200, 0)])
def test_16_bits_keep_their_brightness(tmp_path: Path, kind: str, value: int, shown: int) -> None:
    """Of 65 536 steps every 256th; cut off at 255 nearly all would be white."""
    file, image = converted(tmp_path, encoded(Image.new("I;16", (60, 40), value), kind))
    assert (image.mode, image.getpixel((1, 1)), file.warnings) == ("L", shown, ())


def test_what_stands_beside_the_image_stays_behind(tmp_path: Path) -> None:
    """Comments, places and thumbnails of a camera are nothing to edit."""
    data = encoded(RED.convert("CMYK"), "JPEG", comment=b"who and where", exif=turned(6), dpi=(300, 300))
    _, image = converted(tmp_path, data)
    assert "comment" not in image.info
    assert not image.getexif()


def test_transparency_stays(tmp_path: Path) -> None:
    """Also under a profile; and what has some never becomes JPEG."""
    clear = RED.convert("RGBA")
    clear.putpixel((3, 4), (10, 20, 30, 128))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    _, image = converted(tmp_path, encoded(clear, "WEBP", lossless=True, icc_profile=profile))
    assert (image.format, image.getpixel((3, 4))) == ("PNG", (10, 20, 30, 128))
    palette = Image.new("P", (60, 40), 0)
    palette.putpalette([0, 255, 0] * 256)
    _, image = converted(tmp_path, encoded(palette, "GIF", transparency=0))
    assert image.getpixel((0, 0)) == (0, 255, 0, 0)


def test_a_png_that_would_be_too_heavy_becomes_jpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan as PNG is beyond what other sellers of the model take."""
    monkeypatch.setattr(convert_images, "ELSEWHERE_BYTES", 5_000)
    file, _ = converted(tmp_path, encoded(drawn(), "TIFF"))
    assert file.converted == "TIFF sent as JPEG"


def test_the_same_file_becomes_the_same_bytes(tmp_path: Path) -> None:
    """It is made when it is judged and again when it is sent; and tomorrow it is known to be uploaded already."""
    data = heic(drawn((300, 200)))
    first, _ = converted(tmp_path, data, "a.heic")
    second, _ = converted(tmp_path, data, "b.heic")
    assert first.sha256 == second.sha256


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (heic(RED)[:300], "cannot be converted: it is damaged, or of a kind"),
        (encoded(drawn((300, 200)), "TIFF")[:5000], "cannot be converted: "),
        (encoded(Image.new("F", (60, 40), 0.5), "TIFF"), "cannot be converted: its pixels are fractions"),
        (encoded(drawn((300, 200)), "JPEG")[:5000], "is cut short or damaged"),
        (b"<svg/>", "it is SVG; export it as PNG"),
        (b"", "is empty"),
        (encoded(Image.new("L", (20, 4)), "BMP"), "once it is converted, has 20x4 pixels; darkroom sends at least 8"),
    ],
)
def test_what_cannot_be_helped(tmp_path: Path, data: bytes, words: str) -> None:
    """One sentence that names the file."""
    with pytest.raises(UnfitInput) as caught:
        converted(tmp_path, data)
    assert str(caught.value).startswith(str(tmp_path / "a.jpg"))
    assert words in str(caught.value)


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HEIC only needs it; and how to get it is said."""
    monkeypatch.setattr(convert_images, "_register_heif", lambda: False)
    monkeypatch.setattr(convert_images, "READABLE", tuple(set(convert_images.READABLE) - {"HEIF"}))
    with pytest.raises(UserError, match=r"with pillow-heif only: pip install 'darkroom\[heif\]'\."):
        converted(tmp_path, heic(RED))
    assert converted(tmp_path, encoded(RED, "TIFF"))[0].converted
