"""Guards on what the model gives and what the loss makes of it: G-P01 to G-P05."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dltool.guards.findings import Clean, Finding, NotJudged, Verdict
from dltool.guards.losses import Seen, answers
from dltool.guards.subject import CannotJudge, Subject, shake

SUM_LIMIT = 1e-3
ZERO_SHARE = 0.05
CUT_SHARE = 0.2  # of logits; a mean over places behind a ReLU leaves a few zeros too
FIRST_LOSS = 3.0
FIRST_SQUARES = 1000.0
SHAKES = 2


def probabilities(subject: Subject, seen: Seen) -> Verdict:
    """G-P01: does the loss get what it takes?"""
    if seen.kind == "softmax":
        return _doubled_softmax(subject, seen)
    if seen.kind == "log-probabilities" and seen.axis is not None:
        return _for_nll(subject, seen, seen.axis)
    if seen.kind == "sigmoid":
        return _doubled_sigmoid(subject, seen)
    return NotJudged("G-P01", "the loss takes neither logits nor log-probabilities")


def _doubled_softmax(subject: Subject, seen: Seen) -> Verdict:
    axis, count = seen.axis or 1, seen.classes
    floor = math.log(1 + (count - 1) / math.e)
    if _sums_to_one(seen.outputs, axis) and all(
        _sums_to_one(each, axis) for each in shaken(subject)
    ):
        return Finding(
            "G-P01",
            "fail",
            "the outputs are probabilities already (rows are >= 0 and sum to 1), and the "
            f"cross-entropy takes a softmax itself: the loss cannot fall below {floor:.4f}",
            "remove the softmax from the model",
            measured=float(seen.outputs.sum(axis).mean()),
            limit=1.0,
            place=last_module(subject),
        )
    target = subject.tensor_target
    best = subject.loss_at(50 * answers(seen.outputs, target, axis, 1.0))
    better = subject.loss_at(100 * answers(seen.outputs, target, axis, 1.0))
    if abs(best - floor) < SUM_LIMIT and abs(better - best) < SUM_LIMIT:
        return Finding(
            "G-P01",
            "fail",
            f"the loss takes the softmax twice: for right answers it stays at {best:.4f}, "
            "ln(1 + (C-1)/e)",
            "hand the logits to the cross-entropy as they are",
            measured=best,
            limit=0.0,
        )
    return Clean("G-P01")


def _sums_to_one(outputs: Tensor, axis: int) -> bool:
    sums = outputs.sum(axis)
    return bool((outputs >= 0).all()) and bool(((sums - 1).abs() < SUM_LIMIT).all())


def _for_nll(subject: Subject, seen: Seen, axis: int) -> Verdict:
    if _sums_to_one(seen.outputs, axis):
        what = "probabilities"
    elif bool((seen.outputs.logsumexp(axis).abs() < SUM_LIMIT).all()):
        return Clean("G-P01")
    else:
        what = "logits"
    return Finding(
        "G-P01",
        "fail",
        f"the loss takes log-probabilities and gets {what}: it falls without end and says nothing",
        "end the model with log_softmax, or use cross_entropy",
        place=last_module(subject),
    )


def _doubled_sigmoid(subject: Subject, seen: Seen) -> Verdict:
    found = [seen.outputs, *shaken(subject)]
    low, high = min(float(each.min()) for each in found), max(float(each.max()) for each in found)
    # a sigmoid is recognised by reaching for both ends, never beyond
    if low < 0 or high > 1 or (low == high == 0) or high - low < 0.05:
        return Clean("G-P01")
    zeros = float((found[-1] == 0).float().mean())
    if zeros > ZERO_SHARE:
        return Clean("G-P01")  # a ReLU: G-P02
    return Finding(
        "G-P01",
        "fail",
        f"the outputs stay between {low:.2g} and {high:.2g} whatever the weights are: they are "
        "probabilities, and the loss takes a sigmoid itself",
        "remove the sigmoid from the model",
        measured=high,
        limit=1.0,
        place=last_module(subject),
    )


def shaken(subject: Subject) -> list[Tensor]:
    """Return outputs of other, larger weights: a bound that holds for them is the model's own."""
    found = []
    state = [each.detach().clone() for each in subject.model.parameters()]
    for number in range(SHAKES):
        shake(subject.model, number, size=4.0)
        outputs = subject.outputs()
        with torch.no_grad():
            for each, value in zip(subject.model.parameters(), state, strict=True):
                each.copy_(value)
        if bool(outputs.isfinite().all()):
            found.append(outputs)
    return found


def last_module(subject: Subject) -> str:
    """Return the name of the module that ran last, the model's own name left out."""
    order: list[str] = []
    hooks = [
        module.register_forward_hook(lambda *_, name=name: order.append(name))
        for name, module in subject.model.named_modules()
        if name and not any(module.children())
    ]
    try:
        subject.outputs()
    finally:
        for hook in hooks:
            hook.remove()
    return order[-1] if order else ""


def expressible(subject: Subject, seen: Seen) -> Verdict:
    """G-P02: can the last layer give what the targets are?"""
    if seen.kind in ("unknown", "other"):
        return NotJudged("G-P02", "what the loss takes is not known")
    found = shaken(subject)
    if not found:
        return NotJudged("G-P02", "the outputs are not finite with other weights")
    low, high = min(float(each.min()) for each in found), max(float(each.max()) for each in found)
    zeros = sum(_zeros(each) for each in found) / len(found)
    if seen.kind in ("softmax", "sigmoid"):
        return _logits_bound(subject, found, low, high, zeros, seen.kind)
    if seen.kind != "values":
        return Clean("G-P02")
    goal = subject.tensor_target.float()
    least, most = float(goal.min()), float(goal.max())
    ends = ((0.0, math.inf), (0.0, 1.0), (-1.0, 1.0))
    for bottom, top in ends:
        if _bounded(found, low, high, bottom, top) and (least < bottom - 1e-3 or most > top + 1e-3):
            return Finding(
                "G-P02",
                "fail",
                f"the outputs stay between {low:.3g} and {high:.3g} whatever the weights are, the "
                f"targets run from {least:.3g} to {most:.3g}",
                "remove the activation behind the last layer, or scale the targets",
                measured=least if least < bottom else most,
                limit=bottom if least < bottom else top,
                place=last_module(subject),
            )
    return Clean("G-P02")


def _zeros(outputs: Tensor) -> float:
    """Return the share of exact zeros among the outputs that vary at all."""
    flat = outputs.reshape(len(outputs), -1)
    varying = flat[:, (flat != flat[:1]).any(0)]
    return float((varying == 0).float().mean()) if varying.numel() else 0.0


def _bounded(found: list[Tensor], low: float, high: float, bottom: float, top: float) -> bool:
    """Tell whether outputs crowd at the ends of a range and never leave it."""
    if low < bottom or high > top:
        return False
    if math.isinf(top):
        return any(float((each == 0).float().mean()) > ZERO_SHARE for each in found)
    reach = 0.02 * (top - bottom)
    ends = [((each < bottom + reach) | (each > top - reach)).float().mean() for each in found]
    return max(float(share) for share in ends) > ZERO_SHARE


def _logits_bound(
    subject: Subject,
    found: list[Tensor],
    low: float,
    high: float,
    zeros: float,
    seen_kind: str,
) -> Verdict:
    if low >= 0 and zeros > CUT_SHARE:
        said = f"{zeros:.0%} of the logits are exactly 0 and none is negative: a ReLU cuts them"
        share = zeros
    elif _bounded(found, low, high, -1.0, 1.0) and low < -0.5:
        said = f"the logits crowd at {low:.3g} and {high:.3g} whatever the weights are: a tanh"
        share = high
    elif seen_kind == "softmax" and _bounded(found, low, high, 0.0, 1.0) and high - low > 0.5:
        said = f"the logits stay between {low:.3g} and {high:.3g} whatever the weights are: a "
        said += "sigmoid, and the cross-entropy takes a softmax itself"
        share = high
    else:
        return Clean("G-P02")
    return Finding(
        "G-P02",
        "fail",
        said,
        "remove the activation behind the last layer",
        measured=share,
        limit=ZERO_SHARE,
        place=last_module(subject),
    )


def broadcast(subject: Subject, seen: Seen) -> Verdict:
    """G-P03: where output and target differ in shape, does one sample's target move the others?"""
    target = subject.tensor_target
    shape, wanted = tuple(seen.outputs.shape), tuple(target.shape)
    if seen.axis is not None or not target.is_floating_point():
        return _wrong_classes(subject, seen, target)
    if shape == wanted:
        return Clean("G-P03")
    try:
        wide = torch.broadcast_shapes(shape, wanted)
    except RuntimeError:
        return NotJudged("G-P03", f"outputs {shape} and targets {wanted} do not broadcast")
    if wide == torch.Size(shape) and math.prod(shape) == target.numel():
        return Clean("G-P03")
    if not _reaches_across(subject, seen.outputs, target):
        return Clean("G-P03")
    return Finding(
        "G-P03",
        "fail",
        f"output {shape} and target {wanted} are broadcast to {tuple(wide)}: every sample is "
        "compared with every other",
        "squeeze the output, output.squeeze(-1), or unsqueeze the target",
        measured=float(math.prod(wide)),
        limit=float(target.numel()),
    )


def _wrong_classes(subject: Subject, seen: Seen, target: Tensor) -> Verdict:
    count, shape = subject.facts.num_classes, tuple(seen.outputs.shape)
    if seen.axis is not None and count in (0, seen.classes):
        return Clean("G-P03")
    if seen.task != "classify" or not count or target.dim() != 1:
        return NotJudged("G-P03", f"outputs {shape} for targets {tuple(target.shape)}")
    return Finding(
        "G-P03",
        "fail",
        f"the model gives {shape} for {len(target)} samples of {count} classes",
        f"let its last layer give ({len(target)}, {count})",
        measured=float(seen.classes),
        limit=float(count),
        place=last_module(subject),
    )


def _reaches_across(subject: Subject, outputs: Tensor, target: Tensor) -> bool:
    """Change one target: does the gradient at another sample's output move?"""
    if subject.loss is None or len(target) < 2:
        return False
    changed = target.clone()
    changed[0] = changed[0] + (target.float().std() + 1).to(target)
    slopes = []
    for goal in (target, changed):
        leaf = outputs.detach().clone().requires_grad_()
        try:
            subject.loss(leaf, goal).backward()
        except (RuntimeError, ValueError, IndexError) as error:
            raise CannotJudge(f"the loss refuses made-up outputs: {error}") from error
        slopes.append(leaf.grad if leaf.grad is not None else torch.zeros_like(leaf))
    change = (slopes[0] - slopes[1])[1:].abs().max()
    return float(change) > 1e-4 * float(slopes[0].abs().max())


def prefers_right(subject: Subject, seen: Seen) -> Verdict:
    """G-P04: is the loss of right answers below that of no answer?"""
    target = subject.tensor_target
    if seen.axis is not None:
        return _prefers_class(subject, seen, target, seen.axis)
    if seen.task == "multilabel" or seen.kind == "sigmoid":
        goal = target.reshape(seen.outputs.shape).float()
        if bool((goal == goal.reshape(-1)[0]).all()):
            return NotJudged("G-P04", "the batch holds one answer alone")
        sides = [subject.loss_at(size * (2 * goal - 1)) for size in (0.3, 0.0, -0.3)]
        return _judge_preference(sides[0], sides[1], sides[2])
    if not target.is_floating_point() or target.numel() != seen.outputs.numel():
        return NotJudged("G-P04", "what a right answer would be is not known")
    return _prefers_near(subject, target.reshape(seen.outputs.shape).float())


def _prefers_class(subject: Subject, seen: Seen, target: Tensor, axis: int) -> Verdict:
    scored = target != subject.facts.ignore_index
    if not bool(scored.any()) or seen.classes < 2:
        return NotJudged("G-P04", "no target of the batch is scored")
    for size in (3.0, 0.3, 0.05):  # smoothed labels prefer small differences
        right, none, wrong = (
            subject.loss_at(answers(seen.outputs, target, axis, strength, shift))
            for strength, shift in ((size, 0), (0.0, 0), (size, 1))
        )
        if right < none and right < wrong:
            return Clean("G-P04", right)
    return _judge_preference(right, none, wrong)


def _judge_preference(right: float, none: float, wrong: float) -> Verdict:
    if right < none:
        return Clean("G-P04", right)
    if not all(map(math.isfinite, (right, none, wrong))):
        return NotJudged("G-P04", "the loss of made-up answers is not finite")
    return Finding(
        "G-P04",
        "fail",
        f"the loss of right answers ({right:.4g}) is not below that of no answer ({none:.4g}); of "
        f"wrong ones it is {wrong:.4g}: training would learn the opposite, or nothing",
        "look for a flipped sign, swapped arguments, or targets in another encoding",
        measured=right,
        limit=none,
    )


def _prefers_near(subject: Subject, goal: Tensor) -> Verdict:
    """Go away from the target both ways: a loss that falls both ways has its sign flipped."""
    size = max(float(goal.std()) if goal.numel() > 1 else 1.0, 1e-6)
    at = subject.loss_at(goal)
    near = [subject.loss_at(goal + way * size) for way in (1, -1)]
    far = [subject.loss_at(goal + way * 3 * size) for way in (1, -1)]
    if not all(map(math.isfinite, (at, *near, *far))):
        return NotJudged("G-P04", "the loss of made-up answers is not finite")
    if all(f < n < at for f, n in zip(far, near, strict=True)):
        return _judge_preference(at, min(near), min(far))
    return Clean("G-P04", at)


def first_loss(subject: Subject, seen: Seen) -> Verdict:
    """G-P05: is the first loss near that of equal answers?"""
    if subject.facts.pretrained:
        return NotJudged("G-P05", "some weights were trained before")
    first = float(subject.loss_of(training=True).detach())
    guess, limit = _guess(subject, seen)
    if not math.isfinite(guess) or guess <= 1e-6:
        return NotJudged("G-P05", "what guessing costs is not known")
    ratio = first / guess
    if ratio <= limit:
        return Clean("G-P05", ratio)
    if not math.isfinite(first):
        return NotJudged("G-P05", f"the first loss is {first}")
    return Finding(
        "G-P05",
        "warn",
        f"the first loss is {first:.4g}, {ratio:.1f} times that of guessing ({guess:.4g}; limit "
        f"{limit:g} times)",
        "look at the initialisation, the last layer first, and at the scale of inputs and targets",
        measured=ratio,
        limit=limit,
    )


def _guess(subject: Subject, seen: Seen) -> tuple[float, float]:
    """Return the loss of an answer that knows nothing, and how often a first loss may hold it."""
    target = subject.tensor_target
    if seen.axis is not None and seen.kind in ("softmax", "log-probabilities"):
        return subject.loss_at(answers(seen.outputs, target, seen.axis, 0.0)), FIRST_LOSS
    if seen.kind == "sigmoid":
        return subject.loss_at(torch.zeros_like(seen.outputs)), FIRST_LOSS
    if seen.kind == "values" and target.numel() == seen.outputs.numel() and len(target) > 1:
        mean = target.float().mean(0, keepdim=True).expand(target.shape).reshape(seen.outputs.shape)
        return subject.loss_at(mean), FIRST_SQUARES
    raise CannotJudge("what guessing costs is not known")
