"""The data sets that dltool knows by name: what they are, where they lie, how they are read."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dltool import files
from dltool.console import Console
from dltool.data import hashes
from dltool.data.download import Source, cache_folder, fetch, locked
from dltool.errors import ConfigError, DataError, closest

if TYPE_CHECKING:
    from torch import Tensor

IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
# torchvision's folders; the two sets name their files alike, so the folder tells them apart
IDX_FOLDERS = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}
CIFAR_ARCHIVE = "cifar-10-binary.tar.gz"
UNPACKED = "unpacked"
RECEIPT = "receipt.json"


@dataclass(frozen=True)
class NamedData:
    """A data set of images with a name.

    Args:
        name: as given to `--data`.
        summary: one line.
        classes: names by label.
        size: (height, width) in pixels.
        channels: 1 for grey, 3 for RGB.
        licence: as its makers state it.
        files: what is downloaded, by file name; none when it ships inside a dependency.
    """

    name: str
    summary: str
    classes: tuple[str, ...]
    size: tuple[int, int]
    channels: int
    licence: str
    files: Mapping[str, Source] = field(default_factory=dict)


@dataclass(frozen=True)
class NamedSplits:
    """A named data set in memory; without a test split of its own the test tensors are None.

    Args:
        train_images: (N, C, H, W) uint8.
        train_labels: (N,) int64.
        test_images: (M, C, H, W) uint8.
        test_labels: (M,) int64.
        classes: names by label.
        where: the folder or package it was read from.
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor | None
    test_labels: Tensor | None
    classes: tuple[str, ...]
    where: str


def _idx_sources(mirrors: tuple[str, ...], facts: tuple[tuple[int, str], ...]) -> dict[str, Source]:
    return {
        f"{name}.gz": Source(
            tuple(f"{mirror}{name}.gz" for mirror in mirrors), size, f"sha256:{digest}"
        )
        for name, (size, digest) in zip(IDX_FILES, facts, strict=True)
    }


DIGITS = tuple("0123456789")
NAMED: dict[str, NamedData] = {
    data.name: data
    for data in (
        NamedData(
            "digits",
            "1,797 handwritten digits, inside scikit-learn: no download",
            DIGITS,
            (8, 8),
            1,
            "CC BY 4.0 (UCI, Optical Recognition of Handwritten Digits)",
        ),
        NamedData(
            "mnist",
            "handwritten digits, 60,000 to train and 10,000 to test",
            DIGITS,
            (28, 28),
            1,
            "CC BY-SA 3.0",
            _idx_sources(
                (
                    "https://ossci-datasets.s3.amazonaws.com/mnist/",
                    "https://storage.googleapis.com/cvdf-datasets/mnist/",
                ),
                (
                    (9912422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
                    (28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
                    (1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
                    (4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
                ),
            ),
        ),
        NamedData(
            "fashion-mnist",
            "pictures of clothes, 60,000 to train and 10,000 to test",
            (
                "T-shirt/top",
                "Trouser",
                "Pullover",
                "Dress",
                "Coat",
                "Sandal",
                "Shirt",
                "Sneaker",
                "Bag",
                "Ankle boot",
            ),
            (28, 28),
            1,
            "MIT",
            _idx_sources(
                (
                    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/"
                    "data/fashion/",
                ),
                (
                    (26421880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
                    (29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
                    (4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
                    (5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
                ),
            ),
        ),
        NamedData(
            "cifar10",
            "small colour photos of 10 kinds, 50,000 to train and 10,000 to test",
            (
                "airplane",
                "automobile",
                "bird",
                "cat",
                "deer",
                "dog",
                "frog",
                "horse",
                "ship",
                "truck",
            ),
            (32, 32),
            3,
            "none stated",
            {
                CIFAR_ARCHIVE: Source(
                    ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
                    170052171,
                    "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                )
            },
        ),
    )
}


def known(name: str) -> NamedData:
    """Return the description of a named data set.

    Raises:
        ConfigError: E206, no data set has this name.
    """
    if name in NAMED:
        return NAMED[name]
    near = closest(name.lower(), NAMED)
    raise ConfigError(
        "E206",
        f"no data set is named {name!r}",
        expected=", ".join(NAMED),
        cure=f"did you mean {near}?" if near else "dltool data list",
    )


def where(name: str, data_root: Path | None = None) -> Path | None:
    """Return the folder that holds a named data set, or None when it is not complete.

    Args:
        name: a key of `NAMED`.
        data_root: where to look, in torchvision's layout or right there; the cache when None.
    """
    known(name)
    if name == "digits":
        return _digits_folder()
    if name in IDX_FOLDERS:
        folders = _idx_candidates(name, data_root or cache_folder(name))
        return next((folder for folder in folders if not _missing_idx(folder)), None)
    from dltool.data.cifar_files import find_cifar10

    root = data_root or cache_folder(name)
    return find_cifar10(root) or find_cifar10(root / UNPACKED)


def fetch_named(name: str, console: Console | None = None) -> Path:
    """Return the folder of a named data set in the cache, and download it when it is not there.

    Raises:
        DataError: E504 the download failed or is forbidden, E505 its archive is unsafe.
    """
    data = known(name)
    found = where(name)
    if found is not None:
        return found
    console = console or Console("data")
    folder = cache_folder(name)
    for file, source in data.files.items():
        fetch(source, folder / file, console)
    if name == "cifar10":
        _unpack_cifar(folder, console)
    found = where(name)
    if found is None:
        raise DataError("E504", f"the download of {name} does not hold the files it should")
    return found


def load_named(
    name: str, data_root: Path | None = None, console: Console | None = None
) -> NamedSplits:
    """Read a named data set from `data_root`, or from the cache, downloading it when it must.

    Args:
        name: a key of `NAMED`.
        data_root: the only place to look in; nothing is downloaded when it is given.
        console: tells about a download.

    Raises:
        ConfigError: E206, no data set has this name.
        DataError: E501 `data_root` lacks files, E502 one is damaged, E504 the download failed,
            E506 labels do not fit the images or the classes.
    """
    data = known(name)
    if name == "digits":
        return _load_digits(data)
    folder = where(name, data_root)
    if folder is None and data_root is not None:
        raise _not_found(data, data_root)
    folder = folder or fetch_named(name, console)
    return _load_cifar(data, folder) if name == "cifar10" else _load_idx(data, folder)


def _digits_folder() -> Path | None:
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        return None
    folder = Path(package.origin).parent / "datasets" / "data"
    return folder if folder.is_dir() else None


def _load_digits(data: NamedData) -> NamedSplits:
    import torch
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # the values 0 to 16 become 0 to 255
    images = (torch.from_numpy(bunch.images) * 255 / 16).round().to(torch.uint8)
    labels = torch.from_numpy(bunch.target).to(torch.int64)
    return NamedSplits(images[:, None], labels, None, None, data.classes, "scikit-learn")


def _idx_candidates(name: str, root: Path) -> list[Path]:
    folders = [root / IDX_FOLDERS[name] / "raw"]
    if root.resolve().name == IDX_FOLDERS[name]:
        folders.append(root / "raw")
    others = {folder for key, folder in IDX_FOLDERS.items() if key != name}
    # files right there could be those of the other set, and no byte of them would tell
    return folders if others & set(root.resolve().parts) else [*folders, root]


def _idx_file(folder: Path, name: str) -> Path | None:
    candidates = (folder / name, folder / f"{name}.gz")
    return next((path for path in candidates if path.is_file()), None)


def idx_files(folder: Path) -> list[Path]:
    """Return the four files of an idx data set that a folder holds, packed or not."""
    found = [_idx_file(folder, name) for name in IDX_FILES]
    return [path for path in found if path is not None]


def _missing_idx(folder: Path) -> list[str]:
    return [name for name in IDX_FILES if _idx_file(folder, name) is None]


def _not_found(data: NamedData, root: Path) -> DataError:
    if not root.is_dir():
        cure = "check the path given with --data-root, or leave it out to download"
        return DataError("E501", f"there is no folder {root}", cure=cure)
    if data.name in IDX_FOLDERS:
        folders = " or ".join(str(folder) for folder in _idx_candidates(data.name, root))
        looked = f"{', '.join(IDX_FILES)}, gzipped or not, in {folders}"
    else:
        looked = f"cifar-10-batches-bin or cifar-10-batches-py in {root}"
    return DataError(
        "E501",
        f"{root} does not hold {data.name}",
        expected=looked,
        cure="give the right folder with --data-root, or leave it out to download",
    )


def _load_idx(data: NamedData, folder: Path) -> NamedSplits:
    from dltool.data.idx import read_idx

    tensors = []
    for name in IDX_FILES:
        path = _idx_file(folder, name)
        if path is None:
            raise _not_found(data, folder)
        tensors.append(read_idx(path))
    train_images, train_labels, test_images, test_labels = tensors
    return NamedSplits(
        *_checked(data, folder / IDX_FILES[0], train_images, train_labels),
        *_checked(data, folder / IDX_FILES[2], test_images, test_labels),
        data.classes,
        str(folder),
    )


def _checked(data: NamedData, path: Path, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return images (N, 1, H, W) and labels (N,) int64 that belong together."""
    if images.dim() != 3 or tuple(images.shape[1:]) != data.size or labels.dim() != 1:
        height, width = data.size
        shapes = f"images {tuple(images.shape)}, labels {tuple(labels.shape)}"
        raise DataError(
            "E502", f"{path} does not fit {data.name}: {shapes}", expected=f"(N, {height}, {width})"
        )
    if len(images) != len(labels):
        raise DataError("E506", f"{path}: {len(images):,} images have {len(labels):,} labels")
    if int(labels.max()) >= len(data.classes):
        raise DataError(
            "E506",
            f"{path}: its labels go up to {int(labels.max())}",
            expected=f"0 to {len(data.classes) - 1}",
        )
    return images[:, None], labels.long()


def _load_cifar(data: NamedData, folder: Path) -> NamedSplits:
    from dltool.data.cifar import read_cifar10

    return NamedSplits(*read_cifar10(folder), data.classes, str(folder))


def write_receipt(folder: Path) -> None:
    """Write down size and SHA-256 of all files of a set whose makers tell none of them."""
    found = [name for name in hashes.below(folder) if not name.endswith((".lock", RECEIPT))]
    files.write_json_atomic(folder / RECEIPT, hashes.hashed(folder, found))


def _unpack_cifar(folder: Path, console: Console) -> None:
    from dltool.data.archives import extract
    from dltool.data.cifar_files import find_cifar10

    archive, target = folder / CIFAR_ARCHIVE, folder / UNPACKED
    with locked(target, console):
        if find_cifar10(target) is None:
            shutil.rmtree(target, ignore_errors=True)
            extract(archive, target)
        archive.unlink(missing_ok=True)
        # the archive's checksum says nothing about what came out of it
        write_receipt(folder)
