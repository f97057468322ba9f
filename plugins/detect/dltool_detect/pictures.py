"""Decode inputs in threads while the model works, and put pictures of one size together."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from dltool.data import decode
from dltool.errors import DataError
from dltool_detect.draw import Pixels
from dltool_detect.sources import Failed, Source
from dltool_detect.video import Frames

# two cores: one decodes while the model's own threads wait for each other
DECODERS = 2
# batches that may wait for the model, decoded
AHEAD = 2


@dataclass(frozen=True)
class Picture:
    """One decoded picture, or a frame of a video.

    Args:
        source: the input's place in the list of inputs.
        pixels: (H, W, 3) RGB, upright.
        frame: the number of the frame, None for a picture.
        rate: frames a second of the video that is written.
    """

    source: int
    name: str
    pixels: Pixels
    frame: int | None = None
    rate: float = 0.0

    @property
    def image(self) -> Tensor:
        """The picture as the detector takes it, uint8 (3, H, W)."""
        return torch.tensor(self.pixels).permute(2, 0, 1)


Result = Picture | Failed | None


def batches(
    sources: Iterable[Source], size: int, *, every: int = 1
) -> Iterator[list[Picture] | Failed]:
    """Yield decoded pictures in order, up to `size` of one shape together, and what failed.

    Pictures of different shapes never share a batch: the smaller one would be padded, and what is
    found on it would depend on its neighbours.
    """
    batch: list[Picture] = []
    with ThreadPoolExecutor(DECODERS) as pool, ThreadPoolExecutor(1) as line:
        waiting: deque[Future[Result]] = deque()
        try:
            for future in _all_futures(sources, pool, line, every):
                waiting.append(future)
                if len(waiting) > AHEAD * size + DECODERS:
                    yield from _joined(batch, waiting.popleft().result(), size)
            while waiting:
                yield from _joined(batch, waiting.popleft().result(), size)
        finally:
            # after Ctrl-C only what is in hand is finished
            pool.shutdown(wait=False, cancel_futures=True)
            line.shutdown(wait=False, cancel_futures=True)
    if batch:
        yield batch


def _joined(batch: list[Picture], result: Result, size: int) -> Iterator[list[Picture] | Failed]:
    """Add a result to the batch in hand; yield that batch when it is full or does not fit."""
    if result is None:
        return
    is_other = isinstance(result, Failed) or (
        bool(batch) and batch[0].pixels.shape != result.pixels.shape
    )
    if batch and (is_other or len(batch) == size):
        yield list(batch)
        batch.clear()
    if isinstance(result, Failed):
        yield result
    else:
        batch.append(result)


def _all_futures(
    sources: Iterable[Source], pool: ThreadPoolExecutor, line: ThreadPoolExecutor, every: int
) -> Iterator[Future[Result]]:
    for index, source in enumerate(sources):
        if not source.is_video:
            yield pool.submit(_decoded, index, source)
            continue
        try:
            frames = Frames(source.path or source.relative, every)
        except DataError as error:
            done: Future[Result] = Future()
            done.set_result(Failed(source.name, error.message))
            yield done
            continue
        while not frames.is_over:
            # frames come in order, so that one thread reads them
            yield line.submit(_next_frame, index, source.name, frames)


def _decoded(index: int, source: Source) -> Result:
    try:
        return Picture(index, source.name, decode.decode(source.read(), source.name, "RGB", None))
    except DataError as error:
        return Failed(source.name, error.message)


def _next_frame(index: int, name: str, frames: Frames) -> Result:
    found = frames.read()
    if found is None:
        return None
    number, pixels = found
    return Picture(index, name, pixels, number, frames.rate)
