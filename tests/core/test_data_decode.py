"""Decoding one image: every mode and orientation, and everything that is no image."""

import contextlib
import io
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import v2

from dltool.data.decode import ImageItem, ItemReader, decode, header, quiet
from dltool.errors import DataError

RAMP = (np.arange(12 * 10).reshape(12, 10) * 2).astype(np.uint8)
COLOURS = np.stack([RAMP, RAMP[::-1], 255 - RAMP], axis=2)


def packed(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def broken(data, word, name="a.jpg"):
    with pytest.raises(DataError, match=word) as caught:
        decode(data, name, "RGB", None)
    assert caught.value.code == "E502"
    assert caught.value.message.startswith(name)
    assert "\n" not in caught.value.one_line()


def test_grey_and_colours_come_as_they_are():
    grey, colours = packed(Image.fromarray(RAMP)), packed(Image.fromarray(COLOURS))
    assert np.array_equal(decode(grey, "a", None, None), RAMP[:, :, None])
    assert np.array_equal(decode(colours, "a", None, None), COLOURS)
    assert np.array_equal(decode(grey, "a", "RGB", None), np.stack([RAMP] * 3, 2))


def test_colours_become_grey_by_the_weights_of_bt601():
    exact = COLOURS @ np.array([0.299, 0.587, 0.114])
    grey = decode(packed(Image.fromarray(COLOURS)), "a", "L", None)
    assert grey.shape == (12, 10, 1)
    assert np.abs(grey[:, :, 0] - exact).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP", "GIF"])
def test_formats_without_loss(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    data = packed(Image.fromarray(RAMP), kind, **options)
    assert np.array_equal(decode(data, "a", "L", None)[:, :, 0], RAMP)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_over_white(mode):
    alpha = np.full_like(RAMP, 64)
    layers = [RAMP, RAMP, RAMP, alpha] if mode == "RGBA" else [RAMP, alpha]
    data = packed(Image.fromarray(np.stack(layers, 2), mode))
    exact = RAMP * (64 / 255) + 255 * (1 - 64 / 255)
    for wanted in ("RGB", "L"):
        pixels = decode(data, "a", wanted, None)
        assert np.abs(pixels - exact[:, :, None]).max() <= 1


def test_a_transparent_colour_of_a_palette_becomes_white():
    image = Image.new("P", (3, 2), 1)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((0, 0), 0)
    pixels = decode(packed(image, transparency=0), "a", None, None)
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[1, 2].tolist() == [40, 50, 60]


def test_a_transparent_grey_or_colour_becomes_white():
    grey = packed(Image.fromarray(RAMP), transparency=int(RAMP[0, 1]))
    assert decode(grey, "a", "L", None)[0, :3, 0].tolist() == [0, 255, 4]
    colours = packed(Image.fromarray(COLOURS), transparency=tuple(map(int, COLOURS[0, 1])))
    assert decode(colours, "a", "RGB", None)[0, 1].tolist() == [255] * 3


def test_cmyk_becomes_rgb():
    ink = np.zeros((8, 8, 4), np.uint8)
    ink[:, :, 0] = 255  # all cyan, so no red is left
    data = packed(Image.fromarray(ink, "CMYK"), "JPEG", quality=100)
    pixels = decode(data, "a", "RGB", None)
    assert pixels.shape == (8, 8, 3)
    assert np.abs(pixels.astype(int) - [0, 255, 255]).max() <= 3


def sixteen_bits(values):
    """Write a 16-bit grey PNG byte by byte."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    height, width = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">2I5B", width, height, 16, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def test_sixteen_bits_are_scaled_not_clipped():
    values = np.array([[0, 128, 129, 257], [25700, 40000, 65407, 65535]])
    exact = [[0, 0, 1, 1], [100, 156, 255, 255]]
    data = sixteen_bits(values)
    assert decode(data, "a", "L", None)[:, :, 0].tolist() == exact
    assert decode(data, "a", None, None).shape == (2, 4, 1)
    assert decode(data, "a", "RGB", None)[:, :, 2].tolist() == exact
    pgm = b"P5 4 2 65535\n" + values.astype(">u2").tobytes()
    assert decode(pgm, "a", "L", None)[:, :, 0].tolist() == exact


def test_one_bit_becomes_black_and_white():
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    assert decode(packed(image), "a", None, None).tolist() == [[[0], [255]]]


def test_pixels_without_a_range_are_refused():
    for pixels in (RAMP.astype(np.float32), np.full((4, 4), 70_000, np.int32)):
        broken(packed(Image.fromarray(pixels), "TIFF"), "without a fixed range")


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_the_first_frame_of_an_animation(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = packed(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert decode(data, "a", "RGB", None)[4, 4].tolist() == [255, 0, 0]


# what a viewer must do with the stored pixels, from the definition of the EXIF tag
ORIENTATIONS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("tag", ORIENTATIONS)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_a_rotated_picture_stands_upright(kind, tag):
    exif = Image.Exif()
    exif[0x0112] = tag
    options = {"lossless": True} if kind == "WEBP" else {}
    data = packed(Image.fromarray(COLOURS), kind, exif=exif, **options)
    upright = ORIENTATIONS[tag](COLOURS)
    assert np.array_equal(decode(data, "a", "RGB", None), upright)
    assert header(data, "a") == (upright.shape[:2], "RGB")


def test_a_rotated_photo_keeps_its_size_after_a_crop():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = packed(Image.fromarray(COLOURS), "JPEG", exif=exif)
    assert decode(data, "a", "RGB", (5, 4)).shape == (5, 4, 3)


def test_a_damaged_exif_block_costs_nothing():
    data = packed(Image.fromarray(RAMP), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert decode(data, "a", "L", None).shape == (12, 10, 1)
    assert header(data, "a")[0] == (12, 10)


@pytest.mark.parametrize(
    ("stored", "wanted"), [((64, 64), 32), ((64, 96), 32), ((96, 64), 16), ((20, 20), 48)]
)
def test_resizing_agrees_with_torchvision(stored, wanted):
    pixels = np.random.default_rng(0).integers(0, 256, (*stored, 3), np.uint8)
    image = Image.fromarray(pixels)
    theirs = v2.Compose([v2.Resize(wanted), v2.CenterCrop(wanted)])(image)
    ours = decode(packed(image), "a", "RGB", (wanted, wanted))
    assert np.array_equal(ours, np.asarray(theirs))


def test_a_crop_of_another_shape_is_the_centre():
    pixels = np.zeros((30, 90, 3), np.uint8)
    pixels[:, 30:60] = 200
    data = packed(Image.fromarray(pixels))
    # the outer columns take in some of the black beside the box
    assert (decode(data, "a", "RGB", (10, 10))[:, 1:-1] == 200).all()
    assert decode(data, "a", "RGB", (7, 20)).shape == (7, 20, 3)


def test_a_large_photo_looks_the_same_when_decoded_small():
    side = np.linspace(0, 6, 512)
    smooth = (127 + 120 * np.sin(side[:, None]) * np.cos(side)).astype(np.uint8)
    image = Image.fromarray(np.stack([smooth, 255 - smooth, smooth // 2], 2))
    exact = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
    ours = decode(packed(image, "JPEG", quality=95), "a", "RGB", (32, 32)).astype(int)
    assert np.abs(ours - exact).max() <= 6


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "is not an image: it is empty"),
        (b"not a picture\n", "is not an image: it is text"),
        (b"<html><body>404</body></html>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-LFS pointer"),
        (bytes(500), "zero bytes"),
        (b"\x89PNG\r\n\x1a\nrest", "damaged or cut off: a PNG image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not an image: it is text"),
        (b"P5 0 5 255\n", "image"),
    ],
)
def test_what_is_no_image(data, word):
    broken(data, word)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP", "TIFF"])
def test_a_cut_image_is_broken_never_grey(kind):
    noise = np.random.default_rng(1).integers(0, 256, (40, 40, 3), np.uint8)
    data = packed(Image.fromarray(noise), kind)
    for fraction in (0.05, 0.3, 0.6, 0.95):
        broken(data[: int(len(data) * fraction)], "a.jpg (is|has)")


def test_no_damage_escapes_as_another_error():
    draws = np.random.default_rng(2)
    for kind in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "PPM"):
        whole = packed(Image.fromarray(COLOURS), kind)
        for _ in range(60):
            data = bytearray(whole)
            for place in draws.integers(0, len(data), 4):
                data[place] = draws.integers(256)
            with contextlib.suppress(DataError):
                assert decode(bytes(data), "a", "RGB", (8, 8)).shape == (8, 8, 3)


def test_too_many_pixels_are_refused(monkeypatch):
    data = packed(Image.fromarray(COLOURS))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow itself only warns at 120
    broken(data, "decompression bomb")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    broken(data, "decompression bomb")


def test_warnings_are_silent_while_one_thread_is_inside():
    inside, leave = threading.Event(), threading.Event()

    def stay():
        with quiet():
            inside.set()
            leave.wait(5)

    thread = threading.Thread(target=stay)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        thread.start()
        inside.wait(5)
        with quiet():
            warnings.warn("one", stacklevel=1)
        warnings.warn("two", stacklevel=1)
        leave.set()
        thread.join()
        warnings.warn("three", stacklevel=1)
    assert [str(warning.message) for warning in caught] == ["three"]


def test_a_reader_names_what_it_cannot_read(tmp_path):
    item = ImageItem("cat/gone.png", 0, tmp_path / "gone.png")
    with pytest.raises(DataError, match=r"cat/gone.png cannot be read: No such file") as caught:
        ItemReader().read(item)
    assert caught.value.code == "E502"
