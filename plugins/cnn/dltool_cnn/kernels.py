"""What one kernel does: a convolution by hand, a kernel that is learnt, the edges of a picture."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dltool import timing
from dltool.console import Console, table
from dltool.data.decode import decode
from dltool.device import generator
from dltool.drawing import check_name
from dltool.errors import CheckFailed, ConfigError, DataError
from dltool.picture_grid import image_grid

AGREES = 1e-5  # of the largest value: the three ways add in different orders

KERNELS: dict[str, tuple[tuple[float, ...], ...]] = {
    "edge": ((-1, 1),),
    "sobel-x": ((-1, 0, 1), (-2, 0, 2), (-1, 0, 1)),
    "sobel-y": ((-1, -2, -1), (0, 0, 0), (1, 2, 1)),
    "laplace": ((0, 1, 0), (1, -4, 1), (0, 1, 0)),
    "blur": ((1 / 9,) * 3,) * 3,
    "sharpen": ((0, -1, 0), (-1, 5, -1), (0, -1, 0)),
}
MAGNITUDE = "sobel"  # √(x² + y²) of the two sobel kernels


def matrix(option: str, text: str) -> Tensor:
    """Return a matrix written as `0 1 2; 3 4 5`.

    Raises:
        ConfigError: E202, it is no matrix of numbers.
    """
    try:
        rows = [[float(word) for word in row.replace(",", " ").split()] for row in text.split(";")]
        values = torch.tensor(rows)
    except ValueError:
        values = torch.zeros(0)
    if values.dim() != 2 or not values.numel() or not bool(values.isfinite().all()):
        raise ConfigError(
            "E202",
            f"{option} is no matrix",
            received=text,
            expected="rows of as many numbers each, with ; between them",
            cure=f'use {option} "0 1 2; 3 4 5; 6 7 8"',
        )
    return values


def convolve(image: Tensor, kernel: Tensor, padding: int, stride: int, console: Console) -> None:
    """Convolve one matrix with another in three ways that must agree, and print the result.

    As everywhere in deep learning the kernel is not turned: it is a cross-correlation.

    Raises:
        ConfigError: E202, the kernel is larger than the padded image.
        CheckFailed: E601, the three ways differ.
    """
    padded = F.pad(image, (padding,) * 4)
    if any(k > side for k, side in zip(kernel.shape, padded.shape, strict=True)):
        raise ConfigError(
            "E202",
            "the kernel is larger than the image",
            received=f"{_size(kernel)} on {_size(padded)}",
            cure="use a smaller --kernel or more --padding",
        )
    ways: dict[str, Callable[[], Tensor]] = {
        "loops": lambda: by_loops(padded, kernel, stride),
        "unfold": lambda: by_unfold(padded, kernel, stride),
        "conv2d": lambda: F.conv2d(padded[None, None], kernel[None, None], stride=stride)[0, 0],
    }
    found = {name: way() for name, way in ways.items()}
    worst = max(float((found["conv2d"] - other).abs().max()) for other in found.values())
    if not worst <= AGREES * max(1.0, float(found["conv2d"].abs().max())):
        raise CheckFailed("E601", f"the three ways differ by {worst:.2e}")
    times = timing.compare(ways, repeats=5)
    taken = {name: 1e6 * each.median for name, each in times.items()}
    values = found["loops"].tolist()
    result = {
        "output": values,
        "shape": list(found["loops"].shape),
        "largest_difference": worst,
        "microseconds": taken,
    }
    rows = [[f"{value:g}" for value in row] for row in values]
    width = max(len(cell) for row in rows for cell in row)
    lines = ["  ".join(cell.rjust(width) for cell in row) for row in rows]
    each = ", ".join(f"{name} {value:.0f} µs" for name, value in taken.items())
    console.result(result, "\n".join([*lines, "", f"three ways agree: {each}"]))


def by_loops(image: Tensor, kernel: Tensor, stride: int) -> Tensor:
    """Return the sums of products of the kernel with every window, one window at a time."""
    height, width = kernel.shape
    rows = range(0, image.shape[0] - height + 1, stride)
    columns = range(0, image.shape[1] - width + 1, stride)
    sums = [
        (image[row : row + height, column : column + width] * kernel).sum()
        for row, column in itertools.product(rows, columns)
    ]
    return torch.stack(sums).view(len(rows), len(columns))


def by_unfold(image: Tensor, kernel: Tensor, stride: int) -> Tensor:
    """Return the same as one matrix product: a row of the matrix is a window laid flat."""
    windows = image.unfold(0, kernel.shape[0], stride).unfold(1, kernel.shape[1], stride)
    return windows.flatten(2) @ kernel.flatten()


def learn_kernel(iterations: int, rate: float, seed: int, console: Console) -> None:
    """Learn the edge kernel from one image and its edges, by gradient descent on the summed loss.

    Raises:
        ConfigError: E202, the rate is so large that the loss is not finite.
    """
    image = torch.ones(6, 8)
    image[:, 2:6] = 0  # two edges: white to black and black to white
    edges = F.conv2d(image[None, None], torch.tensor([[[[-1.0, 1.0]]]]))
    weight = (torch.rand(1, 1, 1, 2, generator=generator(seed, "cnn", "kernel")) - 0.5) * 1.4
    weight.requires_grad_()
    losses = []
    for _ in range(iterations):
        loss = (F.conv2d(image[None, None], weight) - edges).square().sum()
        (gradient,) = torch.autograd.grad(loss, weight)
        with torch.no_grad():
            weight -= rate * gradient
        losses.append(loss.item())
    if not bool(weight.isfinite().all()):
        raise ConfigError("E202", "the loss grew without bound", received=rate, cure="lower --lr")
    kernel = weight.detach().flatten().tolist()
    result = {"losses": losses, "kernel": kernel, "true": [-1.0, 1.0]}
    shown = [[number + 1, f"{loss:.3f}"] for number, loss in enumerate(losses) if number % 2]
    text = f"kernel {kernel[0]:.4f} {kernel[1]:.4f}, made with -1 1"
    console.result(result, f"{table(shown, ('iteration', 'summed loss'))}\n{text}")


def draw_edges(path: Path, name: str, out: Path | None, console: Console) -> None:
    """Draw a picture beside what a kernel makes of it; grey is 0 where the result has a sign.

    Raises:
        ConfigError: E206, the kernel is not known.
        DataError: the picture cannot be read.
    """
    if name != MAGNITUDE and name not in KERNELS:
        known = ", ".join((MAGNITUDE, *KERNELS))
        raise ConfigError("E206", f"--kernel {name!r} is not known", expected=known)
    place = out or path.with_name(f"{path.stem}.{name}.png")
    check_name(place)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError("E501", f"cannot read {path}: {error.strerror}") from error
    pixels = decode(content, str(path), "L", None)  # (H, W, 1)
    found = filtered(torch.from_numpy(pixels[..., 0].copy()).float() / 255, name)
    low, high = float(found.min()), float(found.max())
    image_grid(
        [pixels, _shades(found)],
        [path.name, name],
        place,
        title=f"{name} of {path.name}",
        description="A picture and what the kernel makes of it.",
    )
    size = [pixels.shape[0], pixels.shape[1]]
    result = {"picture": str(place), "kernel": name, "size": size, "range": [low, high]}
    console.result(result, f"{place}: {name}, values {low:.3f} to {high:.3f}")


def filtered(image: Tensor, name: str) -> Tensor:
    """Return a picture (H, W) of values 0 to 1 after a kernel, its edge repeated outwards."""
    if name == MAGNITUDE:
        return torch.hypot(filtered(image, "sobel-x"), filtered(image, "sobel-y"))
    kernel = torch.tensor(KERNELS[name], dtype=torch.float32)
    height, width = kernel.shape
    sides = ((width - 1) // 2, width // 2, (height - 1) // 2, height // 2)
    padded = F.pad(image[None, None], sides, mode="replicate")
    found: Tensor = F.conv2d(padded, kernel[None, None])[0, 0]
    return found


def _shades(values: Tensor) -> Any:
    least = 0.0 if bool((values >= 0).all()) else -float(values.abs().max())
    scale = (float(values.abs().max()) - least) or 1.0
    return np.rint(255 * (values.numpy() - least) / scale).astype(np.uint8)


def _size(values: Tensor) -> str:
    return f"{values.shape[0]}×{values.shape[1]}"
