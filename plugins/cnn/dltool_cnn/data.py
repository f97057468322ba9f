"""Bring any image source to training, validation and test batches of one size and mode."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dltool.console import Console
from dltool.data import images as image_files
from dltool.data import named, splits
from dltool.data.resident import Resident, Streamed
from dltool.errors import DataError, closest
from dltool.guards import labels as label_guards
from dltool.guards.data import check_data
from dltool.guards.facts import Facts
from dltool.guards.findings import Finding
from dltool_cnn.config import TrainConfig
from dltool_cnn.models import zoo
from dltool_cnn.models.spec import SMALL_IMAGE

RESIDENT_BYTES = 2 << 30
EVALUATION_BATCH = 500
STATISTICS_SAMPLE = 1000
BROKEN_SHOWN = 5

Batches = Resident | Streamed


@dataclass(frozen=True)
class Form:
    """What every image of a run is brought to: `L` or `RGB`, height and width."""

    mode: str
    height: int
    width: int

    @property
    def channels(self) -> int:
        """Return 1 for grey, 3 for colour."""
        return 1 if self.mode == "L" else 3


@dataclass
class Pool:
    """Labelled images of one split: as a tensor on the device, or as files still to be read.

    `names` are the files that images in memory came from, where they came from files.
    """

    labels: Tensor
    images: Tensor | None = None
    items: Sequence[image_files.ImageItem] = ()
    names: Sequence[str] = ()

    def take(self, index: Tensor) -> Pool:
        """Return the samples of an index tensor."""
        images = None if self.images is None else self.images[index.to(self.images.device)]
        items = [self.items[i] for i in index.tolist()] if self.items else ()
        names = [self.names[i] for i in index.tolist()] if self.names else ()
        return Pool(self.labels[index.to(self.labels.device)], images, items, names)


@dataclass
class ImageData:
    """The data of one run.

    Attributes:
        mean, std: per channel on the 0-to-1 scale, over the training images alone.
        side: side that the network enlarges images to; they stay small in memory. 0: none.
        names: the files of the images of val and test, in order, where they came from files.
        facts: counts and fingerprint, for the run folder.
    """

    train: Batches
    val: Batches
    test: Batches
    classes: tuple[str, ...]
    form: Form
    mean: list[float]
    std: list[float]
    side: int = 0
    names: dict[str, Sequence[str]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def load(
    config: TrainConfig, device: torch.device, console: Console, *, enlarge: bool = True
) -> ImageData:
    """Load, split and check the data that a config names.

    Args:
        enlarge: leave it to the network to enlarge images of named sets; otherwise they are
            brought to the size here.

    Raises:
        DataError: it is missing, damaged beyond use, or too little to learn from.
    """
    side = _wanted_side(config)
    pools, classes, form, facts = _pools(config, side, device, console, enlarge=enlarge)
    pools = _three_splits(pools, config, classes, console)
    mean, std = _statistics(pools["train"], form)
    data = ImageData(
        train=_train_batches(pools["train"], config, form, device, len(classes)),
        val=_batches(pools["val"], config, form, device),
        test=_batches(pools["test"], config, form, device),
        classes=classes,
        form=form,
        mean=mean,
        std=std,
        side=side if max(form.height, form.width) < side else 0,
    )
    data.names = {name: pools[name].names for name in ("val", "test")}
    data.findings = _check(pools, len(classes), full=config.guards.endswith("full"))
    counts = {name: len(pool.labels) for name, pool in pools.items()}
    fingerprint = _fingerprint(pools)
    data.facts = {**facts, "counts": counts, "classes": list(classes), "fingerprint": fingerprint}
    if config.batch_size > counts["train"]:
        console.note(
            f"the batch size {config.batch_size} is larger than the {counts['train']} training "
            "images: one batch an epoch"
        )
    return data


def _wanted_side(config: TrainConfig) -> int:
    """Return the side that images are brought to, 0 to keep or choose."""
    if config.image_size or not zoo.is_zoo(config.model):
        return config.image_size
    return zoo.usual_side(config.model)


def _pools(
    config: TrainConfig, side: int, device: torch.device, console: Console, *, enlarge: bool
) -> tuple[dict[str, Pool], tuple[str, ...], Form, dict[str, Any]]:
    """Read a named set or a path into pools by split name."""
    if config.data not in named.NAMED:
        return _path_pools(config, side, device, console)
    root = Path(config.data_root) if config.data_root else None
    loaded = named.load_named(config.data, root, console)
    pools = {"train": Pool(loaded.train_labels, loaded.train_images)}
    if loaded.test_images is not None and loaded.test_labels is not None:
        pools["test"] = Pool(loaded.test_labels, loaded.test_images)
    else:
        pools = {"all": pools["train"]}
    for pool in pools.values():
        assert pool.images is not None
        is_smaller = max(pool.images.shape[2:]) < side
        if not (enlarge and is_smaller):
            pool.images = resized(pool.images, side)
        pool.images = pool.images.to(device)
        pool.labels = pool.labels.to(device)
    sample = next(iter(pools.values())).images
    assert sample is not None
    form = Form("L" if sample.shape[1] == 1 else "RGB", sample.shape[2], sample.shape[3])
    return pools, tuple(loaded.classes), form, {"source": loaded.where}


def resized(images: Tensor, side: int) -> Tensor:
    """Scale (N, C, H, W) uint8 images to side x side, in pieces that fit into memory."""
    if side in (0, images.shape[-1]) and (side == 0 or side == images.shape[-2]):
        return images
    from torchvision.transforms.v2.functional import resize

    return torch.cat([resize(part, [side, side], antialias=True) for part in images.split(4096)])


def _path_pools(
    config: TrainConfig, side: int, device: torch.device, console: Console
) -> tuple[dict[str, Pool], tuple[str, ...], Form, dict[str, Any]]:
    path = Path(config.data)
    if not path.exists():
        near = closest(config.data, named.NAMED)
        raise DataError(
            "E501",
            f"there is no data set and no path {config.data!r}",
            expected=f"one of {', '.join(named.NAMED)}, an image folder or a zip",
            cure=f"did you mean --data {near}?" if near else "see dltool data list",
        )
    tree = image_files.scan(path)
    everything = [item for items in tree.splits.values() for item in items]
    form = choose_form(everything, side)
    facts: dict[str, Any] = {"source": str(path), "ignored": len(tree.ignored)}
    if tree.ignored:
        console.note(f"{len(tree.ignored)} files are no images and were left out")
    pools = {}
    size = len(everything) * form.channels * form.height * form.width
    stream = config.loader == "stream" or (config.loader == "auto" and size > RESIDENT_BYTES)
    for name, items in tree.splits.items():
        pools[name] = _pool(items, form, config, device, console, name, stream=stream)
    facts["broken"] = sum(len(tree.splits[name]) - len(pool.labels) for name, pool in pools.items())
    return pools, tree.classes, form, facts


def choose_form(items: Sequence[image_files.ImageItem], side: int) -> Form:
    """Choose mode and size from a sample: small images stay as they are, others become 64x64."""
    probe = image_files.probe(items)
    height, width = (side, side) if side else probe.size
    if max(height, width) > SMALL_IMAGE and not side:
        height = width = SMALL_IMAGE
    return Form("L" if probe.grey else "RGB", height, width)


def _pool(
    items: Sequence[image_files.ImageItem],
    form: Form,
    config: TrainConfig,
    device: torch.device,
    console: Console,
    name: str,
    *,
    stream: bool,
) -> Pool:
    if stream:
        labels = torch.tensor([item.label for item in items], dtype=torch.int64)
        return Pool(labels, items=list(items))
    loaded = read_images(items, form, console, name)
    return Pool(loaded.labels.to(device), loaded.images.to(device), names=loaded.names)


def read_images(
    items: Sequence[image_files.ImageItem],
    form: Form,
    console: Console,
    name: str,
) -> image_files.Loaded:
    """Decode images into memory and report those that are broken."""
    size = (form.height, form.width)
    loaded = image_files.load(items, size=size, mode=form.mode, console=console)
    warn_of_broken(loaded.broken, name, console)
    return loaded


def warn_of_broken(broken: Sequence[tuple[str, str]], name: str, console: Console) -> None:
    """Say how many images of a split could not be read, and name the first of them."""
    if not broken:
        return
    shown = "; ".join(f"{file}: {reason}" for file, reason in broken[:BROKEN_SHOWN])
    more = len(broken) - BROKEN_SHOWN
    shown += f"; and {more} more" if more > 0 else ""
    console.warn(f"{len(broken)} broken images left out of {name} ({shown})")


def warn_of_streamed(data: ImageData, console: Console) -> None:
    """Report the broken images that streaming met, once training is over."""
    for name, batches in (("train", data.train), ("val", data.val), ("test", data.test)):
        if isinstance(batches, Streamed):
            warn_of_broken(sorted(batches.broken.items()), name, console)


def _three_splits(
    pools: dict[str, Pool], config: TrainConfig, classes: tuple[str, ...], console: Console
) -> dict[str, Pool]:
    """Make train, val and test: what is there stays, what is missing is split off, stratified."""
    val, test = config.val_fraction, config.test_fraction
    if "all" in pools:
        parts = _split(pools["all"], (1 - val - test, val, test), config.seed, classes)
        return dict(zip(("train", "val", "test"), parts, strict=True))
    if "test" not in pools and "val" in pools:
        console.note("there is no test part: val/ is the final test, and a part of train/ chooses")
        pools = {"train": pools["train"], "test": pools["val"]}
    if "test" not in pools:
        train, held = _split(pools["train"], (1 - test, test), config.seed, classes)
        pools = {**pools, "train": train, "test": held}
    if "val" not in pools:
        train, held = _split(pools["train"], (1 - val, val), config.seed, classes)
        pools = {**pools, "train": train, "val": held}
    return {name: pools[name] for name in ("train", "val", "test")}


def _split(
    pool: Pool, fractions: Sequence[float], seed: int, classes: tuple[str, ...]
) -> list[Pool]:
    parts = splits.stratified(pool.labels.cpu(), fractions, seed, classes)
    return [pool.take(index) for index in parts]


def _statistics(pool: Pool, form: Form) -> tuple[list[float], list[float]]:
    """Return mean and deviation per channel on the 0-to-1 scale, of the training images alone."""
    images = pool.images
    if images is None:
        step = max(1, len(pool.items) // STATISTICS_SAMPLE)
        sample = list(pool.items)[::step]
        loaded = image_files.load(sample, size=(form.height, form.width), mode=form.mode)
        images = loaded.images
    total = torch.zeros(images.shape[1], dtype=torch.float64)
    squares = torch.zeros_like(total)
    for part in images.split(4096):
        x = part.float() / 255  # (n, C, H, W)
        total += x.sum((0, 2, 3)).double().cpu()
        squares += x.square().sum((0, 2, 3)).double().cpu()
    count = images.numel() / images.shape[1]
    mean = total / count
    std = (squares / count - mean.square()).clamp_min(0).sqrt()
    if bool((std < 1e-4).all()):
        raise DataError(
            "E503", "every training image is one flat colour", cure="look at the image files"
        )
    return mean.tolist(), std.clamp_min(1e-3).tolist()


def _train_batches(
    pool: Pool, config: TrainConfig, form: Form, device: torch.device, num_classes: int
) -> Batches:
    size = config.batch_size
    # batch normalisation cannot train on a single sample: let a lone last one wait for its turn
    drop = len(pool.labels) % size == 1 and len(pool.labels) > 1
    return _batches(
        pool,
        config,
        form,
        device,
        batch_size=size,
        shuffle=True,
        augment=config.augmentations,
        drop_last=drop,
        num_classes=num_classes,
        is_balanced=config.balance,
    )


def _batches(
    pool: Pool,
    config: TrainConfig,
    form: Form,
    device: torch.device,
    *,
    batch_size: int = EVALUATION_BATCH,
    shuffle: bool = False,
    **others: Any,
) -> Batches:
    shared: dict[str, Any] = {
        "batch_size": batch_size,
        "seed": config.seed,
        "shuffle": shuffle,
        **others,
    }
    if pool.images is not None:
        return Resident(pool.images, pool.labels, **shared)
    return Streamed(
        pool.items,
        size=(form.height, form.width),
        mode=form.mode,
        workers=config.workers,
        device=device,
        **shared,
    )


def _check(pools: dict[str, Pool], num_classes: int, *, full: bool) -> list[Finding]:
    shown = {
        name: (pool.images.cpu(), pool.labels.cpu())
        for name, pool in pools.items()
        if pool.images is not None
    }
    if len(shown) == len(pools):
        facts = Facts(task="classify", num_classes=num_classes)
        train, val, test = (shown[name] for name in ("train", "val", "test"))
        return list(check_data(train, val, test, facts=facts, full=full).findings)
    return [
        found
        for name, pool in pools.items()
        for found in label_guards.check_split(pool.labels, num_classes, name)
    ]


def _fingerprint(pools: dict[str, Pool]) -> str:
    """Hash what the run learns from and is tested on, so that a resumed run can tell a change."""
    digest = hashlib.sha256()
    for name, pool in pools.items():
        digest.update(name.encode())
        digest.update(pool.labels.cpu().numpy().tobytes())
        if pool.images is not None:
            digest.update(pool.images.cpu().contiguous().numpy().data)
        for item in pool.items:
            digest.update(item.name.encode())
    return digest.hexdigest()
