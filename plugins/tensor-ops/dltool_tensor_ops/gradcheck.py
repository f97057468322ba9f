"""Demos: gradients written by hand, against automatic ones and against finite differences."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from dltool_tensor_ops import pictures
from dltool_tensor_ops.demo import Setup, Shown, difference

EXACT = torch.float64


def numeric(function: Callable[[], Tensor], x: Tensor, eps: float = 1e-5) -> Tensor:
    """Return the gradient of a number by every entry of `x`, by central differences.

    (f(x + eps) - f(x - eps)) / 2 eps, wrong by a multiple of eps².
    """
    gradient = torch.zeros_like(x)
    with torch.no_grad():
        for place in range(x.numel()):
            kept = x.flatten()[place].item()
            ends = []
            for step in (eps, -eps):
                x.view(-1)[place] = kept + step
                ends.append(function().item())
            x.view(-1)[place] = kept
            gradient.view(-1)[place] = (ends[0] - ends[1]) / (2 * eps)
    return gradient


def _compare(
    shown: Shown, function: Callable[[], Tensor], pairs: dict[str, tuple[Tensor, Tensor]]
) -> None:
    """Add, for each (variable, gradient by hand), how far the other two gradients are from it."""
    automatic = torch.autograd.grad(function(), [x for x, _ in pairs.values()])
    for (name, (x, by_hand)), found in zip(pairs.items(), automatic, strict=True):
        shown.add(f"{name}_autograd", f"{name}: by hand - autograd", difference(by_hand, found))
        finite = numeric(function, x)
        shown.add(f"{name}_numeric", f"{name}: by hand - differences", difference(by_hand, finite))


def _leaf(x: Tensor) -> Tensor:
    return x.detach().clone().requires_grad_()


def linear_chain(setup: Setup) -> Shown:
    """Three rules for a chain of linear layers 3 -> 2 -> 4 -> 1."""
    shown = Shown("Gradients of a linear chain, by three rules")
    x, w1, b1, w2, w3 = (
        _leaf(setup.normal(*shape, dtype=EXACT))
        for shape in ((3, 1), (2, 3), (2, 1), (4, 2), (1, 4))
    )

    def output() -> Tensor:
        return (w3 @ (w2 @ (w1 @ x + b1))).sum()

    upstream = (w3 @ w2).T.detach()  # gradient of the first layer's output
    shown.say("input: product of the weights; weight: upstream times input; bias: upstream")
    _compare(
        shown,
        output,
        {
            "input": (x, (w3 @ w2 @ w1).T.detach()),
            "weight": (w1, upstream @ x.detach().T),
            "bias": (b1, upstream),
        },
    )
    with torch.no_grad():
        step = torch.tensor([[0.01], [0.02], [0.03]], dtype=EXACT, device=x.device)
        rise = -output()
        x += step
        rise += output()
        predicted = (w3 @ w2 @ w1 @ step).sum()
    shown.add("remainder", "change - gradient·step", float((rise - predicted).abs()), "exact")
    return shown


def _slope(after: Tensor) -> Tensor:
    """Return the derivative of the sigmoid, from its value s: s(1 - s)."""
    return after * (1 - after)


def sigmoid_chain(setup: Setup) -> Shown:
    """The same chain with sigmoids: the gradient is right, but only to first order."""
    shown = Shown("Gradients through sigmoids, and how far they reach")
    x, w1, w2, w3 = (
        _leaf(setup.normal(*shape, dtype=EXACT)) for shape in ((3, 1), (2, 3), (4, 2), (1, 4))
    )

    def layers() -> tuple[Tensor, Tensor, Tensor]:
        first = (w1 @ x).sigmoid()
        second = (w2 @ first).sigmoid()
        return first, second, (w3 @ second).sigmoid()

    first, second, last = (value.detach() for value in layers())
    at_second = w3.T * _slope(last) * _slope(second)
    at_first = (w2.T @ at_second) * _slope(first)
    pairs = {"input": (x, (w1.T @ at_first).detach()), "weight": (w1, (at_first @ x.T).detach())}
    _compare(shown, lambda: layers()[-1].sum(), pairs)

    gradient, start = pairs["input"][1], x.detach().clone()
    direction = gradient / gradient.norm()
    errors = []
    with torch.no_grad():
        for size in (0.01, 0.001, 0.0001):
            x.copy_(start + size * direction)
            errors.append(float((layers()[-1] - last - size * (gradient * direction).sum()).abs()))
    shown.add("remainders", "error at steps 1e-2, 1e-3, 1e-4", errors)
    shown.add("order", "    1e-3 against 1e-4", errors[1] / errors[2], "100: second order is left")
    return shown


def least_squares(setup: Setup) -> Shown:
    """The gradient of |Xw - y|² is 2 Xᵀ(Xw - y); the best step size of a difference."""
    shown = Shown("Gradient of least squares, and the size of the step")
    x, y = setup.normal(6, 3, dtype=EXACT), setup.normal(6, dtype=EXACT)
    w = _leaf(setup.normal(3, dtype=EXACT))
    by_hand = (2 * x.T @ (x @ w - y)).detach()
    _compare(shown, lambda: ((x @ w - y) ** 2).sum(), {"w": (w, by_hand)})

    def error(eps: float, dtype: torch.dtype) -> float:
        point = torch.tensor(0.7, dtype=dtype)
        slope = numeric(lambda: point.exp(), point, eps)
        return float((slope.double() - torch.tensor(0.7, dtype=EXACT).exp()).abs())

    steps = [10.0**-power for power in range(1, 13)]
    curves = {str(t)[6:]: [error(eps, t) for eps in steps] for t in (torch.float32, EXACT)}
    best = {name: steps[values.index(min(values))] for name, values in curves.items()}
    shown.add("best_float32", "best step for exp', float32", best["float32"])
    shown.add("best_float64", "best step for exp', float64", best["float64"])
    shown.say("too large: the curve bends; too small: rounding is divided by the step")
    shown.picture = partial(pictures.step_sizes, steps, curves)
    return shown


def convolution(setup: Setup) -> Shown:
    """All 25 kernel entries and all 49 pixels of a 5x5 convolution, by hand."""
    shown = Shown("Gradients of a convolution, by hand")
    image = _leaf(setup.normal(7, 7, dtype=EXACT))
    kernel = _leaf(setup.normal(5, 5, dtype=EXACT))

    def output() -> Tensor:
        return F.conv2d(image[None, None], kernel[None, None])[0, 0]

    total = torch.autograd.grad(output().sum(), kernel)[0]
    corner = image[:3, :3].sum().detach()
    shown.add("corner", "loss = sum: gradient[0, 0] - pixels", difference(total[0, 0], corner))
    shown.say("    the pixels that this entry has met: the top left 3x3, summed")

    upstream = setup.normal(3, 3, dtype=EXACT)  # gradient of the output, whatever follows
    by_kernel = torch.zeros_like(kernel)
    by_image = torch.zeros_like(image)
    with torch.no_grad():
        for i in range(5):
            for j in range(5):
                by_kernel[i, j] = (upstream * image[i : i + 3, j : j + 3]).sum()
                by_image[i : i + 3, j : j + 3] += upstream * kernel[i, j]
    _compare(
        shown,
        lambda: (output() * upstream).sum(),
        {"kernel": (kernel, by_kernel), "image": (image, by_image)},
    )
    return shown


def cross_entropy(setup: Setup) -> Shown:
    """softmax minus one-hot, divided by the batch."""
    shown = Shown("Gradient of cross-entropy: softmax - one-hot")
    logits = _leaf(setup.normal(8, 5, dtype=EXACT))
    target = torch.arange(8, device=logits.device) % 5
    by_hand = ((logits.softmax(1) - F.one_hot(target, 5)) / 8).detach()
    _compare(shown, lambda: F.cross_entropy(logits, target), {"logits": (logits, by_hand)})
    singles = [
        torch.autograd.grad(F.cross_entropy(logits[i : i + 1], target[i : i + 1]), logits)[0]
        for i in range(8)
    ]
    mean = torch.stack(singles).mean(0)
    shown.add("mean_of_samples", "mean of the samples' gradients", difference(mean, by_hand))
    shown.add("row_sums", "gradient summed over a row", float(by_hand.sum(1).abs().max()), "0")

    large = (logits * 1000).detach()
    naive = -(large.exp() / large.exp().sum(1, keepdim=True)).log()
    shown.add("naive_finite", "naive softmax, log at 1000x", bool(naive.isfinite().all()))
    stable = (large.logsumexp(1) - large.gather(1, target[:, None])[:, 0]).mean()
    library = F.cross_entropy(large, target)
    shown.add("stable", "log-sum-exp - library at 1000x", difference(stable, library))
    return shown


def kink(setup: Setup) -> Shown:
    """Where a function bends there is no gradient; torch picks one, differences another."""
    shown = Shown("Kinks: ReLU, absolute value and ties")
    for name, function in (("relu", torch.relu), ("abs", torch.abs)):
        x = torch.zeros((), dtype=EXACT, requires_grad=True)
        (chosen,) = torch.autograd.grad(function(x), x)
        shown.add(name, f"{name} at 0: autograd", chosen)
        sides = [float(function(torch.tensor(e, dtype=EXACT))) / e + 0.0 for e in (-1e-5, 1e-5)]
        shown.add(f"{name}_sides", "    from the left, from the right", sides)
        shown.add(f"{name}_central", "    central difference", numeric(partial(function, x), x))
    tied = torch.tensor([3.0, 3.0], dtype=EXACT, requires_grad=True)
    shown.add("amax", "amax of [3, 3]", torch.autograd.grad(tied.amax(), tied)[0], "shared")
    (one,) = torch.autograd.grad(tied.max(0).values, tied)
    shown.add("max_total", "max(0) of [3, 3]: sum of gradient", one.sum(), "one of them gets it")
    return shown
