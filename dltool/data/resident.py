"""Batches for training whose order and augmentation depend on (seed, epoch, batch) alone.

`Resident` cuts them from tensors on the device, `Streamed` decodes them in worker processes. Both
can start at any batch, so a stopped run goes on with the very batches that it would have had.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dltool.data.decode import ImageItem, ItemReader, decode
from dltool.device import generator as fresh_generator
from dltool.errors import ConfigError, DataError, closest

AUGMENTATIONS = ("flip", "crop")
CROP_FRACTION = 0.125


@dataclass
class Resident:
    """Batches cut from tensors that lie on the device whole.

    Args:
        images: (N, C, H, W) uint8.
        labels: (N,) int64, on the same device.
        batch_size: images in a batch; the last one of an epoch may be smaller.
        seed: the run's seed.
        shuffle: every epoch has an order of its own.
        augment: names of `AUGMENTATIONS`.
        drop_last: leave out a last batch that is smaller.

    Raises:
        ConfigError: E202, the batch size is below 1, or above N with `drop_last`; E206, an unknown
            augmentation.
        DataError: E503, there are no images; E506, images and labels differ in number.
    """

    images: Tensor
    labels: Tensor
    batch_size: int
    seed: int
    shuffle: bool
    augment: tuple[str, ...] = ()
    drop_last: bool = False

    def __post_init__(self) -> None:
        _check(len(self.images), self.batch_size, self.augment, self.drop_last)
        if len(self.images) != len(self.labels):
            raise DataError("E506", f"{len(self.images):,} images have {len(self.labels):,} labels")

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return _batch_count(len(self.images), self.batch_size, self.drop_last)

    @property
    def num_samples(self) -> int:
        """Return the number of images in an epoch."""
        return min(len(self.images), len(self) * self.batch_size)

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images (B, C, H, W) uint8 and labels (B,) of one epoch, from batch `start` on.

        Without shuffling and augmentation the batches are views: do not write into them.
        """
        device = self.images.device
        order = None
        if self.shuffle:
            order = _order(len(self.images), self.seed, epoch).to(device)
        for index in range(start, len(self)):
            place = slice(index * self.batch_size, (index + 1) * self.batch_size)
            images, labels = self.images[place], self.labels[place]
            if order is not None:
                images = self.images.index_select(0, order[place])
                labels = self.labels.index_select(0, order[place])
            yield _augmented(images, self.augment, self.seed, epoch, index), labels


@dataclass
class Streamed:
    """Batches decoded from image files while training, for sets too large to hold in memory.

    Args:
        items: the images, from `images.scan`.
        batch_size: images in a batch; the last one of an epoch may be smaller.
        seed: the run's seed.
        shuffle: every epoch has an order of its own.
        size: (height, width) of every image.
        mode: "L" or "RGB".
        device: where the batches go, and where they are augmented.
        workers: processes that decode; 0 decodes in this one.
        augment: names of `AUGMENTATIONS`.
        drop_last: leave out a last batch that is smaller.
        broken: files that could not be read so far, with the reason; they are missing from their
            batches, the same ones in every epoch.

    Raises:
        ConfigError: E202, the batch size is below 1, or above N with `drop_last`; E206, an unknown
            augmentation.
        DataError: E503, there are no images.
    """

    items: Sequence[ImageItem]
    batch_size: int
    seed: int
    shuffle: bool
    size: tuple[int, int]
    mode: str
    device: torch.device | str = "cpu"
    workers: int = 2
    augment: tuple[str, ...] = ()
    drop_last: bool = False
    broken: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(len(self.items), self.batch_size, self.augment, self.drop_last)

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return _batch_count(len(self.items), self.batch_size, self.drop_last)

    @property
    def num_samples(self) -> int:
        """Return the number of images in an epoch."""
        return min(len(self.items), len(self) * self.batch_size)

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images (B, C, H, W) uint8 and labels (B,) of one epoch, from batch `start` on.

        The workers end with the iterator.

        Raises:
            DataError: E502, no image of a batch can be read.
        """
        device = torch.device(self.device)
        for index, (batch, failures) in enumerate(self._loader(epoch, start, device), start):
            self.broken.update((failure.name, failure.message) for failure in failures)
            if batch is None:
                raise DataError("E502", f"a whole batch is broken; {failures[0].message}")
            images, labels = (part.to(device, non_blocking=True) for part in batch)
            yield _augmented(images, self.augment, self.seed, epoch, index), labels

    def _loader(self, epoch: int, start: int, device: torch.device) -> DataLoader[Any]:
        count = len(self.items)
        order = _order(count, self.seed, epoch) if self.shuffle else torch.arange(count)
        places = [
            order[index * self.batch_size : (index + 1) * self.batch_size].tolist()
            for index in range(start, len(self))
        ]
        return DataLoader(
            _Decoded(self.items, self.size, self.mode),
            batch_sampler=places,
            num_workers=self.workers,
            collate_fn=_collate,
            worker_init_fn=_leave_interrupts_to_parent,
            pin_memory=device.type == "cuda",
            # the loader draws a seed for its workers: not from the run's global stream
            generator=fresh_generator(self.seed, epoch, "workers"),
        )


def augment(images: Tensor, names: Sequence[str], generator: torch.Generator) -> Tensor:
    """Change every image of a batch at random, by the named ways in the order given.

    "flip" mirrors left and right with probability 1/2. "crop" shifts by up to an eighth of each
    side, but at least 2 pixels, or 1 where the side is below 16; what moves in repeats the edge.

    Args:
        images: (B, C, H, W); not changed.
        names: of `AUGMENTATIONS`.
        generator: draws, on the device of the images.

    Raises:
        ConfigError: E206, a name is not known.
    """
    check_augmentations(names)
    ways = {"flip": _flip, "crop": _crop}
    for name in names:
        images = ways[name](images, generator)
    return images


def check_augmentations(names: Sequence[str]) -> None:
    """Refuse unknown names of augmentations.

    Raises:
        ConfigError: E206, with the nearest name.
    """
    for name in names:
        if name not in AUGMENTATIONS:
            near = closest(name, AUGMENTATIONS)
            raise ConfigError(
                "E206",
                f"no augmentation is named {name!r}",
                expected=", ".join(AUGMENTATIONS),
                cure=f"did you mean {near}?" if near else "choose one of these",
            )


def _flip(images: Tensor, stream: torch.Generator) -> Tensor:
    draws = torch.rand(len(images), generator=stream, device=images.device)
    return torch.where((draws < 0.5)[:, None, None, None], images.flip(3), images)


def _crop(images: Tensor, stream: torch.Generator) -> Tensor:
    count, channels, height, width = images.shape
    rows = _shifted(count, height, stream, images.device)  # (B, H)
    columns = _shifted(count, width, stream, images.device)  # (B, W)
    source = rows[:, :, None] * width + columns[:, None, :]  # (B, H, W), places in one plane
    source = source.reshape(count, 1, height * width).expand(count, channels, -1)
    planes = images.reshape(count, channels, height * width)
    return planes.gather(2, source).reshape(images.shape)


def _shifted(count: int, side: int, stream: torch.Generator, device: torch.device) -> Tensor:
    """Return (count, side) source places, each row shifted by its own draw and held inside."""
    most = max(int(side * CROP_FRACTION), 2 if side >= 16 else 1)
    shifts = torch.randint(-most, most + 1, (count, 1), generator=stream, device=device)
    return (torch.arange(side, device=device) + shifts).clamp(0, side - 1)


def _augmented(images: Tensor, names: tuple[str, ...], seed: int, epoch: int, index: int) -> Tensor:
    if not names:
        return images
    return augment(
        images, names, fresh_generator(seed, epoch, index, "augment", device=images.device)
    )


def _order(count: int, seed: int, epoch: int) -> Tensor:
    # drawn on the CPU, so that every device has the same order
    return torch.randperm(count, generator=fresh_generator(seed, epoch, "order"))


def _batch_count(count: int, batch_size: int, drop_last: bool) -> int:
    return count // batch_size if drop_last else -(-count // batch_size)


def _check(count: int, batch_size: int, names: tuple[str, ...], drop_last: bool) -> None:
    check_augmentations(names)
    if count == 0:
        raise DataError("E503", "there are no images to make batches of")
    if batch_size < 1 or (drop_last and batch_size > count):
        most = f" to {count}, the number of images" if drop_last else " or more"
        raise ConfigError(
            "E202", "this batch size does not work", received=batch_size, expected=f"1{most}"
        )


@dataclass(frozen=True)
class _Failure:
    """An error on its way out of a worker; exceptions lose their fields there."""

    name: str
    message: str


_Batch = tuple[tuple[Tensor, Tensor] | None, list[_Failure]]


class _Decoded(Dataset[tuple[Tensor, int] | _Failure]):
    def __init__(self, items: Sequence[ImageItem], size: tuple[int, int], mode: str) -> None:
        self.items, self.size, self.mode = items, size, mode
        self.reader = ItemReader()

    def __getitem__(self, index: int) -> tuple[Tensor, int] | _Failure:
        item = self.items[index]
        try:
            pixels = decode(self.reader.read(item), item.name, self.mode, self.size)
        except DataError as error:
            return _Failure(item.name, error.message)
        return torch.tensor(pixels).permute(2, 0, 1), item.label


def _collate(parts: list[tuple[Tensor, int] | _Failure]) -> _Batch:
    failures = [part for part in parts if isinstance(part, _Failure)]
    whole = [part for part in parts if not isinstance(part, _Failure)]
    if not whole:
        return None, failures
    images = torch.stack([image for image, _ in whole])
    return (images, torch.tensor([label for _, label in whole])), failures


def _leave_interrupts_to_parent(worker: int) -> None:
    # Ctrl-C reaches every process of the terminal; the parent finishes its step first
    signal.signal(signal.SIGINT, signal.SIG_IGN)
