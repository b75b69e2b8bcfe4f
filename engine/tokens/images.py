"""Tokens of an image, by OpenAI's published rules, and its size, from its first bytes.

Older models cut an image into tiles of 512 px, newer ones into patches of 32 px. Source: OpenAI, "Images and vision"
(developers.openai.com/api/docs/guides/images-vision), sections "Model sizing behavior" and "Calculating costs", read
2026-03 (tiles, and patches up to gpt-5.4) and 2026-09 (patches from gpt-5.6 on). The multiplier 1.2 of gpt-5.2 to
gpt-5.5, and the tiles of gpt-5.1, are not on that page: they were measured by users.
"""

import math
import re
from base64 import b64decode
from binascii import Error as Base64Error
from typing import TypeAlias

import msgspec

from ..models.names import base_model

Size: TypeAlias = tuple[int, int]
"""A width and a height in pixels."""


class Image(msgspec.Struct, frozen=True):
    """An image in a message."""

    size: Size | None
    """Width and height; None where only OpenAI knows them: images by URL or file id."""
    detail: str = "auto"
    """The detail asked for: `low`, `high`, `original` or `auto`."""

    def tokens(self, model: str) -> int | None:
        """Count the image's tokens; None if its size is unknown. Models without a known rule count as the newest."""
        return _rule_of(model).tokens(self.size, self.detail)

    def bound(self, model: str) -> int | None:
        """Find the upper bound of the image's tokens; None if its size is unknown."""
        known = any(name.match(base_model(model)) for name, _ in _RULES)
        rules = [_rule_of(model)] if known else [rule for _, rule in _RULES]
        details = [self.detail] if self.detail in _DETAILS else list(_DETAILS)
        counts = [rule.tokens(self.size, detail) for rule in rules for detail in details]
        return None if None in counts else max(count for count in counts if count is not None)


# --- The rules ---

_DETAILS = ("low", "high", "original")
_TILE = 512
_PATCH = 32


class _Tiles(msgspec.Struct, frozen=True):
    """A number for the image, and another for each tile of 512 px that covers it once it is scaled down."""

    base: int
    tile: int

    def tokens(self, size: Size | None, detail: str) -> int | None:
        if detail == "low":
            return self.base
        if size is None:
            return None
        from fractions import Fraction  # here, because few processes need it

        width, height = map(Fraction, size)
        for side, longest in ((max(size), 2048), (None, 768)):  # into a square, then by the shorter side
            scale = min(Fraction(longest) / (side or min(width, height)), Fraction(1))
            width, height = width * scale, height * scale
        return self.base + self.tile * math.ceil(width / _TILE) * math.ceil(height / _TILE)


class _Limits(msgspec.Struct, frozen=True):
    """The limits that an image is scaled down to."""

    patches: int
    side: int
    """The longer side in pixels."""
    rejects: bool = False
    """An image with more patches is refused, not scaled down."""


class _Patches(msgspec.Struct, frozen=True):
    """A number for each patch of 32 px that covers the image once it is scaled down."""

    percent: int
    """Tokens for 100 patches."""
    high: _Limits
    original: _Limits
    auto: str

    def tokens(self, size: Size | None, detail: str) -> int | None:
        if size is None:
            return None
        limits = {"low": _LOW, "high": self.high, "original": self.original}
        patches = _patches(size, limits.get(detail) or limits[self.auto])
        return -(-patches * self.percent // 100)  # rounded up


def _patches(size: Size, limits: _Limits) -> int:
    width, height = _within(size, limits.side)
    patches = _cover(width, height)
    if patches > limits.patches and not limits.rejects:
        shrink = math.sqrt(_PATCH**2 * limits.patches / (width * height))
        wide, high = width * shrink / _PATCH, height * shrink / _PATCH
        shrink *= min(math.floor(wide) / wide, math.floor(high) / high)
        patches = _cover(math.floor(width * shrink), math.floor(height * shrink))
    return min(patches, limits.patches)


def _within(size: Size, side: int) -> Size:
    width, height = size
    longest = max(size)
    if longest <= side:
        return size
    return max(width * side // longest, 1), max(height * side // longest, 1)


def _cover(width: int, height: int) -> int:
    return math.ceil(width / _PATCH) * math.ceil(height / _PATCH)


_LOW = _Limits(256, 512)
_SMALL = _Limits(1_536, 2048)
_MIDDLE = _Limits(2_500, 2048)
_LARGE = _Limits(10_000, 6000)
_NEWEST = _Patches(120, _Limits(2_500, 65_535), _Limits(30_000, 65_535, rejects=True), "original")

_RULES: tuple[tuple[re.Pattern[str], _Tiles | _Patches], ...] = tuple(
    (re.compile(name), rule)
    for name, rule in (
        (r"gpt-4o-mini", _Tiles(2833, 5667)),
        (r"(gpt-4\.1|gpt-5)-mini", _Patches(162, _SMALL, _SMALL, "high")),
        (r"(gpt-4\.1|gpt-5)-nano", _Patches(246, _SMALL, _SMALL, "high")),
        (r"o4-mini", _Patches(172, _SMALL, _SMALL, "high")),
        (r"gpt-4o|chatgpt-4o|gpt-4\.[15]|gpt-4-(turbo|vision|1106)", _Tiles(85, 170)),
        (r"o[13]", _Tiles(75, 150)),
        (r"computer-use-preview", _Tiles(65, 129)),
        (r"gpt-5(\.[123])?-codex|gpt-5\.[23]", _Patches(120, _SMALL, _SMALL, "high")),
        (r"gpt-5(\.1)?(?![.\d])", _Tiles(70, 140)),
        (r"gpt-5\.4", _Patches(120, _MIDDLE, _LARGE, "high")),
        (r"gpt-5\.5", _Patches(120, _MIDDLE, _LARGE, "original")),
        (r"gpt-5\.6|gpt-6", _NEWEST),
    )
)
"""Rules by the beginning of the model's name; the first that fits."""


def _rule_of(model: str) -> _Tiles | _Patches:
    return next((rule for name, rule in _RULES if name.match(base_model(model))), _NEWEST)


def _base(model: str) -> str:
    return model.split(":")[1] if model.startswith("ft:") else model


# --- Sizes ---

_HEAD = 400_000
"""Characters of base64 in which a size is found if at all: before it there is at most a JPEG's metadata."""


def size_of(url: object) -> Size | None:
    """Find the size of an image in a data URL; None for other URLs, and other formats than PNG, JPEG, GIF and WebP."""
    if not isinstance(url, str) or url[:5].lower() != "data:":
        return None
    kind, _, data = url.partition(",")
    if not kind.lower().endswith(";base64"):
        return None
    head = "".join(data[:_HEAD].split())
    try:
        image = b64decode(head[: len(head) // 4 * 4])
    except Base64Error:
        return None
    try:
        width, height = _read_size(image)
    except IndexError:
        return None
    return (width, height) if width and height else None


def _read_size(image: bytes) -> Size:
    """Read the size in an image's header; (0, 0) if it is of no known kind. Raises IndexError: it is cut off before."""
    if image[:8] == b"\x89PNG\r\n\x1a\n":
        return _number(image, 16, 4), _number(image, 20, 4)
    if image[:6] in (b"GIF87a", b"GIF89a"):
        return _number(image, 6, -2), _number(image, 8, -2)
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        return _webp_size(image)
    if image[:3] == b"\xff\xd8\xff":
        return _jpeg_size(image)
    return 0, 0


def _number(image: bytes, at: int, length: int) -> int:
    """Read a whole number of `length` bytes, the least significant first if the length is negative."""
    if at + abs(length) > len(image):
        raise IndexError
    return int.from_bytes(image[at : at + abs(length)], "big" if length > 0 else "little")


def _webp_size(image: bytes) -> Size:
    match image[12:16]:
        case b"VP8 ":  # 14 bits each, after a start code
            return _number(image, 26, -2) & 0x3FFF, _number(image, 28, -2) & 0x3FFF
        case b"VP8L":  # 14 bits each, less one, after a signature
            bits = _number(image, 21, -4)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8X":
            return _number(image, 24, -3) + 1, _number(image, 27, -3) + 1
        case _:
            return 0, 0


_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""A JPEG's markers of a frame: only these segments tell its size."""


def _jpeg_size(image: bytes) -> Size:
    at = 2
    while True:
        if image[at] != 0xFF:
            return 0, 0
        while image[at + 1] == 0xFF:  # padding
            at += 1
        marker = image[at + 1]
        if marker in _FRAMES:
            return _number(image, at + 7, 2), _number(image, at + 5, 2)
        at += 2 + _number(image, at + 2, 2)
