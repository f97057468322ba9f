"""Demos: masks, masked softmax, normalisations, positions, losses, convolution sizes."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from dltool_tensor_ops import pictures, shapes
from dltool_tensor_ops.demo import Setup, Shown, difference, refusal


def padding_mask(lengths: Tensor, size: int) -> Tensor:
    """Return (B, size), True where a position holds a token."""
    return torch.arange(size, device=lengths.device)[None, :] < lengths[:, None]


def causal_mask(size: int, device: torch.device) -> Tensor:
    """Return (size, size), True where a query (row) may see a key (column): not the future."""
    return torch.ones(size, size, dtype=torch.bool, device=device).tril()


def masks(setup: Setup) -> Shown:
    """Hide padding, the future, or both; True means: may be seen."""
    shown = Shown("Padding, causal and combined masks")
    lengths = torch.tensor([1, 2], device=setup.device)
    x = torch.tensor([[1, 2, 3], [4, 5, 6]], device=setup.device)
    kept = x.masked_fill(~padding_mask(lengths, 3), 0)
    shown.add("kept", "[[1,2,3],[4,5,6]], lengths [1, 2]", kept)
    shown.add("untouched", "the argument afterwards", x, "masked_fill copies, x[~mask] = 0 not")
    ids = torch.tensor([[1, 2, 3, 0, 0], [4, 5, 6, 7, 8], [9, 10, 0, 0, 0]], device=setup.device)
    shown.add("filled", "ids with padding set to -1", ids.masked_fill(ids == 0, -1))

    padding, causal = padding_mask(torch.tensor([3, 5]), 5), causal_mask(5, torch.device("cpu"))
    combined = padding[:, None, :] & causal  # (B, 1, K) & (Q, K) -> (B, Q, K)
    shown.add("causal", "causal_mask(3)", causal_mask(3, setup.device).int())
    shown.add("combined_shape", "padding[:, None, :] & causal", combined.shape, "(B, Q, K)")
    shown.add("combined", "    pairs seen, lengths 3 and 5", combined.sum((1, 2)))

    q = setup.normal(1, 5, 4)
    changed = q.clone()
    changed[:, -1] += 1  # another last token

    def leak(causal: bool) -> float:
        a, b = (F.scaled_dot_product_attention(t, t, t, is_causal=causal) for t in (q, changed))
        return difference(a[:, :-1], b[:, :-1])

    shown.add("leak", "change before a changed last token", leak(True), "causal: none")
    shown.add("leak_open", "    without a mask", leak(False))
    shown.say("sdpa: True = seen; MultiheadAttention's masks: True = hidden. Turn one, not both.")
    panels = {"padding (length 3)": padding[:1].expand(5, 5), "causal": causal}
    shown.picture = partial(pictures.masks, panels | {"both": combined[0]})
    return shown


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Return softmax over the last axis where the mask is True, zeros in a row with no True."""
    weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    return weights.masked_fill(~mask, 0.0)  # a row of -inf alone gives NaN


def softmax_masked(setup: Setup) -> Shown:
    """Give hidden positions the weight 0, not nearly 0; decide what an empty row gives."""
    shown = Shown("Masked softmax")
    scores = torch.zeros(2, 10, device=setup.device)  # equal keys
    mask = padding_mask(torch.tensor([2, 6], device=setup.device), 10)
    weights = masked_softmax(scores, mask)
    shown.add("two", "equal keys, length 2 of 10", weights[0])
    shown.add("six", "equal keys, length 6 of 10", weights[1])
    random = setup.normal(2, 10)
    shown.add("rows", "random scores: row sums", masked_softmax(random, mask).sum(-1))
    shown.add("hidden", "    weight on hidden places", masked_softmax(random, mask)[~mask].sum())
    nearly = random.masked_fill(~mask, 1e-6).softmax(-1)
    shown.add("too_small", "filled with 1e-6 (not -1e6)", nearly[~mask].sum() / 2, "typing error")
    late = random.softmax(-1) * mask
    shown.add("late", "masked after the softmax: rows", late.sum(-1), "no longer 1")
    empty = random.masked_fill(torch.ones_like(mask), -torch.inf).softmax(-1)
    shown.add("empty_plain", "a row with nothing to see: plain", empty[0, 0])
    nothing = masked_softmax(random, torch.zeros_like(mask))
    shown.add("empty", "    here: sum of its weights", nothing[0].sum())
    half = torch.zeros(2, dtype=torch.float16)
    message = refusal(lambda: half.masked_fill(torch.tensor([True, False]), -1e9))
    shown.add("half", "fill a float16 with -1e9", message)
    return shown


def _standardised(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Subtract the mean and divide by the root of the (biased) variance over these axes."""
    mean, var = x.mean(axes, keepdim=True), x.var(axes, keepdim=True, correction=0)
    return (x - mean) / (var + 1e-5).sqrt()


def norms(setup: Setup) -> Shown:
    """Batch, layer, instance, group and RMS norm: one formula, other axes."""
    shown = Shown("Normalisations: which numbers share a mean")
    small = torch.tensor([[1.0, 2.0], [2.0, 3.0]], device=setup.device)
    shown.add("layer_small", "LayerNorm of [[1,2],[2,3]]", F.layer_norm(small, (2,)), "rows")
    batch = F.batch_norm(small, None, None, training=True)
    shown.add("batch_small", "BatchNorm of [[1,2],[2,3]]", batch, "columns")
    rows = torch.arange(10.0, device=setup.device).reshape(2, 5)
    shown.add("row", "LayerNorm(5) of arange(10), row 0", F.layer_norm(rows, (5,))[0])
    whole = F.layer_norm(rows, (2, 5))
    shown.add("whole", "LayerNorm(2, 5): first, last", [whole[0, 0], whole[1, 4]], "mixes samples")

    x = setup.normal(4, 6, 3, 3) * 2 + 1
    grouped = _standardised(x.reshape(4, 2, 3, 3, 3), (2, 3, 4)).reshape(x.shape)
    pairs = {
        "batch": (F.batch_norm(x, None, None, training=True), _standardised(x, (0, 2, 3))),
        "layer": (F.layer_norm(x, x.shape[1:]), _standardised(x, (1, 2, 3))),
        "instance": (F.instance_norm(x), _standardised(x, (2, 3))),
        "group": (F.group_norm(x, 2), grouped),
        "rms": (
            F.rms_norm(x, (3,), eps=1e-5),
            x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt(),
        ),
    }
    axes = {"batch": "N, H, W", "layer": "C, H, W", "instance": "H, W", "group": "C/2, H, W"}
    for name, (library, by_hand) in pairs.items():
        over = f"{name}: mean over {axes.get(name, 'last axis, no mean')}"
        shown.add(name, over, difference(library, by_hand), "difference from torch's")
    _running_statistics(shown, x)
    shown.picture = pictures.norm_axes
    return shown


def _running_statistics(shown: Shown, x: Tensor) -> None:
    layer = torch.nn.BatchNorm2d(6).to(x.device)
    layer(x)
    assert layer.running_mean is not None
    share = float((layer.running_mean / x.mean((0, 2, 3))).mean())
    shown.add("momentum", "BatchNorm: new mean's share", share, "torch's momentum: of the new")
    trained = layer(x)
    shown.add("eval", "train - eval output", difference(trained, layer.eval()(x)), "not the same")


def sinusoids(steps: int, dim: int) -> Tensor:
    """Return (steps, dim): sin and cos of position / 10000^(2j/dim) (Vaswani et al. 2017)."""
    angle = torch.arange(steps)[:, None] / 10000 ** (torch.arange(0, dim, 2) / dim)
    return torch.stack([angle.sin(), angle.cos()], 2).reshape(steps, dim)


def positions(setup: Setup) -> Shown:
    """Sinusoids: a clock with many hands; a shift is a rotation."""
    shown = Shown("Positional encoding")
    table = sinusoids(60, 32)
    shown.add("shape", "sinusoids(60, 32).shape", table.shape)
    slow = sinusoids(60, 4)[2:4, 2]
    shown.add("slow", "dim 4, column 2, positions 2, 3", slow, "sin(2/100), sin(3/100)")
    lengths = table.norm(dim=1)
    shown.add("norm", "shortest, longest row", [lengths.min(), lengths.max()], "root of dim/2 = 4")

    speeds = 1 / 10000 ** (torch.arange(0, 32, 2) / 32)
    cos, sin = (5 * speeds).cos(), (5 * speeds).sin()
    even, odd = table[:-5, 0::2], table[:-5, 1::2]
    turned = torch.stack([even * cos + odd * sin, odd * cos - even * sin], 2).reshape(55, 32)
    shown.add("shift", "5 steps on = one fixed rotation", difference(turned, table[5:]))
    products = table @ table.T
    apart = difference(products.diagonal(7)[:1].expand(53), products.diagonal(7))
    shown.add("offset", "p·q depends on the distance only", apart, "largest difference")
    wrong = torch.zeros(1, 60, 32) + torch.zeros(60, 60, 32)
    shown.add("wrong", "x (1,60,32) + pairs (60,60,32)", wrong.shape, "a relative table as batch!")
    shown.picture = partial(pictures.encodings, table)
    return shown


CE_TARGET = (2, 0, 1, 0)
CE_RIGHT = ((0.1, 0.2, 0.9), (1.1, 0.1, 0.2), (0.2, 2.1, 0.1), (1.2, 0.1, 0.3))
CE_WRONG = ((0.8, 0.2, 0.3), (0.2, 0.3, 0.5), (0.2, 0.2, 0.5), (0.1, 0.7, 0.4))


def losses(setup: Setup) -> Shown:
    """Cross-entropy and its relatives, on numbers that can be followed."""
    shown = Shown("Losses: what goes in, what comes out")
    target = torch.tensor(CE_TARGET, device=setup.device)
    for name, rows in (("right", CE_RIGHT), ("wrong", CE_WRONG)):
        logits = torch.tensor(rows, device=setup.device)
        each = F.cross_entropy(logits, target, reduction="none")
        shown.add(name, f"cross_entropy, mostly {name}", each)
        shown.add(f"{name}_mean", "    mean", each.mean())
    logits = torch.tensor(CE_RIGHT, device=setup.device)
    by_hand = logits.logsumexp(1) - logits.gather(1, target[:, None])[:, 0]
    shown.add("by_hand", "log-sum-exp - logit of the target", by_hand)
    twice = F.cross_entropy(logits.softmax(1), target)
    shown.add("twice", "softmax put in front", twice, "wrong: it wants logits")
    shown.add("nll", "-ln 0.3", -math.log(0.3), "a true class given 0.3")
    total = F.cross_entropy(logits, target, reduction="sum") / F.cross_entropy(logits, target)
    shown.add("reduction", "sum by mean", total, "the count")
    one_hot = F.one_hot(target, 3).float()
    shown.add("mse", "mean square to one-hot", F.mse_loss(logits, one_hot))
    shown.add("margin", "margin loss", F.multi_margin_loss(logits.cpu(), target.cpu()))
    z = torch.tensor([0.0, 1000.0], device=setup.device)
    bce = F.binary_cross_entropy_with_logits(z, torch.zeros_like(z), reduction="none")
    shown.add("bce", "bce of logits 0, 1000, target 0", bce, "ln 2; finite")
    p = logits.softmax(1)
    shown.add("kl", "KL(p | p)", F.kl_div(p.log(), p, reduction="batchmean"))

    error = torch.tensor([0.0, 0.5, 2.0], device=setup.device)
    nothing = torch.zeros_like(error)
    for key, name in (("l1", "l1_loss"), ("l2", "mse_loss"), ("huber", "huber_loss")):
        value = getattr(F, name)(error, nothing, reduction="none")
        shown.add(key, f"{name} of errors 0, 0.5, 2", value)
    shown.say("y - prediction alone is no loss: it falls without end")
    shown.picture = pictures.losses
    return shown


SQUARE = ((3, 4, 6, 5, 7), (2, 4, 6, 8, 2), (1, 6, 7, 8, 4), (9, 7, 4, 6, 2), (3, 7, 5, 4, 1))


def conv_sizes(setup: Setup) -> Shown:
    """Output sizes of convolutions and pooling, worked out and run."""
    shown = Shown("Sizes of convolution and pooling")

    def out(
        key: str, kernel: tuple[int, int], padding: tuple[int, int], stride: tuple[int, int]
    ) -> None:
        image = torch.zeros(1, 1, 8, 8, device=setup.device)
        weight = torch.zeros(1, 1, *kernel, device=setup.device)
        ran = tuple(F.conv2d(image, weight, padding=padding, stride=stride).shape[2:])
        layer = shapes.Layer((8, 8), kernel, stride, padding, (1,), False, False, 1)
        worked = tuple(row.out for row in layer.windows((8, 8)))
        note = "as worked out" if worked == ran else f"worked out: {worked}"
        shown.add(key, f"8x8, k {kernel}, p {padding}, s {stride}", ran, note)

    out("k3p1", (3, 3), (1, 1), (1, 1))
    out("k53p21", (5, 3), (2, 1), (1, 1))
    out("k3p1s2", (3, 3), (1, 1), (2, 2))
    out("k35p01s34", (3, 5), (0, 1), (3, 4))
    layers, size = 0, 224
    while size > 4:
        size, layers = size - 4, layers + 1
    shown.add("layers", "5x5 layers from 224 down to 4", layers, "no padding: 4 a layer")

    square = torch.tensor(SQUARE, dtype=torch.float32, device=setup.device)[None, None]
    kernel = torch.arange(1.0, 10.0, device=setup.device).reshape(1, 1, 3, 3)
    strided = F.conv2d(square, kernel, stride=2)[0, 0]
    shown.add("strided", "5x5 with kernel 1..9, stride 2", strided, "no flip: cross-correlation")
    pooled = F.max_pool2d(square[:, :, :4, :4], 2)[0, 0]
    shown.add("pooled", "2x2 max pooling of its 4x4", pooled, "stride = kernel")
    flat = 1000 * 1000 * 3 * 1000
    shown.add("dense", "weights: 1 Mpx RGB to 1000 units", flat, "why not a linear layer")
    return shown
