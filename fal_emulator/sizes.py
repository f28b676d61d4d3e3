"""How large the image becomes: the model page's own rules, as pure arithmetic (provider-protocol 9.1)."""

from math import isqrt

MINIMUM_AREA = 921_600
DEFAULT = (2048, 2048)
OBJECT_DEFAULT = 512  # an omitted width or height of an image_size object

PRESETS = {
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1024, 576),
}
# `auto*` takes its shape from the first input that is used. The areas are this emulator's reading of the names.
AUTO_AREAS = {"auto": None, "auto_2K": 2048 * 2048, "auto_4K": 4096 * 4096}
NAMES = (*PRESETS, *AUTO_AREAS)


def with_area(width: int, height: int, area: int) -> tuple[int, int]:
    """The smallest whole-numbered size of about the same shape that has at least `area` pixels."""
    return _ceil_sqrt(area * width, height), _ceil_sqrt(area * height, width)


def _ceil_sqrt(numerator: int, denominator: int) -> int:
    quotient = -(-numerator // denominator)
    root = isqrt(quotient)
    return root if root * root == quotient else root + 1


def at_least_minimum(width: int, height: int) -> tuple[int, int]:
    """Too small an area is scaled up, keeping the shape; there is no error for it."""
    if width * height >= MINIMUM_AREA:
        return width, height
    return with_area(width, height, MINIMUM_AREA)


def automatic(name: str, first_input: tuple[int, int], max_side: int) -> tuple[int, int]:
    """The size of `auto*` for an input of that size."""
    area = AUTO_AREAS[name]
    width, height = first_input if area is None else with_area(*first_input, area)
    if max(width, height) > max_side:
        width, height = (max(1, round(side * max_side / max(first_input))) for side in first_input)
    return at_least_minimum(width, height)
