"""The parts of attention at work; every demonstration checks itself against a known value."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dltool.console import Console, table
from dltool.device import generator
from dltool.errors import CheckFailed, ConfigError
from dltool_seq2seq import pictures
from dltool_seq2seq.attention import (
    MultiHead,
    Scorer,
    masked_softmax,
    rotated,
    sinusoids,
    valid_mask,
)
from dltool_seq2seq.model import token_losses

TOLERANCE = 1e-5
STEP = 0.2  # of the gradient descent that fits a kernel's width


def _finish(result: dict[str, Any], text: str, checks: dict[str, float], console: Console) -> None:
    """Print the result with its checks; refuse it when one is off.

    Args:
        checks: what was compared -> largest difference.

    Raises:
        CheckFailed: a difference is above `TOLERANCE`.
    """
    lines = [f"{name}: largest difference {value:.1e}" for name, value in checks.items()]
    console.result({**result, "checks": checks}, "\n".join([text, "", *lines]))
    for name, value in checks.items():
        if not value <= TOLERANCE:
            raise CheckFailed("E601", f"{name} is off by {value:.3g}")


def _difference(found: Tensor, known: Tensor) -> float:
    return float((found - known).abs().max())


# ---- pooling ----------------------------------------------------------------------------------


def pooled(queries: Tensor, keys: Tensor, values: Tensor, width: Tensor | float) -> Tensor:
    """Return Σ softmax(-(q - k)² / 2 w²) v (Nadaraya and Watson, 1964) for each query (Q,)."""
    scores = -(((queries[:, None] - keys) / width) ** 2) / 2
    return scores.softmax(1) @ values


def pooling(
    points: int, width: float, epochs: int, seed: int, out: Path | None, console: Console
) -> None:
    """Fit y = 2 sin x + x^0.8 from noisy points: by their mean, a fixed and a learnt kernel.

    The learnt width is fitted on each point from all the others: with itself among the keys, the
    best width would be 0.
    """
    stream = generator(seed, "pooling")
    x = torch.rand(points, generator=stream).mul(5).sort().values
    y = 2 * x.sin() + x**0.8 + 0.5 * torch.randn(points, generator=stream)
    grid = torch.linspace(0, 5, 100)
    truth = 2 * grid.sin() + grid**0.8
    log_width = nn.Parameter(torch.tensor(math.log(width)))
    optimizer = torch.optim.Adam([log_width], lr=STEP)
    for _ in range(epochs):
        loss = F.mse_loss(_left_out(x, y, log_width.exp()), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    learnt = float(log_width.detach().exp())
    fits = {
        "mean": torch.full_like(grid, float(y.mean())),
        f"fixed width {width:g}": pooled(grid, x, y, width),
        f"learnt width {learnt:.3f}": pooled(grid, x, y, learnt),
    }
    errors = {name: float(F.mse_loss(fit, truth)) for name, fit in fits.items()}
    # a kernel so wide that all points count alike is the mean
    checks = {
        "a kernel of width 10,000 against the mean": _difference(
            pooled(grid, x, y, 10_000.0), fits["mean"]
        )
    }
    result: dict[str, Any] = {"points": points, "learnt_width": learnt, "errors": errors}
    if out is not None:
        pictures.regression((x, y), grid, truth, fits, out)
        result["plot"] = str(out)
    rows = [[name, f"{error:.4f}"] for name, error in errors.items()]
    _finish(result, table(rows, ("pooling", "squared error to the truth")), checks, console)


def _left_out(x: Tensor, y: Tensor, width: Tensor) -> Tensor:
    """Return the pooled value of each point from all the others."""
    scores = -(((x[:, None] - x) / width) ** 2) / 2
    return masked_softmax(scores, ~torch.eye(len(x), dtype=torch.bool)) @ y


# ---- masks and scores -------------------------------------------------------------------------


def masks(lengths: str, out: Path | None, console: Console) -> None:
    """Show a masked softmax of random scores (2, 4), and that its argument stays untouched."""
    valid = _numbers("--lengths", lengths, 2, 4)
    scores = torch.randn(2, 4, generator=generator(0, "masks"))
    before = scores.clone()
    mask = valid_mask(torch.tensor(valid), 4)
    found = masked_softmax(scores, mask)
    wanted = torch.zeros(2, 4)
    for row, length in enumerate(valid):
        if length:
            wanted[row, :length] = scores[row, :length].softmax(0)
    checks = {
        "against the softmax of the valid part": _difference(found, wanted),
        "the scores are left as they were": _difference(scores, before),
    }
    result: dict[str, Any] = {
        "lengths": valid,
        "scores": scores.tolist(),
        "weights": found.tolist(),
        "rows": found.sum(1).tolist(),
    }
    if out is not None:
        pictures.heat(found, out, "masked softmax", "place", "row")
        result["plot"] = str(out)
    rows = [[f"valid {n}", *(f"{w:.4f}" for w in row)] for n, row in zip(valid, found, strict=True)]
    _finish(result, table(rows, ("row", "1", "2", "3", "4")), checks, console)


def _numbers(option: str, text: str, count: int, most: int) -> list[int]:
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count or not all(0 <= value <= most for value in values):
        raise ConfigError(
            "E202",
            f"{option} is not understood",
            received=text,
            expected=f"{count} whole numbers from 0 to {most}",
        )
    return values


def scored(kind: str, out: Path | None, console: Console) -> None:
    """Attend to ten equal keys with values 0 … 39 in rows of four, of which 2 and 6 are valid.

    Equal keys get equal weights whatever the score: the outputs are the means of the first 2 and 6
    values, (2, 3, 4, 5) and (10, 11, 12, 13).
    """
    stream = generator(0, "scored")
    torch.manual_seed(0)
    query_size = 20 if kind == "additive" else 2
    queries = torch.randn(2, 1, query_size, generator=stream)
    keys = torch.ones(2, 10, 2)
    values = torch.arange(40.0).view(1, 10, 4).repeat(2, 1, 1)
    scorer = Scorer(kind, query_size, 2, 8)
    mask = valid_mask(torch.tensor([2, 6]), 10)[:, None]
    with torch.no_grad():
        scores = scorer(queries, scorer.prepare(keys))  # (2, 1, 10)
        weights = masked_softmax(scores, mask)
        outputs = weights @ values  # (2, 1, 4)
    known = torch.tensor([[[2.0, 3, 4, 5]], [[10.0, 11, 12, 13]]])
    checks = {"outputs against (2, 3, 4, 5) and (10, 11, 12, 13)": _difference(outputs, known)}
    result: dict[str, Any] = {
        "shapes": {
            "queries": list(queries.shape),
            "keys": list(keys.shape),
            "scores": list(scores.shape),
            "outputs": list(outputs.shape),
        },
        "weights": weights.tolist(),
        "outputs": outputs.tolist(),
    }
    if kind == "dot":
        extra = _dot_facts(stream)
        result |= extra["facts"]
        checks |= extra["checks"]
    if out is not None:
        pictures.heat(weights[:, 0], out, f"{kind} attention, 2 and 6 valid", "key", "query")
        result["plot"] = str(out)
    rows = [[name, "×".join(map(str, shape))] for name, shape in result["shapes"].items()]
    text = table(rows, ("tensor", "shape")) + f"\noutputs {_rounded(outputs)}"
    if kind == "dot":
        before, after = result["variance_before"], result["variance_after"]
        text += f"\nvariance of q·k over 64 features: {before:.2f}, divided by √64: {after:.2f}"
    _finish(result, text, checks, console)


def _rounded(values: Tensor) -> str:
    rows = values.flatten(1).tolist()
    return " and ".join("(" + ", ".join(f"{value:.4g}" for value in row) + ")" for row in rows)


def _dot_facts(stream: torch.Generator) -> dict[str, Any]:
    """Compare with torch's function, and measure the variance that the scale takes away."""
    queries, keys, values = (torch.randn(3, 7, 64, generator=stream) for _ in range(3))
    mask = valid_mask(torch.tensor([7, 4, 1]), 7)[:, None]
    scorer = Scorer("dot", 64, 64, 0)
    own = masked_softmax(scorer(queries, keys), mask) @ values
    torchs = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    first, second = (torch.randn(10_000, 64, generator=stream) for _ in range(2))
    products = (first * second).sum(1)
    return {
        "facts": {
            "variance_before": float(products.var()),
            "variance_after": float((products / 8).var()),
        },
        "checks": {"against torch's scaled_dot_product_attention": _difference(own, torchs)},
    }


def multihead(heads: int, width: int, console: Console) -> None:
    """Give our layer the weights of `nn.MultiheadAttention`: outputs must be the same."""
    if width % heads:
        raise ConfigError("E205", f"--width {width} cannot be divided among {heads} heads")
    torch.manual_seed(0)
    batch, queries, keys = 2, 4, 6
    theirs = nn.MultiheadAttention(width, heads, batch_first=True).eval()
    ours = MultiHead(width, heads, 0.0).eval()
    with torch.no_grad():
        parts = theirs.in_proj_weight.chunk(3), theirs.in_proj_bias.chunk(3)
        for layer, weight, bias in zip((ours.query, ours.key, ours.value), *parts, strict=True):
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
        ours.out.load_state_dict(theirs.out_proj.state_dict())
        asked, states = torch.randn(batch, queries, width), torch.randn(batch, keys, width)
        mask = valid_mask(torch.tensor([3, 2]), keys)
        found = ours.attend(
            ours.queries(asked, 0, turned=False),
            *ours.project(states, 0, turned=False),
            mask[:, None, None],
        )
        known, _ = theirs(asked, states, states, key_padding_mask=~mask)
    size = width // heads
    result = {
        "output": list(found.shape),
        "parameters": sum(part.numel() for part in ours.parameters()),
        "features_of_a_head": size,
        "multiplications": {
            "projections": (2 * queries + 2 * keys) * width * width * batch,
            "scores and mixing": 2 * queries * keys * width * batch,
        },
    }
    text = (
        f"output {found.shape[0]}×{found.shape[1]}×{found.shape[2]}, {heads} heads of {size} "
        f"features, {result['parameters']:,} parameters whatever the number of heads"
    )
    checks = {"against torch's nn.MultiheadAttention": _difference(found, known)}
    _finish(result, text, checks, console)


# ---- positions and loss -----------------------------------------------------------------------


def positions(places: int, width: int, columns: str, out: Path | None, console: Console) -> None:
    """Show sinusoidal positions: a shift is a rotation that does not depend on the place."""
    if width % 2:
        raise ConfigError("E202", "--width is odd", received=width, expected="an even number")
    drawn = _columns(columns, width)
    table_of_places = sinusoids(places, width)
    shift = min(3, places - 1)
    angles = shift / 10000 ** (torch.arange(0, width, 2) / width)
    sin, cos = table_of_places[:-shift, 0::2], table_of_places[:-shift, 1::2]
    turned = torch.stack(
        [sin * angles.cos() + cos * angles.sin(), cos * angles.cos() - sin * angles.sin()], 2
    ).flatten(1)
    checks = {
        f"the norm of a row against √({width} / 2)": _difference(
            table_of_places.norm(dim=1), torch.full((places,), math.sqrt(width / 2))
        ),
        f"a shift by {shift} places against a rotation": _difference(
            turned, table_of_places[shift:]
        ),
        "rotary: the product of places 5 and 2 against that of 13 and 10": _rotary_difference(),
    }
    result: dict[str, Any] = {
        "places": places,
        "width": width,
        "slowest": table_of_places[:4, -2].tolist(),
        "table": table_of_places.tolist(),
    }
    if out is not None:
        pictures.lines(table_of_places, drawn, out, "sinusoidal positions")
        result["plot"] = str(out)
    rows = [
        [place, *(f"{v:.4f}" for v in row[drawn])] for place, row in enumerate(table_of_places[:6])
    ]
    header = ("place", *(f"column {column}" for column in drawn))
    _finish(result, table(rows, header), checks, console)


def _columns(text: str, width: int) -> list[int]:
    first, _, last = text.partition("-")
    if not first.isdigit() or not (last or first).isdigit():
        found: list[int] = []
    else:
        found = list(range(int(first), int(last or first) + 1))
    if not found or found[-1] >= width or len(found) > 12:
        raise ConfigError(
            "E202",
            "--columns is not understood",
            received=text,
            expected=f"a range of up to 12 columns below {width}, such as 6-9",
        )
    return found


def _rotary_difference() -> float:
    query, key = torch.randn(2, 1, 1, 1, 16, generator=generator(0, "rotary"))

    def product(first: int, second: int) -> Tensor:
        return (rotated(query, first) * rotated(key, second)).sum()

    return _difference(product(5, 2), product(13, 10))


def masked_loss(console: Console) -> None:
    """Uniform logits over 10 classes cost ln 10 a token; lengths 4, 2 and 0 of 4 places.

    Divided by the padded length the rows give 2.3026, 1.1513 and 0.0000, and short sentences
    weigh less; divided by real tokens every token weighs the same.
    """
    lengths = torch.tensor([4, 2, 0])
    target = valid_mask(lengths, 4).long() * 5  # token 5 where there is one, padding elsewhere
    losses = token_losses(torch.ones(3, 4, 10), target)
    by_place, by_token = losses.mean(1), losses.sum() / lengths.sum()
    known = torch.tensor([math.log(10), math.log(10) / 2, 0.0])
    checks = {
        "a row's mean over all places against ln 10, ln 10 / 2 and 0": _difference(by_place, known),
        "the mean over real tokens against ln 10": abs(float(by_token) - math.log(10)),
    }
    result = {
        "lengths": lengths.tolist(),
        "by_place": by_place.tolist(),
        "by_token": float(by_token),
    }
    rows = [[n, f"{v:.4f}"] for n, v in zip(lengths.tolist(), by_place.tolist(), strict=True)]
    text = table(rows, ("length", "loss over padded length")) + f"\nloss a token {by_token:.4f}"
    _finish(result, text, checks, console)
