from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image

from clipcifar.core.errors import DataError, EnvironmentFault
from clipcifar.datasets import decode as images
from clipcifar.datasets.decode import SUFFIXES, check, decode


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def from_array(array: NDArray[Any], mode: str | None = None) -> Image.Image:
    image = Image.fromarray(array)
    return image if mode is None else image.convert(mode)


def gray(levels: list[int]) -> list[list[int]]:
    """What gray levels are as RGB."""
    return [[level] * 3 for level in levels]


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 8), st.integers(1, 8), st.just(3))))
@settings(max_examples=30)
def test_lossless_rgb_comes_back_pixel_by_pixel(pixels: NDArray[np.uint8]) -> None:
    for format in ("PNG", "BMP", "TIFF", "PPM"):
        found = decode(encoded(Image.fromarray(pixels), format), "x")
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, pixels)


def test_a_jpeg_and_a_webp_are_read_as_pillow_reads_them() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 12, 3), dtype=np.uint8)
    for format in ("JPEG", "WEBP"):
        content = encoded(Image.fromarray(pixels), format)
        expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        np.testing.assert_array_equal(decode(content, "x"), expected)


def test_gray_becomes_three_equal_channels() -> None:
    found = decode(encoded(from_array(np.array([[0, 100, 255]], np.uint8))), "x")
    assert found.tolist() == [gray([0, 100, 255])]


def test_black_and_white_becomes_0_and_255() -> None:
    image = from_array(np.array([[0, 255, 0]], np.uint8)).convert("1")
    assert decode(encoded(image), "x").tolist() == [gray([0, 255, 0])]


def test_gray_with_transparency_is_laid_on_white() -> None:
    levels = np.array([[[100, 255], [100, 0], [0, 51]]], np.uint8)
    # 51 of 255 is one fifth of black on four fifths of white.
    assert decode(encoded(Image.fromarray(levels, "LA")), "x").tolist() == [gray([100, 255, 204])]


def test_colour_with_transparency_is_laid_on_white() -> None:
    pixels = np.array([[[200, 0, 100, 255], [200, 0, 100, 0], [200, 0, 100, 51]]], np.uint8)
    for format in ("PNG", "TIFF"):
        found = decode(encoded(Image.fromarray(pixels), format), "x")
        assert found.tolist() == [[[200, 0, 100], [255, 255, 255], [244, 204, 224]]]


def palette_image() -> Image.Image:
    image = Image.new("P", (3, 1))
    image.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    image.putdata([0, 1, 2])
    return image


@pytest.mark.parametrize(
    ("transparency", "expected"),
    [
        (None, [[200, 0, 0], [0, 200, 0], [0, 0, 200]]),
        (1, [[200, 0, 0], [255, 255, 255], [0, 0, 200]]),
        (bytes([255, 0, 51]), [[200, 0, 0], [255, 255, 255], [204, 204, 244]]),
    ],
)
def test_a_palette_is_looked_up_and_its_transparency_laid_on_white(
    transparency: int | bytes | None, expected: list[list[int]]
) -> None:
    options = {} if transparency is None else {"transparency": transparency}
    assert decode(encoded(palette_image(), "PNG", **options), "x").tolist() == [expected]


def test_a_transparent_colour_of_an_opaque_image_is_laid_on_white() -> None:
    pixels = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    content = encoded(Image.fromarray(pixels), "PNG", transparency=(4, 5, 6))
    assert decode(content, "x").tolist() == [[[1, 2, 3], [255, 255, 255]]]
    content = encoded(from_array(np.array([[7, 9]], np.uint8)), "PNG", transparency=9)
    assert decode(content, "x").tolist() == [gray([7, 255])]


def test_cmyk_is_converted_as_pillow_converts_it() -> None:
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    found = decode(encoded(image, "TIFF"), "x")
    assert found.shape == (8, 8, 3)
    np.testing.assert_array_equal(found[0, 0], [255, 0, 0])
    jpeg = decode(encoded(image, "JPEG"), "x")
    assert np.abs(jpeg.astype(int) - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_levels_are_scaled_not_clipped(format: str) -> None:
    levels = np.array([[0, 257, 300, 128 * 257, 65535]], np.uint16)
    # 65535 / 257 is 255; 300 / 257 rounds to 1.
    assert decode(encoded(Image.fromarray(levels), format), "x").tolist() == [gray([0, 1, 1, 128, 255])]


def test_16_bit_levels_are_scaled_in_a_portable_graymap() -> None:
    content = b"P5 3 1 65535\n" + np.array([0, 128 * 257, 65535], ">u2").tobytes()
    assert decode(content, "x").tolist() == [gray([0, 128, 255])]


def test_16_bit_levels_opened_as_32_bit_are_scaled() -> None:
    image = Image.fromarray(np.array([[0, 128 * 257, 65535]], np.int32))
    assert image.mode == "I"
    assert decode(encoded(image, "TIFF"), "x").tolist() == [gray([0, 128, 255])]


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 0.5, 1.5], [0, 0, 2]),
        ([0.0, 128.4, 255.0], [0, 128, 255]),
        ([-5.0, 0.25, 1.0], [0, 64, 255]),
        ([-5.0, 10.0, 1e30], [0, 10, 255]),
    ],
)
def test_float_levels_are_0_to_1_when_none_is_above_else_0_to_255(
    levels: list[float], expected: list[int]
) -> None:
    image = Image.fromarray(np.array([levels], np.float32))
    assert decode(encoded(image, "TIFF"), "x").tolist() == [gray(expected)]


@pytest.mark.parametrize("level", [float("nan"), float("inf"), float("-inf")])
def test_float_levels_that_are_not_finite_are_refused_by_name(level: float) -> None:
    image = Image.fromarray(np.array([[0, level]], np.float32))
    with pytest.raises(DataError, match="NaN or infinite") as caught:
        decode(encoded(image, "TIFF"), "the/name.tif")
    assert caught.value.where == "the/name.tif"


# What each EXIF orientation says that must be done to see the image upright.
UPRIGHT = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.transpose(a, (1, 0, 2)),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(np.transpose(a, (1, 0, 2)), 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_rotation_is_applied(orientation: int) -> None:
    pixels = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for format in ("PNG", "TIFF"):
        found = decode(encoded(Image.fromarray(pixels), format, exif=exif), "x")
        np.testing.assert_array_equal(found, UPRIGHT[orientation](pixels))


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_an_orientation_without_meaning_is_ignored(orientation: int) -> None:
    pixels = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(pixels), exif=exif), "x"), pixels)


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame_counts(format: str) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    options: dict[str, Any] = {"lossless": True} if format == "WEBP" else {}
    content = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
    with Image.open(io.BytesIO(content)) as image:
        assert image.n_frames == 3  # type: ignore[attr-defined]
    found = decode(content, "x")
    np.testing.assert_array_equal(found, np.broadcast_to(np.uint8([255, 0, 0]), (4, 4, 3)))


def test_transparent_pixels_of_a_gif_are_laid_on_white() -> None:
    content = encoded(palette_image(), "GIF", transparency=0)
    assert decode(content, "x").tolist() == [[[255, 255, 255], [0, 200, 0], [0, 0, 200]]]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"<!doctype html><title>404</title>",
        b"%PDF-1.7",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0",
    ],
)
def test_what_is_no_image_is_refused_by_name_whatever_it_is_called(content: bytes) -> None:
    with pytest.raises(DataError) as caught:
        decode(content, "photos/cat.jpg")
    assert (caught.value.exit_code, caught.value.where) == (3, "photos/cat.jpg")


def test_a_format_that_is_not_on_the_list_is_refused() -> None:
    content = encoded(Image.new("RGB", (8, 8)), "ICO", sizes=[(8, 8)])
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "ICO"  # Pillow could read it
    with pytest.raises(DataError, match="not an image of a known format"):
        decode(content, "x.png")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_a_truncated_image_is_refused_and_never_filled_up(format: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(pixels), format)
    assert decode(content, "x").shape == (40, 40, 3)
    for length in range(0, len(content), max(1, len(content) // 60)):
        if length > len(content) * 0.98:
            break  # some formats end in bytes that carry no pixels
        with pytest.raises(DataError) as caught:
            decode(content[:length], "cut.img")
        assert caught.value.where == "cut.img"


def png_claiming(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(20_000, 20_000), (10_001, 25_000), (2**31 - 1, 2**31 - 1)])
def test_a_bomb_is_refused_before_it_is_decoded(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = png_claiming(*size)
    assert len(content) < 1100
    monkeypatch.setattr(images, "_to_rgb", lambda image: pytest.fail("it was decoded"))
    with pytest.raises(DataError, match=r"pixels, more than dataset\.max_megapixels: 250") as caught:
        decode(content, "bomb.png", max_megapixels=250)
    assert caught.value.where == "bomb.png"
    assert caught.value.fix == f"raise dataset.max_megapixels to {-(-size[0] * size[1] // 1_000_000)}"


def test_the_pixel_limit_is_the_last_size_that_passes_and_pillows_own_stays_as_it_was() -> None:
    content = encoded(Image.new("RGB", (1_000, 1_000)))
    assert decode(content, "x", max_megapixels=1).shape == (1_000, 1_000, 3)
    with pytest.raises(DataError, match="1001 x 1000 pixels"):
        decode(encoded(Image.new("RGB", (1_001, 1_000))), "x", max_megapixels=1)
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(DataError, match="cannot be decoded"):  # its pixels are missing
        decode(png_claiming(14_000, 14_000), "x")
    assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize(
    ("format", "mode"), [("PNG", "RGB"), ("PNG", "L"), ("PNG", "RGBA"), ("TIFF", "F"), ("PNG", "P")]
)
def test_an_image_of_very_many_pixels_becomes_the_means_of_squares(
    format: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
    image = Image.fromarray(levels).convert(mode)
    whole = decode(encoded(image, format), "x").astype(float)
    monkeypatch.setattr(images, "WHOLE_PIXELS", 150)
    means = whole.reshape(10, 2, 15, 2, 3).mean(axis=(1, 3))
    found = decode(encoded(image, format), "x")
    assert found.shape == (10, 15, 3)
    assert np.abs(found - means).max() <= 0.5
    monkeypatch.setattr(images, "WHOLE_PIXELS", 149)  # thirds
    assert decode(encoded(image, format), "x").shape == (7, 10, 3)


@pytest.mark.parametrize(
    ("format", "mode"), [("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "P"), ("PNG", "I;16"), ("TIFF", "F")]
)
def test_a_very_large_image_is_converted_in_strips_that_show_nowhere(
    format: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Levels of 16 bits take eight bytes each on the way, and transparency three copies of the image."""
    levels = np.linspace(0, 255, 600).reshape(20, 30)  # of float levels the first strips are all below 1
    as_floats = Image.fromarray(levels.astype(np.float32))
    image = as_floats if mode == "F" else Image.fromarray(levels.astype(np.uint8)).convert(mode)
    if mode == "I;16":
        image = Image.fromarray((levels * 257).astype(np.uint16))
    if mode == "RGBA":
        image.putalpha(Image.fromarray(levels.astype(np.uint8)))
    monkeypatch.setattr(images, "WHOLE_PIXELS", 149)  # thirds, of which the last in both directions is narrow
    whole, heights, real = decode(encoded(image, format), "x"), [], images._to_rgb
    monkeypatch.setattr(images, "_STRIP", 2)
    monkeypatch.setattr(
        images, "_to_rgb", lambda part, *more: heights.append(part.height) or real(part, *more)
    )
    np.testing.assert_array_equal(decode(encoded(image, format), "x"), whole)
    assert heights == [6, 6, 6, 2]


def test_a_jpeg_of_very_many_pixels_is_never_decoded_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    across = np.repeat(np.arange(64, dtype=np.uint8)[None] * 3, 48, axis=0)
    content = encoded(Image.fromarray(across), "JPEG", quality=95, exif=exif_of(orientation=6))
    whole = decode(content, "x").astype(float)
    assert whole.shape == (64, 48, 3)  # turned
    monkeypatch.setattr(images, "WHOLE_PIXELS", 64 * 48 // 4)
    sizes = []
    real = images._to_rgb
    monkeypatch.setattr(images, "_to_rgb", lambda image, *_: sizes.append(image.size) or real(image))
    found = decode(content, "x")
    assert (found.shape, sizes) == ((32, 24, 3), [(24, 32)])
    assert np.abs(found - whole.reshape(32, 2, 24, 2, 3).mean(axis=(1, 3))).max() <= 3


def exif_of(*, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def test_a_hundred_megapixel_photograph_is_read_at_half_size() -> None:
    content = encoded(Image.new("L", (11_648, 8_736), 77), "JPEG", quality=50)
    found = decode(content, "x", max_megapixels=250)
    assert found.shape == (4_368, 5_824, 3)
    assert np.abs(found.astype(int) - 77).max() <= 1  # as quality 50 has it


def test_memory_that_ran_out_is_not_blamed_on_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(images, "_to_rgb", exhausted)
    with pytest.raises(EnvironmentFault, match="out of memory") as caught:
        decode(encoded(Image.new("RGB", (4, 3))), "x.png")
    assert (caught.value.exit_code, caught.value.where) == (4, "x.png")


def test_no_warning_of_pillow_leaks_and_the_filters_stay_as_they_were() -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff"  # claims 65,535 entries that are not there
    odd = encoded(Image.new("RGB", (8, 8)), "JPEG", exif=exif)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Image.open(io.BytesIO(odd)).close()
    assert caught, "this image is meant to make Pillow warn"
    before = list(warnings.filters)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ResourceWarning)  # another test's leftovers, collected meanwhile
        assert decode(odd, "x").shape == (8, 8, 3)
        with pytest.raises(DataError, match="cannot be decoded"):
            decode(png_claiming(9_500, 9_500), "x")  # Pillow warns from 89 million pixels on
    assert list(warnings.filters) == before


def test_every_suffix_belongs_to_a_format_that_is_read() -> None:
    registered = {**Image.registered_extensions(), **dict.fromkeys(OTHER_NAMES_OF_JPEG, "JPEG")}
    assert {registered[suffix] for suffix in SUFFIXES} == set(images.FORMATS)


OTHER_NAMES_OF_JPEG = (".jfi", ".jif", ".pjpeg", ".pjp")


def test_no_name_of_a_known_format_is_missing() -> None:
    odd = {".pfm", ".mpo"}  # float levels of its own, and not called JPEG
    known = {suffix for suffix, format in Image.registered_extensions().items() if format in images.FORMATS}
    assert known - odd <= SUFFIXES


def test_a_sliver_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(DataError, match="over 100 times"):
        decode(encoded(Image.new("RGB", (1, 101)), "PNG"), "sliver.png")
    assert decode(encoded(Image.new("RGB", (1, 100)), "PNG"), "narrow.png").shape == (100, 1, 3)


def outcome(read: Callable[[], object]) -> str:
    try:
        read()
    except (DataError, EnvironmentFault) as error:
        return f"{type(error).__name__}: {error}"
    return "no objection"


FORMATS = ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"]
_MODES = ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr", "I;16", "I", "F"]


@given(
    st.sampled_from(["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"]), st.sampled_from(_MODES), st.data()
)
@settings(max_examples=300)
def test_checking_objects_to_what_decoding_objects_to_in_the_same_words(
    format: str, mode: str, data: st.DataObject
) -> None:
    image = Image.fromarray(np.arange(60, dtype=np.uint8).reshape(4, 5, 3)).convert("L").convert(mode)
    if mode == "F" and data.draw(st.booleans()):
        image.putpixel((1, 1), float("nan"))
    try:
        content = bytearray(encoded(image, format))
    except (OSError, ValueError):  # a format has some modes only
        return
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=3)):
        content[at] ^= data.draw(st.integers(1, 255))
    whole = bytes(content[: data.draw(st.sampled_from([len(content), len(content) // 2, len(content) - 5]))])
    said = outcome(lambda: check(whole, "x", max_megapixels=1))
    assert said == outcome(lambda: decode(whole, "x", max_megapixels=1))


def test_checking_makes_no_pixels_of_a_photograph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_to_rgb", None)
    check(encoded(Image.new("RGB", (9, 9)), "JPEG"), "x", max_megapixels=1)
    with pytest.raises(DataError):  # the negative control
        decode(encoded(Image.new("RGB", (9, 9)), "JPEG"), "x", max_megapixels=1)
