"""Demos: automatic differentiation, from one number to Jacobians, graphs and both modes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from dltool import timing
from dltool_tensor_ops import pictures
from dltool_tensor_ops.demo import Setup, Shown, difference, refusal
from dltool_tensor_ops.memory import peak_bytes


def scalar(setup: Setup) -> Shown:
    """Differentiate x², and see a second call add to the first."""
    shown = Shown("The gradient of one number; gradients add up until they are zeroed")
    x = torch.tensor(2.0, device=setup.device, requires_grad=True)
    shown.add("before", "x.grad is None before backward", x.grad is None, "not 0")
    (x**2).backward()
    shown.add("first", "d(x²)/dx at 2", x.grad)
    (x**2).backward()
    shown.add("second", "the same again, not zeroed", x.grad, "4 + 4")

    v = torch.arange(4.0, device=setup.device, requires_grad=True)
    torch.dot(v, v).backward()
    v.sum().backward()
    shown.add("unzeroed", "x·x, then x.sum(), not zeroed", v.grad, "2x + 1")
    v.grad = None
    functions: tuple[Callable[[], Tensor], ...] = (lambda: v @ v, lambda: v @ v, v.sum)
    for function in functions:
        function().backward()
    shown.add("twice", "x·x twice, then x.sum()", v.grad, "4x + 1")
    return shown


def vector(setup: Setup) -> Shown:
    """Differentiate one number by a vector."""
    shown = Shown("The gradient of a number by a vector has the vector's shape")

    def gradient(function: Callable[[Tensor], Tensor], key: str, code: str, *start: float) -> None:
        x = torch.tensor(start or (0.0, 1.0, 2.0, 3.0), device=setup.device, requires_grad=True)
        y = function(x)
        shown.add(key, code, y)
        shown.add(f"{key}_grad", "    its gradient", torch.autograd.grad(y, x)[0])

    gradient(lambda x: x @ x, "dot", "x·x at x = [0, 1, 2, 3]")
    gradient(lambda x: 2 * (x @ x), "twice_dot", "2 x·x")
    gradient(lambda x: x.sum(), "sum", "x.sum()")
    gradient(lambda x: (x * x).sum(), "squares", "(x * x).sum()")
    gradient(lambda x: (x**3).sum(), "cubes", "(x³).sum() at ones", 1.0, 1.0, 1.0)
    x = torch.arange(4.0, device=setup.device, requires_grad=True)
    shown.add("refused", "(x * x).backward()", refusal(lambda: (x * x).backward()))
    (x * x).backward(torch.ones_like(x))
    shown.add("weighted", "(x * x).backward(ones)", x.grad, "the same as of the sum")
    return shown


def jacobian(setup: Setup) -> Shown:
    """Differentiate a vector by a vector, in full and times a vector."""
    shown = Shown("Jacobian, Hessian, and the product that backward really computes")
    x = torch.arange(4.0, device=setup.device)
    full = torch.autograd.functional.jacobian(lambda x: x * x, x)
    shown.add("square", "Jacobian of x * x", full, "diagonal: 2x")

    def mixed(x: Tensor) -> Tensor:
        return torch.stack([x[0] * x[1], x[2] ** 2 + x[3]])

    at = torch.tensor([2.0, 3.0, 4.0, 5.0], device=setup.device)
    matrix = torch.autograd.functional.jacobian(mixed, at)
    shown.add("mixed", "Jacobian of [ab, c² + d]", matrix, "(outputs, inputs)")
    upstream = torch.tensor([1.0, -1.0], device=setup.device)
    _, product = torch.autograd.functional.vjp(mixed, at, upstream)
    shown.add("vjp", "backward([1, -1])", product)
    shown.add(
        "vjp_difference", "    minus [1, -1] @ Jacobian", difference(product, upstream @ matrix)
    )
    hessian = torch.autograd.functional.hessian(lambda x: (x**3).sum(), at)
    shown.add("hessian", "Hessian of (x³).sum()", hessian, "diagonal: 6x")
    return shown


def higher_order(setup: Setup) -> Shown:
    """Differentiate a derivative: create_graph keeps it differentiable."""
    shown = Shown("Derivatives of derivatives")
    x = torch.tensor(2.0, device=setup.device, requires_grad=True)
    value = x**3
    for order in (1, 2, 3):
        (value,) = torch.autograd.grad(value, x, create_graph=True)
        shown.add(f"order_{order}", f"derivative {order} of x³ at 2", value)
    (flat,) = torch.autograd.grad(x**3, x)
    message = refusal(lambda: torch.autograd.grad(flat, x))
    shown.add("refused", "2nd without create_graph", message)
    return shown


def detach(setup: Setup) -> Shown:
    """Take a value out of the graph, and leave the graph altogether."""
    shown = Shown("detach and no_grad")
    x = torch.arange(4.0, device=setup.device, requires_grad=True)
    y = x * x
    u = y.detach()
    (gradient,) = torch.autograd.grad((u * x).sum(), x)
    shown.add("detached", "(u·x) with u = (x * x).detach()", gradient, "u counts as a constant")
    (gradient,) = torch.autograd.grad((y * x).sum(), x)
    shown.add("attached", "(y·x) with y = x * x", gradient, "3x²")
    shown.add("shares", "u shares y's memory", u.data_ptr() == y.data_ptr())
    with torch.no_grad():
        shown.add("no_grad", "(x * x).requires_grad in no_grad", (x * x).requires_grad)
    shown.add("in_place", "x.add_(1) on a leaf", refusal(lambda: x.add_(1)))
    shown.add("numpy", "y.numpy()", refusal(lambda: y.cpu().numpy()))
    return shown


def _doubled(a: Tensor) -> Tensor:
    """Double until the norm reaches 1000; the number of steps depends on the value."""
    b = a * 2
    while b.norm() < 1000:
        b = b * 2
    return b if b.sum() > 0 else 100 * b


def control_flow(setup: Setup) -> Shown:
    """The graph is the path that ran, so loops and branches differentiate."""
    shown = Shown("Loops and branches")
    for key, start in (("positive", 0.75), ("negative", -0.75)):
        a = torch.tensor(start, device=setup.device, requires_grad=True)
        d = _doubled(a)
        d.backward()
        assert a.grad is not None
        shown.add(key, f"gradient at {start}", a.grad)
        shown.add(f"{key}_ratio", "    d / a", d / a, "f is a·k on this stretch")
    return shown


def graph(setup: Setup) -> Shown:
    """Leaves, recorded operations, kept gradients, and a graph used twice."""
    shown = Shown("What the graph remembers")
    x = torch.ones(3, device=setup.device, requires_grad=True)
    h = x * 2
    y = (h * h).sum()
    shown.add("leaves", "is_leaf of x, h, y", [x.is_leaf, h.is_leaf, y.is_leaf])
    shown.add("operation", "y.grad_fn", type(y.grad_fn).__name__)
    y.backward(retain_graph=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of exactly what is shown here
        shown.add("not_kept", "h.grad is None", h.grad is None, "not a leaf: not kept")
    shown.add("leaf", "x.grad", x.grad, "8x")
    y.backward()
    shown.add("again", "x.grad after backward again", x.grad, "retain_graph; it adds up")
    shown.add("third", "a third time", refusal(y.backward))
    h = x * 2
    h.retain_grad()
    (h * h).sum().backward()
    shown.add("kept", "h.grad after h.retain_grad()", h.grad, "2h")
    return shown


def _chain(x: Tensor, depth: int) -> Tensor:
    for _ in range(depth):
        x = torch.sin(x)
    return x.sum()


def _reverse(x: Tensor, depth: int) -> Tensor:
    start = x.detach().requires_grad_()
    return torch.autograd.grad(_chain(start, depth), start)[0]


def _forward(x: Tensor, direction: Tensor, depth: int) -> Tensor:
    """Return the derivative of the chain along one direction."""
    import torch.autograd.forward_ad as forward

    with warnings.catch_warnings(), forward.dual_level():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own import of its own jit
        slope: Tensor = forward.unpack_dual(_chain(forward.make_dual(x, direction), depth)).tangent
        return slope


def modes(setup: Setup) -> Shown:
    """Reverse mode stores the way back; forward mode stores nothing, but goes once per input."""
    shown = Shown("Reverse and forward mode: time and memory")
    device = setup.measurable
    x, direction = setup.normal(20_000).to(device), setup.normal(20_000).to(device)
    runs = {
        "reverse": lambda depth: _reverse(x, depth),
        "forward": lambda depth: _forward(x, direction, depth),
    }
    along = float(_forward(x, direction, 8))
    product = float(_reverse(x, 8) @ direction)
    shown.add("along", "slope along a direction, forward", along)
    error = abs(along - product) / max(abs(product), 1.0)
    shown.add("difference", "    minus gradient · direction", error, "relative")
    times = timing.compare(
        {name: partial(run, 64) for name, run in runs.items()}, repeats=5, device=device
    )
    for name, run in runs.items():
        small, large = (peak_bytes(partial(run, depth), device) for depth in (8, 64))
        shown.add(f"{name}_bytes", f"{name}: peak at depth 8, 64", [small, large], "bytes")
        shown.add(f"{name}_growth", "    64 by 8", large / small)
        shown.add(f"{name}_ms", "    ms at depth 64, median", 1000 * times[name].median)
    shown.say("One reverse pass gives the slopes by all 20,000 inputs; one forward pass gives one.")
    return shown


def _descend(
    start: float, rate: float, epochs: int, *, zero: bool = True
) -> list[tuple[float, float]]:
    """Fit y = w·x to (1, 2), (2, 4), (3, 6), a sample a step; return w and last loss an epoch."""
    w = torch.tensor([start], requires_grad=True)
    path = []
    for _ in range(epochs):
        for x, y in ((1.0, 2.0), (2.0, 4.0), (3.0, 6.0)):
            loss = (x * w - y) ** 2
            loss.backward()
            assert w.grad is not None
            with torch.no_grad():
                w -= rate * w.grad
                if zero:
                    w.grad.zero_()
        path.append((w.item(), loss.item()))
    return path


def _largest_rate() -> float:
    """Bisect for the rate at which an epoch stops shrinking the error: |Π(1 - 2·lr·x²)| = 1."""
    low, high = 0.15, 0.5
    for _ in range(60):
        middle = (low + high) / 2
        factor = (1 - 2 * middle) * (1 - 8 * middle) * (1 - 18 * middle)
        low, high = (middle, high) if abs(factor) < 1 else (low, middle)
    return low


def scalar_sgd(setup: Setup) -> Shown:
    """Learn one weight by hand; see where float32 stops and which rate is too large."""
    shown = Shown("Gradient descent on one weight: y = w·x, true w = 2")
    path = _descend(1.0, 0.01, 100)
    shown.add("first_w", "w after the first epoch, lr 0.01", path[0][0])
    shown.add("first_loss", "loss of its last sample", path[0][1])
    last = path[-1][0]
    shown.add("w", "w after 100 epochs from 1", last, f"{last!r}: float32 stalls below 2")
    shown.add("forward", "    prediction for x = 4", 4 * last, f"{4 * last!r}")
    above = _descend(3.0, 0.01, 100)
    shown.add("w_above", "w after 100 epochs from 3", above[-1][0], f"{above[-1][0]!r}: or above")
    shown.add("rate_limit", "largest rate that converges", _largest_rate())
    wild = _descend(1.0, 0.21, 100)
    shown.add("diverged", "|w - 2| at lr 0.21, 100 epochs", abs(wild[-1][0] - 2))
    unzeroed = _descend(1.0, 0.01, 100, zero=False)
    swing = max(abs(w - 2) for w, _ in unzeroed[-50:])
    shown.add("unzeroed", "|w - 2| without zeroing, lr 0.01", swing, "it swings: old slopes push")
    paths = {
        "lr 0.01": path,
        "lr 0.01, from 3": above,
        "lr 0.2": _descend(1.0, 0.2, 100),
        "lr 0.01, not zeroed": unzeroed,
    }
    shown.picture = partial(pictures.descents, {k: [w for w, _ in v] for k, v in paths.items()})
    return shown
