"""Where the files of CIFAR-10 lie; looked for without torch."""

from __future__ import annotations

from pathlib import Path

BINARY_FOLDER = "cifar-10-batches-bin"
PICKLE_FOLDER = "cifar-10-batches-py"
TRAIN_FILES = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST_FILES = ("test_batch",)


def find_cifar10(root: Path) -> Path | None:
    """Return the folder in `root`, or `root` itself, that holds all six files of CIFAR-10."""
    for folder in (root / BINARY_FOLDER, root / PICKLE_FOLDER, root):
        for suffix in (".bin", ""):
            if all((folder / f"{name}{suffix}").is_file() for name in (*TRAIN_FILES, *TEST_FILES)):
                return folder
    return None
