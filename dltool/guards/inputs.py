"""Guards on what enters the model: G-D01 and G-D02 on one batch, G-P13."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dltool.guards.batch_parts import Part, noise
from dltool.guards.findings import Clean, Finding, NotJudged, Verdict
from dltool.guards.slopes import MATRICES
from dltool.guards.subject import Subject, moved, stream, tensor_of

LARGE = 5.0
SMALL = 0.02
DEAD_SHARE = 0.25
DEAD_BORDER = 0.4  # of a picture: strides and pooling without padding cut a border off
DEAD_LIMIT = 1e-7
FEWEST_SAMPLES = 8


def finite(subject: Subject) -> Verdict:
    """G-D01: is every number of the batch finite?"""
    for part in subject.parts:
        if part.tensor.is_floating_point() and not bool(part.tensor.isfinite().all()):
            bad = ~part.tensor.isfinite()
            rows = bad.flatten(1).any(1) if part.tensor.dim() > 1 else bad.reshape(-1)
            places = rows.nonzero().flatten().tolist()[:5]
            return Finding(
                "G-D01",
                "fail",
                f"{int(bad.sum())} of {bad.numel()} numbers of {part.name} are NaN or infinite "
                f"(samples {', '.join(map(str, places))} of the batch)",
                "fill what is missing, or leave these samples out",
                measured=float(bad.sum()),
                limit=0.0,
                place=part.name,
            )
    return Clean("G-D01")


def scale(subject: Subject) -> Verdict:
    """G-D02: are the numbers that reach the first layer of a usual size?

    Looked at inside the model, so that a scaling that the model does itself counts.
    """
    seen: list[tuple[str, Tensor]] = []

    def note(name: str, inputs: tuple[object, ...]) -> None:
        if not seen and inputs and isinstance(inputs[0], Tensor) and inputs[0].is_floating_point():
            seen.append((name, inputs[0].detach().float()))

    first = (*MATRICES, nn.RNNBase, nn.RNNCellBase, nn.modules.batchnorm._BatchNorm, nn.LayerNorm)
    hooks = [
        module.register_forward_pre_hook(lambda _m, inputs, name=name: note(name, inputs))
        for name, module in subject.model.named_modules()
        if isinstance(module, first)
    ]
    try:
        subject.outputs()
    finally:
        for hook in hooks:
            hook.remove()
    kinds = dict(subject.model.named_modules())
    if not seen or isinstance(kinds[seen[0][0]], first[-2:]):
        return NotJudged("G-D02", "the first layer takes tokens, or normalises by itself")
    if any(isinstance(module, nn.Embedding) for module in subject.model.modules()):
        return NotJudged("G-D02", "the inputs are looked up in a table")
    return judge_scale(*seen[0])


def judge_scale(name: str, values: Tensor) -> Verdict:
    """Judge the numbers that enter a layer."""
    filled = values[values != 0]
    if len(filled) < 2:
        return NotJudged("G-D02", "the inputs of the batch are all 0")
    mean, std = float(values.mean()), float(values.std())
    size = float(filled.square().mean().sqrt())
    is_large = abs(mean) > LARGE or std > LARGE
    if not is_large and size >= SMALL:
        return Clean("G-D02", std)
    raw = bool((values == values.round()).all()) and float(values.min()) >= 0
    bytes_like = is_large and raw and float(values.max()) <= 255
    what = ": raw bytes 0 to 255" if bytes_like else ""
    return Finding(
        "G-D02",
        "warn",
        f"the numbers that enter {name or 'the first layer'} have mean {mean:.3g} and deviation "
        f"{std:.3g}{what} (usual: mean within {LARGE:g}, deviation below {LARGE:g}, size above "
        f"{SMALL:g})",
        "divide by 255"
        if bytes_like
        else "standardise with the training split's mean and deviation",
        measured=std if is_large else size,
        limit=LARGE if is_large else SMALL,
        place=name,
    )


def used(subject: Subject) -> Verdict:
    """G-P13: does every input that varies influence the output?"""
    if subject.size < FEWEST_SAMPLES:
        return NotJudged("G-P13", f"fewer than {FEWEST_SAMPLES} samples")
    judged = False
    for number, part in enumerate(subject.role("content")):
        if part.tensor.dim() == 0 or not _varies(part):
            continue
        judged = True
        other = noise(part.tensor, stream(20 + number), subject.facts.pad)
        change = moved(subject.outputs(), subject.outputs(subject.with_part(part, other)))
        if change <= DEAD_LIMIT:
            return _unused(f"{part.name} never influences the output", change, part)
        if part.tensor.is_floating_point() and part.tensor.dim() >= 2:
            found = _features(subject, part)
            if found is not None:
                return found
    return Clean("G-P13") if judged else NotJudged("G-P13", "no input varies in the batch")


def _varies(part: Part) -> bool:
    return bool((part.tensor != part.tensor[:1]).any())


def _features(subject: Subject, part: Part) -> Finding | None:
    """Find features without a gradient, and put noise there to see whether anything moves."""
    leaf = part.tensor.detach().clone().requires_grad_()
    subject.model.eval()
    with torch.enable_grad():
        outputs = tensor_of(subject.raw(subject.with_part(part, leaf))).float()
        weights = torch.randn(outputs.shape, generator=stream(4)).to(outputs)
        (outputs * weights).sum().backward()
    if leaf.grad is None:
        return None
    varies = (part.tensor != part.tensor[:1]).any(0)
    dead = (leaf.grad == 0).all(0) & varies
    share = float(dead.sum()) / max(float(varies.sum()), 1.0)
    limit = DEAD_SHARE if part.tensor.dim() == 2 else DEAD_BORDER
    if share <= limit:
        return None
    other = torch.where(dead, noise(part.tensor, stream(9)), part.tensor)
    change = moved(subject.outputs(), subject.outputs(subject.with_part(part, other)))
    if change > DEAD_LIMIT:
        return None
    first = [index[0] for index in dead.nonzero().T.tolist()]
    what = f"{share:.0%} of the varying features of {part.name} (the first at {first})"
    return _unused(f"{what} never influence the output (limit {limit:.0%})", share, part)


def _unused(message: str, measured: float, part: Part) -> Finding:
    return Finding(
        "G-P13",
        "warn",
        message,
        "use it in forward, or take it out of the data; look for a wrong slice",
        measured=measured,
        limit=DEAD_SHARE,
        place=part.name,
    )
