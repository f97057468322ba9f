"""Demos: broadcasting, the family of products, einsum, and how a linear layer multiplies."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from dltool_tensor_ops import shapes
from dltool_tensor_ops.demo import Setup, Shown, difference, refusal


def broadcast(setup: Setup) -> Shown:
    """Shapes are aligned at the right; sizes must be equal or 1."""
    shown = Shown("Broadcasting, and the loss that it ruins")

    def sum_of(*sizes: tuple[int, ...]) -> torch.Size:
        first, second = (torch.zeros(size, device=setup.device) for size in sizes)
        return (first + second).shape

    shown.add("column_row", "(3, 1) + (3,)", sum_of((3, 1), (3,)))
    long = sum_of((10, 2, 1, 1, 9, 9), (9, 1, 1))
    shown.add("six", "(10, 2, 1, 1, 9, 9) + (9, 1, 1)", long)
    shown.add("refused", "(2, 2) + (3,)", refusal(lambda: sum_of((2, 2), (3,))))
    for line in shapes.broadcast([(3, 1, 5), (4, 5)]).lines():
        shown.say(f"    {line}")
    for line in shapes.broadcast([(2, 2), (3,)]).lines():
        shown.say(f"    {line}")

    target = torch.arange(4.0, device=setup.device)
    prediction = target[:, None]  # (N, 1), as a layer with one output gives it
    wrong = ((prediction - target) ** 2).mean()
    shown.add("trap_shape", "(N, 1) - (N,), N = 4", (prediction - target).shape, "N x N pairs!")
    shown.add("trap_loss", "its mean square", wrong, "though every prediction is exact")
    shown.add("loss", "after prediction[:, 0]", ((prediction[:, 0] - target) ** 2).mean())
    return shown


def products(setup: Setup) -> Shown:
    """Element by element, dot, matrix-vector, matrix-matrix, batches of them."""
    shown = Shown("The family of products")

    def upto(*shape: int) -> torch.Tensor:
        count = int(torch.tensor(shape).prod())
        return torch.arange(count, dtype=torch.float32, device=setup.device).reshape(shape)

    v, a = upto(3), upto(2, 3)
    shown.add("hadamard", "a * a", a * a, "element by element")
    shown.add("dot", "dot([0, 1, 2], [0, 1, 2])", torch.dot(v, v))
    shown.add("outer", "outer(v, v)", torch.outer(v, v))
    shown.add("mv", "mv(arange 3x4, ones(4))", torch.mv(upto(3, 4), torch.ones_like(upto(4))))
    shown.add("mm", "mm(3x5, 5x3)", torch.mm(upto(3, 5), upto(5, 3)))
    shown.add("bmm", "bmm(3x3x5, 3x5x3).shape", torch.bmm(upto(3, 3, 5), upto(3, 5, 3)).shape)
    shown.add("matmul", "(2x1x3x4 @ 5x4x6).shape", (upto(2, 1, 3, 4) @ upto(5, 4, 6)).shape)
    shown.say("matmul broadcasts all axes but the last two; mm and bmm broadcast none:")
    shown.add("mm_refused", "mm(3x3x5, 5x3)", refusal(lambda: torch.mm(upto(3, 3, 5), upto(5, 3))))
    shown.add("inner_refused", "2x3 @ 2x3", refusal(lambda: a @ a))
    return shown


def einsum(setup: Setup) -> Shown:
    """Products by the names of their axes, each against the plain operation."""
    shown = Shown("einsum: name the axes; what is missing on the right is summed")
    a, b, square = setup.normal(3, 4), setup.normal(4, 5), setup.normal(4, 4)
    queries, keys = setup.normal(2, 3, 6, 8), setup.normal(2, 3, 7, 8)
    v, w = setup.normal(4), setup.normal(5)
    pairs = (
        ("matrix product", "ij,jk->ik", (a, b), a @ b),
        ("transpose", "ij->ji", (a,), a.T),
        ("row sums", "ij->i", (a,), a.sum(1)),
        ("trace", "ii->", (square,), square.trace()),
        ("diagonal", "ii->i", (square,), square.diagonal()),
        ("outer product", "i,j->ij", (v, w), torch.outer(v, w)),
        ("bilinear form", "i,ij,j->", (v, b, w), v @ b @ w),
        ("attention scores", "bhqd,bhkd->bhqk", (queries, keys), queries @ keys.mT),
    )
    for name, formula, operands, expected in pairs:
        result = torch.einsum(formula, *operands)
        key = name.replace(" ", "_")
        shown.add(key, f"{formula:17} {name}", difference(result, expected), "difference")
    shown.add(
        "scores_shape", "shape of the scores", torch.einsum("bhqd,bhkd->bhqk", queries, keys).shape
    )
    return shown


def linear(setup: Setup) -> Shown:
    """A linear layer stores (out, in), treats every token alike, and needs an activation."""
    shown = Shown("What a linear layer multiplies")
    x, weight, bias = setup.normal(2, 5, 3), setup.normal(4, 3), setup.normal(4)
    layer = torch.nn.Linear(3, 4)
    shown.add("weight_shape", "Linear(3, 4).weight.shape", layer.weight.shape, "(out, in)")
    y = F.linear(x, weight, bias)
    shown.add("shape", "linear(x 2x5x3).shape", y.shape, "the last axis changes")
    by_hand = x @ weight.T + bias
    shown.add("transpose", "x @ W.T + b - linear(x)", difference(by_hand, y))
    tokens = torch.stack([weight @ token + bias for token in x.reshape(-1, 3)])
    shown.add("per_token", "token by token - linear(x)", difference(tokens.reshape(2, 5, 4), y))

    second = setup.normal(2, 4)
    stacked = F.linear(y, second)
    one = F.linear(x, second @ weight, second @ bias)
    bent = F.linear(y.relu(), second)
    shown.add("stacked", "two layers - one layer", difference(stacked, one), "no gain in depth")
    shown.add("activation", "with ReLU between - one layer", difference(bent, one), "now there is")
    return shown
