"""Shapes worked out and explained: broadcasting, convolution and pooling; nothing needs torch."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dltool.errors import ConfigError

Shape = tuple[int, ...]


def parse(text: str, what: str, *, least: int = 0) -> Shape:
    """Return the sizes in `3x1x5`, `3,1,5` or `(3, 1, 5)`; `()` is a scalar.

    Raises:
        ConfigError: anything else, or a size below `least`.
    """
    inner = re.sub(r"^\s*[(\[](.*)[)\]]\s*$", r"\1", text).strip()
    bare = inner == text.strip()
    parts = [part.strip() for part in re.split(r"[x×*,]", inner)] if inner else []
    if len(parts) > 1 and not parts[-1] and not bare:
        parts.pop()  # (3,) as Python writes it
    sizes = [int(part) for part in parts if re.fullmatch(r"[0-9]{1,12}", part)]
    if len(sizes) != len(parts) or (not parts and bare) or min(sizes, default=least) < least:
        raise ConfigError(
            "E202",
            f"{what} is not understood",
            received=text,
            expected=f"whole numbers of {least} or more with x between them",
            cure="write it like 3x1x5",
        )
    return tuple(sizes)


def written(shape: Sequence[int]) -> str:
    """Return a shape as Python writes it."""
    return str(tuple(shape))


@dataclass(frozen=True)
class Alignment:
    """Shapes aligned at the right, and what broadcasting makes of them.

    Attributes:
        result: the common shape, or None where there is none.
        axis: where it fails, counted from the left of the longest shape, as torch counts.
        reason: why it fails, or an empty string.
        warning: what is likely to be a mistake although it works, or an empty string.
    """

    shapes: tuple[Shape, ...]
    result: Shape | None
    axis: int | None
    reason: str
    warning: str

    def as_dict(self) -> dict[str, Any]:
        """Return the answer for JSON."""
        return {"compatible": self.result is not None, **asdict(self)}

    def lines(self) -> list[str]:
        """Return the shapes below one another, the result or the failing axis, and the reason."""
        dims = max(len(shape) for shape in self.shapes)
        rows = [["" for _ in range(dims - len(s))] + [str(n) for n in s] for s in self.shapes]
        rows.append(self._verdicts(dims))
        widths = [max(len(row[place]) for row in rows) for place in range(dims)]
        names = [written(shape) for shape in self.shapes]
        names.append("result" if self.result is not None else "fails at")
        margin = max(map(len, names))
        lines = [
            f"{name:{margin}}  " + "  ".join(map(str.rjust, row, widths))
            for name, row in zip(names, rows, strict=True)
        ]
        told = [f"result {written(self.result)}"] if self.result is not None else [self.reason]
        return [line.rstrip() for line in lines] + told + ([self.warning] if self.warning else [])

    def _verdicts(self, dims: int) -> list[str]:
        if self.result is not None:
            return [str(size) for size in self.result]
        return ["^" if place == self.axis else "" for place in range(dims)]


def broadcast(shapes: Sequence[Shape]) -> Alignment:
    """Align shapes at the right and compare them axis by axis, from right to left."""
    dims = max(len(shape) for shape in shapes)
    padded = [(1,) * (dims - len(shape)) + tuple(shape) for shape in shapes]
    result: list[int] = []
    for axis in reversed(range(dims)):
        sizes = {shape[axis] for shape in padded} - {1}
        if len(sizes) > 1:
            return Alignment(tuple(shapes), None, axis, _why(shapes, axis, dims), "")
        result.insert(0, sizes.pop() if sizes else 1)
    common = tuple(result)
    return Alignment(tuple(shapes), common, None, "", _suspicion(shapes, common))


def _why(shapes: Sequence[Shape], axis: int, dims: int) -> str:
    at = [(s, s[axis - dims]) for s in shapes if len(s) >= dims - axis and s[axis - dims] != 1]
    (first, a), (second, b) = at[0], next(pair for pair in at if pair[1] != at[0][1])
    return (
        f"axis {axis} ({axis - dims} from the right): {a} of {written(first)} against {b} of "
        f"{written(second)}; they must be equal, or one of them 1"
    )


def _suspicion(shapes: Sequence[Shape], result: Shape) -> str:
    """Warn of (N, 1) with (N,): every number meets every other, and the mean hides it."""
    columns = {shape[0] for shape in shapes if len(shape) == 2 and shape[1] == 1}
    rows = {shape[0] for shape in shapes if len(shape) == 1}
    both = sorted(n for n in columns & rows if n > 1)
    if len(result) != 2 or not both:
        return ""
    n = both[0]
    return (
        f"careful: ({n}, 1) with ({n},) makes {n}x{n} pairs; for number by number "
        "take column[:, 0] first"
    )


@dataclass(frozen=True)
class Window:
    """One axis of a convolution or pooling; padding is (before, after)."""

    size: int
    kernel: int
    stride: int
    padding: tuple[int, int]
    dilation: int

    @property
    def reach(self) -> int:
        """Input numbers that one window spans."""
        return self.dilation * (self.kernel - 1) + 1

    @property
    def padded(self) -> int:
        """Input size with its padding."""
        return self.size + sum(self.padding)

    @property
    def out(self) -> int:
        """Output size: floor((padded - reach) / stride) + 1."""
        return (self.padded - self.reach) // self.stride + 1

    @property
    def unseen(self) -> int:
        """Input numbers at the end that no window reaches; padding left over does not count."""
        return max(0, (self.padded - self.reach) % self.stride - self.padding[1])


@dataclass(frozen=True)
class Layer:
    """What `dltool tensor-ops shape` was asked.

    Raises:
        ConfigError: numbers of axes that do not fit, or a window larger than the input.
    """

    size: Shape
    kernel: Shape
    stride: Shape
    padding: Shape
    dilation: Shape
    same: bool
    pool: bool
    layers: int

    def __post_init__(self) -> None:
        if len(self.size) not in (1, 2, 3):
            raise _wrong("--in", self.size, "one, two or three axes, without batch and channels")
        for name in ("kernel", "stride", "padding", "dilation"):
            if len(getattr(self, name)) not in (1, len(self.size)):
                raise _wrong(f"--{name}", getattr(self, name), f"1 or {len(self.size)} numbers")
        for kernel, padding in zip(self.of("kernel"), self.of("padding"), strict=True):
            if self.pool and padding > kernel // 2:
                raise _wrong("--padding", self.padding, "half the kernel or less, for pooling")

    def of(self, name: str) -> Shape:
        """Return one setting for every axis."""
        values: Shape = getattr(self, name)
        return values * len(self.size) if len(values) == 1 else values

    def windows(self, size: Shape, number: int = 1) -> list[Window]:
        """Return the axes of the layer of this number over an input of this size.

        Raises:
            ConfigError: the window spans more than the padded input.
        """
        rows = []
        stride, dilation = self.of("stride"), self.of("dilation")
        for i, (length, kernel, each) in enumerate(
            zip(size, self.of("kernel"), self.of("padding"), strict=True)
        ):
            pad = (each, each)
            if self.same:
                total = _same_padding(length, kernel, stride[i], dilation[i])
                pad = (total // 2, total - total // 2)
            row = Window(length, kernel, stride[i], pad, dilation[i])
            if row.reach > row.padded:
                raise _wrong(
                    "--kernel",
                    row.reach,
                    f"{row.padded} or less, the padded input of layer {number}",
                )
            rows.append(row)
        return rows

    def run(self) -> list[list[Window]]:
        """Return the axes of every layer, each layer fed by the one before."""
        size, done = self.size, []
        for number in range(1, self.layers + 1):
            rows = self.windows(size, number)
            done.append(rows)
            size = tuple(row.out for row in rows)
        return done


def _same_padding(size: int, kernel: int, stride: int, dilation: int) -> int:
    """Return the total padding with which the output has ceil(size / stride) numbers."""
    steps = math.ceil(size / stride) - 1
    return max(0, steps * stride + dilation * (kernel - 1) + 1 - size)


def _wrong(option: str, received: object, expected: str) -> ConfigError:
    return ConfigError(
        "E202",
        f"{option} does not fit",
        received=received if isinstance(received, int) else written(received),  # type: ignore[arg-type]
        expected=expected,
    )


def explained(layer: Layer) -> tuple[dict[str, Any], list[str]]:
    """Return output size and padding for JSON, and the calculation as lines."""
    done = layer.run()
    first, out = done[0], tuple(row.out for row in done[-1])
    lines = [_formula(row, axis) for axis, row in enumerate(first)]
    if layer.same and any(row.padding[0] != row.padding[1] for row in first):
        lines.append("uneven padding: in torch use F.pad first; its padding='same' wants stride 1")
    if layer.layers > 1:
        lines.append(f"after {layer.layers} such layers: {'x'.join(map(str, out))}")
    if layer.pool:
        lines.append("pooling has no parameters and keeps the channels")
    else:
        lines.append(f"parameters: in x out x {math.prod(layer.of('kernel'))} + out (bias)")
    lines.append(f"{'x'.join(map(str, layer.size))} -> {'x'.join(map(str, out))}")
    data = {
        "in": layer.size,
        "out": out,
        "kernel": [row.kernel for row in first],
        "stride": [row.stride for row in first],
        "dilation": [row.dilation for row in first],
        "padding": [row.padding for row in first],
        "unseen": [row.unseen for row in first],
        "layers": layer.layers,
        "pool": layer.pool,
    }
    return data, lines


def _formula(row: Window, axis: int) -> str:
    before, after = row.padding
    padding = f"2·{before}" if before == after else f"({before} + {after})"
    kernel = f"{row.kernel}" if row.dilation == 1 else f"({row.dilation}·({row.kernel} - 1) + 1)"
    text = f"axis {axis}: floor(({row.size} + {padding} - {kernel}) / {row.stride}) + 1 = {row.out}"
    return text + (f"   # never seen at the end: {row.unseen}" if row.unseen else "")
