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

from dltool.data.augment import MIXES, augment, check_augmentations, mix
from dltool.data.decode import ImageItem, ItemReader, decode
from dltool.device import generator as fresh_generator
from dltool.errors import ConfigError, DataError


@dataclass
class Resident:
    """Batches cut from tensors that lie on the device whole.

    Args:
        images: (N, C, H, W) uint8.
        labels: (N,) int64, on the same device.
        batch_size: images in a batch; the last one of an epoch may be smaller.
        seed: the run's seed.
        shuffle: every epoch has an order of its own.
        augment: names of `augment.AUGMENTATIONS`.
        drop_last: leave out a last batch that is smaller.
        num_classes: length of the targets that "mixup" and "cutmix" give.
        is_balanced: draw images with replacement, so that every class comes equally often.

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
    num_classes: int = 0
    is_balanced: bool = False

    def __post_init__(self) -> None:
        _check(len(self.images), self)
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

        With "mixup" or "cutmix" labels are shares of every class (B, num_classes), and images may
        be floats. Without shuffling and augmentation the batches are views: do not write into them.
        """
        device = self.images.device
        order = None
        if self.shuffle:
            order = _order(self, self.labels, epoch).to(device)
        for index in range(start, len(self)):
            place = slice(index * self.batch_size, (index + 1) * self.batch_size)
            images, labels = self.images[place], self.labels[place]
            places = torch.arange(place.start, place.start + len(labels), device=device)
            if order is not None:
                places = order[place]
                images = self.images.index_select(0, places)
                labels = self.labels.index_select(0, places)
            yield _augmented(self, images, labels, places, (epoch, index))


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
        augment: names of `augment.AUGMENTATIONS`.
        drop_last: leave out a last batch that is smaller.
        num_classes: length of the targets that "mixup" and "cutmix" give.
        is_balanced: draw images with replacement, so that every class comes equally often.
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
    num_classes: int = 0
    is_balanced: bool = False

    def __post_init__(self) -> None:
        _check(len(self.items), self)

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return _batch_count(len(self.items), self.batch_size, self.drop_last)

    @property
    def num_samples(self) -> int:
        """Return the number of images in an epoch."""
        return min(len(self.items), len(self) * self.batch_size)

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images (B, C, H, W) uint8 and labels (B,) of one epoch, from batch `start` on.

        With "mixup" or "cutmix" as `Resident` does. The workers end with the iterator.

        Raises:
            DataError: E502, no image of a batch can be read.
        """
        device = torch.device(self.device)
        for index, (batch, failures) in enumerate(self._loader(epoch, start, device), start):
            self.broken.update((failure.name, failure.message) for failure in failures)
            if batch is None:
                raise DataError("E502", f"a whole batch is broken; {failures[0].message}")
            images, labels, places = (part.to(device, non_blocking=True) for part in batch)
            yield _augmented(self, images, labels, places, (epoch, index))

    def _loader(self, epoch: int, start: int, device: torch.device) -> DataLoader[Any]:
        labels = torch.tensor([item.label for item in self.items])
        order = _order(self, labels, epoch) if self.shuffle else torch.arange(len(labels))
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


def _augmented(
    source: Resident | Streamed,
    images: Tensor,
    labels: Tensor,
    places: Tensor,
    moment: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Change and mix a batch; `moment` is epoch and batch, `places` (B,) where images come from."""
    names = source.augment
    if not names:
        return images, labels
    stream = fresh_generator(source.seed, *moment, "augment", device=images.device)
    mirrored = None
    if "alternating-flip" in names:
        mirrored = _mirrored(source, places.cpu(), moment[0])
    images = augment(images, names, stream, mirrored)
    return mix(images, labels, names, source.num_classes, stream)


def _mirrored(source: Resident | Streamed, places: Tensor, epoch: int) -> Tensor:
    """Tell which images are mirrored: each by a coin in the first epoch, then in turn.

    Two epochs show both sides of every image, where coins would show one side twice to half of
    them (Jordan, 2024, https://arxiv.org/abs/2404.00498).
    """
    count = len(source.images) if isinstance(source, Resident) else len(source.items)
    coins = torch.randint(0, 2, (count,), generator=fresh_generator(source.seed, "mirrored"))
    return (coins[places] + epoch) % 2 == 1


def _order(source: Resident | Streamed, labels: Tensor, epoch: int) -> Tensor:
    # drawn on the CPU, so that every device has the same order
    stream = fresh_generator(source.seed, epoch, "order")
    if not source.is_balanced:
        return torch.randperm(len(labels), generator=stream)
    labels = labels.cpu()
    chance = 1 / labels.bincount().double()[labels]
    return torch.multinomial(chance, len(labels), replacement=True, generator=stream)


def _batch_count(count: int, batch_size: int, drop_last: bool) -> int:
    return count // batch_size if drop_last else -(-count // batch_size)


def _check(count: int, source: Resident | Streamed) -> None:
    check_augmentations(source.augment)
    if count == 0:
        raise DataError("E503", "there are no images to make batches of")
    size, whole = source.batch_size, source.drop_last
    if size < 1 or (whole and size > count):
        most = f" to {count}, the number of images" if whole else " or more"
        raise ConfigError(
            "E202", "this batch size does not work", received=size, expected=f"1{most}"
        )
    if source.num_classes < 1 and any(name in MIXES for name in source.augment):
        raise ConfigError("E202", "mixing labels needs num_classes", received=source.num_classes)


@dataclass(frozen=True)
class _Failure:
    """An error on its way out of a worker; exceptions lose their fields there."""

    name: str
    message: str


_Batch = tuple[tuple[Tensor, Tensor, Tensor] | None, list[_Failure]]


_One = tuple[Tensor, int, int]


class _Decoded(Dataset[_One | _Failure]):
    def __init__(self, items: Sequence[ImageItem], size: tuple[int, int], mode: str) -> None:
        self.items, self.size, self.mode = items, size, mode
        self.reader = ItemReader()

    def __getitem__(self, index: int) -> _One | _Failure:
        item = self.items[index]
        try:
            pixels = decode(self.reader.read(item), item.name, self.mode, self.size)
        except DataError as error:
            return _Failure(item.name, error.message)
        return torch.tensor(pixels).permute(2, 0, 1), item.label, index


def _collate(parts: list[_One | _Failure]) -> _Batch:
    failures = [part for part in parts if isinstance(part, _Failure)]
    whole = [part for part in parts if not isinstance(part, _Failure)]
    if not whole:
        return None, failures
    images, labels, places = zip(*whole, strict=True)
    return (torch.stack(images), torch.tensor(labels), torch.tensor(places)), failures


def _leave_interrupts_to_parent(worker: int) -> None:
    # Ctrl-C reaches every process of the terminal; the parent finishes its step first
    signal.signal(signal.SIGINT, signal.SIG_IGN)
