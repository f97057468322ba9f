"""Read CIFAR-10 as its makers pack it (https://www.cs.toronto.edu/~kriz/cifar.html)."""

from __future__ import annotations

import io
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dltool.data.cifar_files import TEST_FILES as TEST_FILES
from dltool.data.cifar_files import TRAIN_FILES as TRAIN_FILES
from dltool.data.cifar_files import find_cifar10 as find_cifar10
from dltool.data.download import name_content
from dltool.data.named import NAMED
from dltool.errors import DataError

CLASSES = NAMED["cifar10"].classes
RECORDS = 10_000
PIXELS = 3 * 32 * 32

Bytes = npt.NDArray[np.uint8]


def read_cifar10(folder: Path) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Read the six files of CIFAR-10, binary or pickled; the pickles run no code.

    Args:
        folder: `cifar-10-batches-bin`, `cifar-10-batches-py`, or the folder above.

    Returns:
        Train images (50000, 3, 32, 32) uint8 RGB and labels (50000,) int64, then the same of the
        10000 test images.

    Raises:
        DataError: E501 files are missing, E502 one is damaged, E506 a label is not 0 to 9.
    """
    found = find_cifar10(folder)
    if found is None:
        names = ", ".join((*TRAIN_FILES, *TEST_FILES))
        raise DataError(
            "E501", f"{folder} does not hold CIFAR-10", expected=f"{names} (.bin or pickled)"
        )
    train = [_read_file(found, name) for name in TRAIN_FILES]
    test = [_read_file(found, name) for name in TEST_FILES]
    return (*_join(train), *_join(test))


def _join(parts: list[tuple[Bytes, Bytes]]) -> tuple[Tensor, Tensor]:
    images = np.concatenate([part[0] for part in parts]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([part[1] for part in parts]).astype(np.int64)
    return torch.from_numpy(images), torch.from_numpy(labels)


def _read_file(folder: Path, name: str) -> tuple[Bytes, Bytes]:
    path = folder / f"{name}.bin"
    is_binary = path.is_file()
    path = path if is_binary else folder / name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError("E501", f"{path} cannot be read: {error.strerror}") from error
    images, labels = _parse_binary(path, data) if is_binary else _parse_pickle(path, data)
    if labels.max() >= len(CLASSES):
        raise DataError(
            "E506", f"{path} holds the label {labels.max()}", expected=f"0 to {len(CLASSES) - 1}"
        )
    return images, labels


def _parse_binary(path: Path, data: bytes) -> tuple[Bytes, Bytes]:
    expected = RECORDS * (1 + PIXELS)
    if len(data) != expected:
        content = name_content(data[:512])
        reason = f"it has {len(data):,} bytes, expected {expected:,}"
        raise _damaged(path, f"it is {content}" if content else reason)
    records = np.frombuffer(data, np.uint8).reshape(RECORDS, 1 + PIXELS)
    return records[:, 1:], records[:, 0]


def _parse_pickle(path: Path, data: bytes) -> tuple[Bytes, Bytes]:
    if len(data) > 4 * RECORDS * PIXELS:
        raise _damaged(path, f"it has {len(data):,} bytes, too many")
    content = _load_inert(path, data)
    if not isinstance(content, dict):
        raise _damaged(path, "it does not hold a dictionary")
    by_name = {
        key.decode(errors="replace") if isinstance(key, bytes) else key: content[key]
        for key in content
    }
    images = _as_pixels(path, by_name.get("data"))
    labels = by_name.get("labels")
    if not isinstance(labels, list) or len(labels) != RECORDS:
        raise _damaged(path, f"it does not hold {RECORDS:,} labels")
    if not all(type(label) is int and 0 <= label < 256 for label in labels):
        raise _damaged(path, "a label is no small number")
    return images, np.array(labels, np.uint8)


class _Refused(Exception):
    """A pickle asks for what an array of pixels does not need."""


class _DType:
    """Stand for numpy's dtype: keep its name and the byte order, run nothing."""

    def __init__(self, name: object = None, *_: object) -> None:
        self.name = name.decode() if isinstance(name, bytes) else name

    def __setstate__(self, state: object) -> None:
        """Leave out byte order and alignment, which bytes do not have."""


class _Array:
    """Stand for numpy's array: keep what it would be made of."""

    state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


def _new_array(*_: object) -> _Array:
    return _Array()


def _encode(text: str, codec: str) -> bytes:
    if codec not in ("latin1", "latin-1"):
        raise _Refused(f"the codec {codec!r} is refused")
    return text.encode("latin-1")


class _Inert(pickle.Unpickler):
    """Give stand-ins for the four names that an array needs and refuse every other."""

    names = {  # noqa: RUF012 - a constant
        ("numpy.core.multiarray", "_reconstruct"): _new_array,
        ("numpy._core.multiarray", "_reconstruct"): _new_array,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _DType,
        ("_codecs", "encode"): _encode,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.names:
            raise _Refused(f"it asks for {module}.{name}, which is refused")
        return self.names[module, name]


def _load_inert(path: Path, data: bytes) -> object:
    try:
        for opcode, argument, _ in pickletools.genops(data):
            # the unpickler takes memory for every slot up to the number it is told
            if "PUT" in opcode.name and int(argument or 0) > len(data):
                raise _Refused("a memo number is too large")
        return _Inert(io.BytesIO(data), encoding="bytes").load()
    except _Refused as error:
        raise _damaged(path, str(error)) from error
    except Exception as error:  # a hostile pickle can make the unpickler raise anything
        content = name_content(data[:512])
        known = content and content != "a pickle"
        raise _damaged(path, f"it is {content}" if known else str(error)) from error


def _as_pixels(path: Path, array: object) -> Bytes:
    state = array.state if isinstance(array, _Array) else None
    if not isinstance(state, tuple) or len(state) != 5:
        raise _damaged(path, "it does not hold an array of pixels")
    _, shape, dtype, column_major, raw = state
    if shape != (RECORDS, PIXELS) or not isinstance(dtype, _DType) or dtype.name != "u1":
        raise _damaged(path, f"its array is not ({RECORDS}, {PIXELS}) of bytes")
    if not isinstance(raw, bytes) or len(raw) != RECORDS * PIXELS:
        raise _damaged(path, "its array is cut off")
    flat = np.frombuffer(raw, np.uint8)
    return flat.reshape(shape, order="F" if column_major else "C")


def _damaged(path: Path, reason: str) -> DataError:
    cure = "get CIFAR-10 again with: dltool data fetch cifar10"
    return DataError("E502", f"{path} cannot be read: {reason}", cure=cure)
