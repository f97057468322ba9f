"""Read one image file, whatever its mode, as pixels, and name what is no image."""

from __future__ import annotations

import io
import threading
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from dltool.data.download import name_content
from dltool.errors import DataError

# only formats that Pillow reads by itself; others would start programs such as ghostscript
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
GREY_MODES = ("1", "L", "LA", "La", "I")
ORIENTATION_TAG = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

MAX_IMAGE_BYTES = 1 << 30

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ImageItem:
    """One image of a folder or a zip.

    Args:
        name: its path inside the folder or zip, printable, with forward slashes.
        label: the index of its class.
        path: the image file, or the zip that holds it.
        member: the zip's name for it, or None for a file.
    """

    name: str
    label: int
    path: Path
    member: str | None = None


def decode(data: bytes, name: str, mode: str | None, size: tuple[int, int] | None) -> Pixels:
    """Decode one image upright, in one mode and size; the first frame of an animation.

    Transparency is laid over white, 16 bits are scaled to 8, CMYK and palettes become RGB. To
    change the size, the largest centred part of the right shape is resized with anti-aliasing.

    Args:
        data: the whole file.
        name: what errors call it.
        mode: "L", "RGB", or None for "L" where the file is grey and "RGB" where it is not.
        size: (height, width) in pixels, or None to leave it.

    Returns:
        Pixels (H, W, C), 0 to 255, C = 1 or 3.

    Raises:
        DataError: E502, it is not an image, damaged, too large, or of pixels without a range.
    """
    with quiet():
        image = _open(data, name)
        if size is not None and min(image.size) >= 4 * max(size):
            # JPEG decodes at 1/2, 1/4 or 1/8 far faster; twice the size keeps the sharpness
            image.draft(None, (2 * max(size), 2 * max(size)))
        _load(image, name)
        try:
            image = _in_mode(_upright(image), mode)
            if size is not None and image.size != size[::-1]:
                image = _fit(image, *size)
        except ValueError as error:
            raise _broken(name, f"has pixels that cannot be used: {error}") from error
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def header(data: bytes, name: str) -> tuple[tuple[int, int], str]:
    """Return the (height, width) of an image once upright, and Pillow's mode; decode TIFF only.

    Raises:
        DataError: E502, it is not an image or too large.
    """
    with quiet():
        image = _open(data, name)
        if image.format == "TIFF":
            # Pillow turns these by itself, some versions when they open and some when they load
            _load(image, name)
        width, height = image.size
        return ((width, height) if _orientation(image) >= 5 else (height, width)), image.mode


class ItemReader:
    """Read the bytes of items, with one open zip a thread and process."""

    def __init__(self) -> None:
        self._local = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._local = threading.local()

    def read(self, item: ImageItem) -> bytes:
        """Return the whole file.

        Raises:
            DataError: E502, it cannot be read.
        """
        try:
            if item.member is None:
                size = item.path.stat().st_size
                data = item.path.read_bytes() if size <= MAX_IMAGE_BYTES else None
            else:
                data = self._read_member(item.path, item.member)
        except OSError as error:
            raise _unreadable(item, error.strerror or str(error)) from error
        except Exception as error:  # zipfile and its decompressors have many ways to complain
            raise _unreadable(item, str(error)) from error
        if data is None:
            raise _unreadable(item, f"it has more than {MAX_IMAGE_BYTES:,} bytes")
        return data

    def _read_member(self, path: Path, member: str) -> bytes | None:
        archives: dict[Path, zipfile.ZipFile] = getattr(self._local, "archives", {})
        self._local.archives = archives
        archive = archives.get(path)
        if archive is None:
            archive = archives[path] = zipfile.ZipFile(path)
        info = archive.getinfo(member)
        return archive.read(info) if info.file_size <= MAX_IMAGE_BYTES else None


def is_grey(mode: str) -> bool:
    """Tell whether Pillow's mode has one channel besides transparency."""
    return mode in GREY_MODES or mode.startswith("I;16")


_quiet_lock = threading.Lock()
_quiet_users = 0
_quiet_filters: warnings.catch_warnings[None] | None = None


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings while at least one thread is inside.

    `warnings.catch_warnings` alone would leave the filters of one thread to another.
    """
    global _quiet_users, _quiet_filters
    with _quiet_lock:
        if _quiet_users == 0:
            _quiet_filters = warnings.catch_warnings(action="ignore")
            _quiet_filters.__enter__()
        _quiet_users += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_users -= 1
            if _quiet_users == 0 and _quiet_filters is not None:
                _quiet_filters.__exit__(None, None, None)


def _open(data: bytes, name: str) -> Image.Image:
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise _broken(name, "has too many pixels: it may be a decompression bomb") from error
    except Exception as error:
        content = name_content(data[:512])
        if content.endswith("image"):
            raise _broken(name, f"is damaged or cut off: {content} without a header") from error
        reason = f": it is {content}" if content else ""
        raise _broken(name, f"is not an image{reason}") from error
    if Image.MAX_IMAGE_PIXELS and image.width * image.height > Image.MAX_IMAGE_PIXELS:
        size = f"{image.width} × {image.height}"
        raise _broken(name, f"has too many pixels ({size}): it may be a decompression bomb")
    if not image.width or not image.height:
        raise _broken(name, "has no pixels")
    return image


def _load(image: Image.Image, name: str) -> None:
    try:
        image.load()
    except Exception as error:  # Pillow's readers raise nearly anything on damaged bytes
        raise _broken(name, f"is damaged or cut off: {error}") from error


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # a damaged EXIF block is no reason to give up the picture
        return 1


def _upright(image: Image.Image) -> Image.Image:
    turn = UPRIGHT.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _in_mode(image: Image.Image, mode: str | None) -> Image.Image:
    wanted = mode or ("L" if is_grey(image.mode) else "RGB")
    if image.mode == wanted and "transparency" not in image.info:
        return image
    if image.mode.startswith(("I", "F")):
        image = _to_eight_bits(image)
    elif image.has_transparency_data:
        colours = image.convert("RGBA")
        white = Image.new("RGBA", colours.size, "white")
        image = Image.alpha_composite(white, colours).convert("RGB")
    return image if image.mode == wanted else image.convert(wanted)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Scale 0 to 65535 down to 0 to 255 (Pillow's own conversion would clip at 255)."""
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise ValueError(f"mode {image.mode} without a fixed range")
    return Image.fromarray(((values.astype(np.int64) + 128) // 257).astype(np.uint8))


def _fit(image: Image.Image, height: int, width: int) -> Image.Image:
    scale = min(image.height / height, image.width / width)
    left = (image.width - width * scale) / 2
    top = (image.height - height * scale) / 2
    box = (left, top, left + width * scale, top + height * scale)
    return image.resize((width, height), Image.Resampling.BILINEAR, box=box)


def _broken(name: str, reason: str) -> DataError:
    return DataError("E502", f"{name} {reason}", cure="replace or remove the file")


def _unreadable(item: ImageItem, reason: str) -> DataError:
    message = f"{item.name} cannot be read: {reason}"
    return DataError("E502", message, cure="replace or remove the file")
