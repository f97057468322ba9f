"""Points in the plane with two classes, made from the run's seed or read from a text file."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dltool.device import generator
from dltool.errors import DataError
from dltool_mlp_xor.config import TrainConfig

CLASSES = {
    "table": ("0", "1"),
    "sign": ("other signs", "same sign"),
    "spirals": ("first arm", "second arm"),
    "circles": ("outer ring", "inner ring"),
    "moons": ("upper moon", "lower moon"),
}
LEAST_VAL, LEAST_TEST, MOST_HELD_OUT = 200, 1000, 100_000
TURNS = 1.5  # of a spiral
LONGEST_LINE = 10_000  # characters of a line of a points file


@dataclass(frozen=True)
class Batches:
    """Shuffled batches of points that depend only on (seed, epoch, position).

    Args:
        points: (N, 2) float32.
        labels: (N,) int64, 0 or 1, on the same device.
        batch_size: points in a batch; the last one of a pass may be smaller.
        passes: how often an epoch goes over all points, each time in an order of its own.
    """

    points: Tensor
    labels: Tensor
    batch_size: int
    seed: int
    passes: int = 1

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return self.passes * self._in_a_pass

    @property
    def _in_a_pass(self) -> int:
        return -(-len(self.points) // self.batch_size)

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield points (B, 2) and labels (B,) of one epoch, from batch `start` on."""
        first_pass, first_batch = divmod(start, self._in_a_pass)
        for number in range(first_pass, self.passes):
            stream = generator(self.seed, epoch, number, "order")
            # drawn on the CPU, so that every device has the same order
            order = torch.randperm(len(self.points), generator=stream).to(self.points.device)
            points = self.points[order].split(self.batch_size)
            labels = self.labels[order].split(self.batch_size)
            skipped = first_batch if number == first_pass else 0
            yield from zip(points[skipped:], labels[skipped:], strict=True)


@dataclass(frozen=True)
class Split:
    """Points (N, 2) float32 and their labels (N,) int64."""

    points: Tensor
    labels: Tensor


@dataclass(frozen=True)
class PointData:
    """What a run trains and is measured on.

    Attributes:
        is_whole: the three splits are the same points, because there are no others.
    """

    train: Split
    val: Split
    test: Split
    classes: tuple[str, str]
    is_whole: bool


def load(config: TrainConfig, device: torch.device) -> PointData:
    """Draw the three splits of a task, each from a random stream of its own."""
    whole = config.task == "table" and config.noise == 0
    sizes = {
        "train": config.points,
        "val": min(max(config.points // 10, LEAST_VAL), MOST_HELD_OUT),
        "test": min(max(config.points, LEAST_TEST), MOST_HELD_OUT),
    }
    splits = {}
    for name, count in sizes.items():
        points, labels = make(config.task, 4 if whole else count, config.noise, config.seed, name)
        splits[name] = Split(points.to(device), labels.to(device))
    return PointData(**splits, classes=CLASSES[config.task], is_whole=whole)


def make(task: str, count: int, noise: float, seed: int, purpose: str) -> tuple[Tensor, Tensor]:
    """Return points (count, 2) float32 and labels (count,) int64 of one task.

    Args:
        noise: deviation of the Gaussian added to every point; the label stays what it was.
        seed, purpose: choose the random stream; another purpose gives other points.
    """
    stream = generator(seed, "points", task, purpose)
    labels = torch.arange(count) % 2
    if task == "table":
        points = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
        points = points.repeat(-(-count // 4), 1)[:count]
    elif task == "sign":
        points = torch.randn(count, 2, generator=stream)
        labels = (points[:, 0] * points[:, 1] > 0).long()
    else:
        shape = {"spirals": _spirals, "circles": _circles, "moons": _moons}[task]
        points = shape(torch.rand(count, generator=stream), labels)
    if noise:
        points = points + noise * torch.randn(count, 2, generator=stream)
    return points, labels


def _spirals(share: Tensor, labels: Tensor) -> Tensor:
    """Wind two arms around the origin; the root makes the points equally dense along an arm."""
    radius = share.sqrt()
    angle = 2 * math.pi * TURNS * radius + math.pi * labels
    return torch.stack([radius * angle.cos(), radius * angle.sin()], 1)


def _circles(share: Tensor, labels: Tensor) -> Tensor:
    """Put class 1 on a ring of radius 0.5 and class 0 on one of radius 1."""
    radius = 1 - 0.5 * labels
    angle = 2 * math.pi * share
    return torch.stack([radius * angle.cos(), radius * angle.sin()], 1)


def _moons(share: Tensor, labels: Tensor) -> Tensor:
    """Put class 0 on an upper half circle and class 1 on a lower one, moved by (1, 0.5)."""
    angle = math.pi * share
    sign = 1 - 2 * labels
    x = sign * angle.cos() + labels
    y = sign * angle.sin() + 0.5 * labels
    return torch.stack([x, y], 1)


# ---- points of the user -----------------------------------------------------------------------


@dataclass(frozen=True)
class Listed:
    """Points (N, 2) of a text file, with their class names where it has a third column."""

    points: Tensor
    names: tuple[str, ...] | None


def parse_point(text: str) -> tuple[float, float]:
    """Read a point such as `0.5,-1`.

    Raises:
        DataError: E502, it is none.
    """
    point = _numbers(text.split(","))
    if point is None or text.count(",") != 1:
        raise DataError(
            "E502",
            f"{text!r} is no point and no file",
            expected="two finite numbers with a comma between them, such as 0.5,-1",
            cure="give points as x,y, a CSV file, or - for stdin",
        )
    return point


def read_points(path: Path) -> Listed:
    """Read a CSV file with the columns x, y and, if it likes, a class.

    Raises:
        DataError: E501 or E502, naming the line.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError("E501", f"cannot read {path}: {reason}", cure="check the path") from error
    return parse_points(content, str(path))


def parse_points(content: bytes, name: str) -> Listed:
    """Read points from the bytes of a CSV file; a first line of words is a heading.

    Raises:
        DataError: E502 for a line that is no point, E503 when there is none.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise _bad_line(name, line, "is not UTF-8 text") from error
    points: list[tuple[float, float]] = []
    names: list[str] = []
    for line, cells in _rows(text, name):
        point = _numbers(cells[:2])
        if point is None and line == 1 and not any(_is_number(cell) for cell in cells):
            continue
        if point is None or len(cells) > 3:
            raise _bad_line(name, line, f"holds {','.join(cells)[:60]!r}")
        points.append(point)
        names += cells[2:]
        if names and len(names) != len(points):
            raise _bad_line(name, line, "has another number of columns than the lines before")
    if not points:
        raise DataError("E503", f"{name} holds no point", cure="give lines of x,y")
    return Listed(torch.tensor(points), tuple(names) if names else None)


def _rows(text: str, name: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(io.StringIO(text), start=1):
        if len(line) > LONGEST_LINE:
            raise _bad_line(name, number, f"has {len(line):,} characters")
        try:
            cells = [cell.strip() for cell in next(csv.reader([line], strict=True), [])]
        except csv.Error as error:
            raise _bad_line(name, number, f"is no CSV: {error}") from error
        if any(cells):
            yield number, cells


def _numbers(cells: Sequence[str]) -> tuple[float, float] | None:
    try:
        x, y = (float(cell) for cell in cells)
    except ValueError:
        return None
    # the largest float32: beyond it a point would turn into infinity
    return (x, y) if abs(x) < 3.4e38 and abs(y) < 3.4e38 else None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _bad_line(name: str, line: int, what: str) -> DataError:
    return DataError(
        "E502",
        f"{name}, line {line}: {what}",
        expected="x,y or x,y,class, with finite numbers",
        cure="correct the line",
    )
