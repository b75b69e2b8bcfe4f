"""Image tokens, against the examples of OpenAI's guide and what users have measured; sizes, from real headers."""

import struct
import zlib
from base64 import b64encode
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runmeter.engine.tokens.images import Image, Size, size_of


def data_url(image: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{b64encode(image).decode()}"


def png(width: int, height: int) -> bytes:
    """A whole PNG, gray."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes((width + 1) * height)))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


def jpeg(width: int, height: int, *, metadata: int = 0, frame: int = 0xC0) -> bytes:
    """A JPEG as far as its frame, after metadata of so many bytes in as many segments as they need."""
    segments = b""
    for start in range(0, metadata, 65_000):
        data = bytes(min(65_000, metadata - start))
        segments += b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data
    table = b"\xff\xc4\x00\x05\x00\x00\x00"  # has a marker in the frames' range, and no size
    return (
        b"\xff\xd8"
        + segments
        + table
        + b"\xff"
        + bytes([0xFF, frame])
        + struct.pack(">HBHHB", 11, 8, height, width, 1)
        + bytes(3)
    )


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0)


def webp_lossy(width: int, height: int) -> bytes:
    frame = b"\x00\x00\x00\x9d\x01\x2a" + struct.pack("<HH", width | 0x4000, height | 0x8000)
    return b"RIFF\x00\x00\x00\x00WEBPVP8 " + struct.pack("<I", len(frame)) + frame


def webp_lossless(width: int, height: int) -> bytes:
    bits = (width - 1) | (height - 1) << 14 | 1 << 28
    return b"RIFF\x00\x00\x00\x00WEBPVP8L\x05\x00\x00\x00\x2f" + struct.pack("<I", bits)


def webp_extended(width: int, height: int) -> bytes:
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF\x00\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x10\x00\x00\x00" + size


@pytest.mark.parametrize(
    "make", [png, jpeg, gif, webp_lossy, webp_lossless, webp_extended], ids=lambda make: make.__name__
)
@pytest.mark.parametrize("size", [(1, 1), (640, 480), (2048, 4096), (16_383, 9)])
def test_sizes_are_read_from_headers(make: Callable[[int, int], bytes], size: Size) -> None:
    image = make(*size)
    assert size_of(data_url(image)) == size
    assert size_of(data_url(image, "jpeg; charset=utf-8").replace(",", ",\n ")) == size, "blanks in base64 are fine"


@pytest.mark.parametrize("frame", [0xC0, 0xC1, 0xC2, 0xCF])
def test_a_jpegs_size_is_found_behind_its_metadata(frame: int) -> None:
    assert size_of(data_url(jpeg(800, 600, metadata=200_000, frame=frame), "jpeg")) == (800, 600)


@pytest.mark.parametrize(
    "url",
    [
        None,
        "",
        "https://example.com/cat.png",
        "file-abc",
        "data:image/png,raw",
        "data:image/png;base64,",
        "data:image/png;base64,A",
        "data:image/png;base64,!!!!",
        data_url(b"<svg/>", "svg+xml"),
        data_url(png(3, 3)[:20]),
        data_url(png(0, 3)),
        data_url(jpeg(3, 3)[:12], "jpeg"),
        data_url(b"\xff\xd8\xff\xe1\x00\x04ab" + bytes(9), "jpeg"),
        data_url(b"RIFF\x00\x00\x00\x00WEBPALPH" + bytes(9), "webp"),
    ],
)
def test_what_has_no_known_size(url: object) -> None:
    assert size_of(url) is None


@given(
    st.binary(max_size=60),
    st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF1234WEBPVP8 ", b"\xff\xd8\xff"]),
)
def test_damaged_headers_do_not_raise(noise: bytes, head: bytes) -> None:
    size_of(data_url(head + noise))


@pytest.mark.parametrize(
    ("model", "size", "detail", "tokens"),
    [
        # The guide's examples, for tiles and for patches.
        ("gpt-4o", (1024, 1024), "high", 765),
        ("gpt-4o", (2048, 4096), "high", 1105),
        ("gpt-4o", (4096, 8192), "low", 85),
        ("gpt-4.1-mini", (1024, 1024), "auto", 1659),
        ("gpt-4.1-mini", (1800, 2400), "high", 2353),
        # Its tables.
        ("gpt-4o-mini", (512, 512), "high", 2833 + 5667),
        ("gpt-5", (513, 512), "auto", 70 + 2 * 140),
        ("gpt-5-2025-08-07", (512, 512), "high", 210),
        ("gpt-5.1", (512, 512), "high", 210),
        ("o3", (512, 512), "high", 225),
        ("gpt-5-nano", (32, 32), "high", 3),
        ("o4-mini", (64, 32), "high", 4),
        ("gpt-5.4", (6000, 6000), "high", 3000),
        ("gpt-5.4", (6000, 6000), "original", 12_000),
        # Computed by others from the guide as of 2026-09.
        ("gpt-6-astra", (640, 480), "high", 360),
        ("gpt-6-astra", (640, 480), "low", 231),
        ("gpt-6-astra", (3200, 960), "original", 3600),
        ("gpt-6-astra", (3200, 960), "auto", 3600),
        ("gpt-6-astra", (3200, 960), "high", 2916),
        ("gpt-6-astra", (2560, 1440), "high", 2931),
        ("gpt-5.6-luna", (4800, 6400), "original", 36_000),
        ("ft:gpt-4o:acme::7p4lURel", (1024, 1024), "high", 765),
        ("a-model-to-come", (640, 480), "high", 360),
    ],
)
def test_published_counts(model: str, size: Size, detail: str, tokens: int) -> None:
    assert Image(size, detail).tokens(model) == tokens


def test_an_unknown_size_is_not_counted_except_where_it_does_not_matter() -> None:
    assert Image(None, "high").tokens("gpt-4o") is None
    assert Image(None, "low").tokens("gpt-6-luna") is None
    assert Image(None, "low").tokens("gpt-4o") == Image(None, "low").bound("gpt-4o") == 85
    assert Image(None).bound("gpt-4o") is None
    assert Image(None, "low").bound("a-model-to-come") is None


MODELS = ["gpt-4o", "gpt-4o-mini", "gpt-4.1-nano", "gpt-5", "gpt-5.4-mini", "gpt-5.5", "gpt-6-luna", "other"]


@given(
    st.tuples(st.integers(1, 70_000), st.integers(1, 70_000)),
    st.sampled_from(MODELS),
    st.sampled_from(["low", "high", "original", "auto", "new"]),
)
def test_a_bound_is_never_less_and_counts_do_not_turn_with_the_image(size: Size, model: str, detail: str) -> None:
    image = Image(size, detail)
    count, bound = image.tokens(model), image.bound(model)
    assert count is not None
    assert bound is not None
    assert 0 < count <= bound
    assert image.tokens("gpt-4o") == Image(size[::-1], detail).tokens("gpt-4o")


@given(st.tuples(st.integers(1, 70_000), st.integers(1, 70_000)))
def test_of_an_unknown_model_the_bound_is_that_of_the_dearest(size: Size) -> None:
    dearest = Image(size).bound("other")
    assert dearest is not None
    assert all(dearest >= (Image(size).bound(model) or 0) for model in MODELS)
