"""Read a video frame by frame and write it with its boxes, through OpenCV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dltool.errors import DataError, MissingExtra
from dltool.files import explained, make_folder, temporary_name
from dltool_detect.draw import Pixels

FALLBACK_RATE = 25.0


def opencv() -> Any:
    """Return the module cv2.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingExtra("cv2", "detect") from error
    return cv2


class Frames:
    """The frames of a video in their order; one thread at a time may read.

    Args:
        every: the first of so many frames is read, the others are passed over.

    Raises:
        DataError: E502, it is no video that OpenCV can read.
    """

    def __init__(self, path: Path, every: int = 1) -> None:
        self.path, self.every = path, every
        self._capture = opencv().VideoCapture(str(path))
        if not self._capture.isOpened():
            raise DataError("E502", f"{path} is no video that OpenCV can read")
        self.rate = float(self._capture.get(opencv().CAP_PROP_FPS) or FALLBACK_RATE) / every
        self.next = 0
        self.is_over = False

    def read(self) -> tuple[int, Pixels] | None:
        """Return the next frame's number, from 0, and its pixels (H, W, 3) RGB; None at the end."""
        while not self.is_over and self._capture.grab():
            number, self.next = self.next, self.next + 1
            if number % self.every:
                continue
            good, frame = self._capture.retrieve()
            if good:
                return number, np.ascontiguousarray(frame[:, :, ::-1])
        self.close()
        return None

    def close(self) -> None:
        """Let go of the file."""
        self.is_over = True
        self._capture.release()


class FrameWriter:
    """Write frames as an MP4 file, which gets its name when `close` is called."""

    def __init__(self, path: Path, rate: float) -> None:
        self.path, self.rate = path, rate
        with explained(path):
            make_folder(path.parent)
        self._temporary = temporary_name(path).with_suffix(".mp4")
        self._writer: Any = None

    def write(self, pixels: Pixels) -> None:
        """Add one frame (H, W, 3) RGB; all have the size of the first.

        Raises:
            DataError: E502, OpenCV cannot write this kind of video here.
        """
        cv2 = opencv()
        if self._writer is None:
            code = cv2.VideoWriter_fourcc(*"mp4v")
            size = (pixels.shape[1], pixels.shape[0])
            self._writer = cv2.VideoWriter(str(self._temporary), code, self.rate, size)
            if not self._writer.isOpened():
                raise DataError("E502", f"OpenCV cannot write {self.path}", cure="use --no-save")
        self._writer.write(np.ascontiguousarray(pixels[:, :, ::-1]))

    def close(self) -> None:
        """Finish the file and put it in its place."""
        if self._writer is not None:
            self._writer.release()
            with explained(self.path):
                self._temporary.replace(self.path)
