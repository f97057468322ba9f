"""Guards that take some steps and put them back: G-P15, G-P17 and G-P18."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dltool.guards.findings import Clean, Finding, NotJudged, Verdict
from dltool.guards.slopes import MATRICES
from dltool.guards.subject import Subject, moved, shake, stream
from dltool.guards.untouched import untouched

STEPS, EARLY = 20, 5
BLOWN_UP = 10.0
TORN, STILL = 2.0, 1e-7
SLOW_HEAD = 2.0
LEARNT = 0.98
AFFINE = 1e-4
ALIKE = 1e-7
APART = 8
NEAR_0 = 1e-3
EATEN = 0.05


@dataclass(frozen=True)
class Walk:
    """Losses before each step and after the last, and the largest update of a weight at each.

    Attributes:
        updates: ‖Δw‖ / ‖w‖, where weights that start near 0 are left out.
        moves: the same with them.
        is_pushed: some matrix had a gradient that was not 0.
    """

    losses: list[float]
    updates: list[float]
    moves: list[float]
    is_pushed: bool = True


def walk(subject: Subject, optimizers: Sequence[Optimizer], steps: int) -> Walk:
    """Take steps on one batch; the model and the optimizers stay where they get."""
    losses: list[float] = []
    updates: list[float] = []
    moves: list[float] = []
    held = [(each, each.detach().clone()) for _, each in subject.trained]
    for _ in range(steps):
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss = subject.loss_of()
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]) or not loss.requires_grad:
            return Walk(losses, updates, moves)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        changes = [_update(now, before) for now, before in held]
        updates.append(max([change for change, is_near_0 in changes if not is_near_0], default=0.0))
        moves.append(max([change for change, _ in changes], default=0.0))
        held = [(each, each.detach().clone()) for each, _ in held]
    gradients = [each.grad for _, each in subject.trained if each.dim() > 1]
    is_pushed = any(each is not None and bool(each.any()) for each in gradients)
    return Walk([*losses, float(subject.loss_of().detach())], updates, moves, is_pushed)


def _update(now: Tensor, before: Tensor) -> tuple[float, bool]:
    """Return ‖Δw‖ / ‖w‖, and whether the weight began near 0."""
    size = float(before.norm()) / math.sqrt(before.numel())
    change = float((now.detach() - before).norm()) / math.sqrt(before.numel())
    ratio = change / max(size, NEAR_0)
    return (ratio if ratio == ratio else math.inf), size <= NEAR_0


def rates(optimizers: Sequence[Optimizer]) -> list[tuple[dict[str, Any], float, float]]:
    """Return each group with its rate now and the rate that its schedule aims at."""
    return [
        (group, float(group["lr"]), float(group.get("initial_lr", group["lr"])))
        for optimizer in optimizers
        for group in optimizer.param_groups
    ]


def step_size(subject: Subject, steps: int = STEPS) -> list[Verdict]:
    """G-P18: do the optimizer's own steps blow the loss up, tear the weights, or do nothing?"""
    if not subject.optimizers:
        return [NotJudged("G-P18", "no optimizer was given")]
    if any(isinstance(each, torch.optim.LBFGS) for each in subject.optimizers):
        return [NotJudged("G-P18", "LBFGS chooses its steps itself")]
    known = rates(subject.optimizers)
    found = [
        each
        for each in (_no_rate(known), _inverted(subject, known), _odd_settings(known))
        if each is not None
    ]
    if any(each.severity == "fail" for each in found):
        return [*found]
    with untouched(subject.model, subject.optimizers):
        for group, now, aim in known:
            if now == 0 and aim > 0:  # a warm-up begins at 0
                _set_rate(group, aim / 10)
        seen = walk(subject, subject.optimizers, steps)
    judged = judge_walk(seen)
    if isinstance(judged, Finding):
        return [*found, judged]
    return [*found] or [judged]


def _set_rate(group: dict[str, Any], rate: float) -> None:
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


def judge_walk(seen: Walk) -> Verdict:
    """Judge the losses and updates of some steps on one batch."""
    if not seen.updates:
        return NotJudged("G-P18", "the first loss is not finite, or hangs on no weight")
    start, worst = abs(seen.losses[0]), max(seen.losses, key=lambda v: math.inf if v != v else v)
    early = median(seen.updates[:EARLY])
    blown = not math.isfinite(worst) or (worst > BLOWN_UP * max(start, 1e-3) and worst > 0)
    cure = "use a smaller rate: 1e-3 for Adam, 0.1 and below for SGD; or a warm-up"
    if blown:
        said = f"within {len(seen.updates)} steps on one batch the loss goes from "
        said += f"{seen.losses[0]:.3g} to {worst:.3g} (limit {BLOWN_UP:g} times)"
        ratio = worst / max(start, 1e-12)
        return Finding("G-P18", "fail", said, cure, measured=ratio, limit=BLOWN_UP)
    if early > TORN:
        said = f"a step changes a weight by {early:.3g} times its size (limit {TORN:g})"
        return Finding("G-P18", "fail", said, cure, measured=early, limit=TORN)
    if max(seen.moves) < STILL and not seen.is_pushed:
        return NotJudged("G-P18", "no weight has a gradient that would move it")
    if max(seen.moves) < STILL:
        said = f"{len(seen.moves)} steps change no weight by more than {max(seen.moves):.2g} "
        said += f"of its size (limit {STILL:g}): nothing is trained"
        cure = "use a larger rate: 1e-3 for Adam, 0.1 for SGD"
        return Finding("G-P18", "fail", said, cure, measured=max(seen.moves), limit=STILL)
    return Clean("G-P18", early)


def _no_rate(known: list[tuple[dict[str, Any], float, float]]) -> Finding | None:
    if any(max(now, aim) > 1e-9 for _, now, aim in known):
        return None
    decay = max(float(group.get("weight_decay", 0.0)) for group, _, _ in known)
    swapped = " and weight decay is " + f"{decay:g}: were the two swapped?" if decay > 0 else ""
    return Finding(
        "G-P18",
        "fail",
        f"the learning rate is {known[0][1]:g}{swapped or ': nothing is trained'}",
        "give lr= and weight_decay= by name",
        measured=known[0][1],
        limit=1e-9,
    )


def _odd_settings(known: list[tuple[dict[str, Any], float, float]]) -> Finding | None:
    """Find a decay that eats the weights, and moments that are swapped."""
    for group, now, aim in known:
        eaten = max(now, aim) * float(group.get("weight_decay", 0.0))
        if eaten > EATEN:
            said = f"weight decay takes {eaten:.2g} of every weight at each step (limit {EATEN:g})"
            cure = "usual are 1e-4 for SGD and 0.01 for AdamW"
            return Finding("G-P18", "warn", said, cure, measured=eaten, limit=EATEN)
        first, second = (float(each) for each in group.get("betas", (0.0, 1.0)))
        if first > second:
            said = f"betas are ({first:g}, {second:g}): the two were swapped"
            cure = "betas=(0.9, 0.999)"
            return Finding("G-P18", "warn", said, cure, measured=first, limit=second)
        if float(group.get("momentum", 0.0)) >= 1:
            said = f"momentum is {group['momentum']:g}: no step is ever forgotten (limit 1)"
            cure = "use 0.9"
            return Finding(
                "G-P18", "fail", said, cure, measured=float(group["momentum"]), limit=1.0
            )
    return None


def _inverted(subject: Subject, known: list[tuple[dict[str, Any], float, float]]) -> Finding | None:
    """Find a last layer that learns more slowly than the first."""
    aims = {id(weight): aim for group, _, aim in known for weight in group["params"]}
    order: list[tuple[str, nn.Module]] = []
    hooks = [
        module.register_forward_hook(lambda m, *_, name=name: order.append((name, m)))
        for name, module in subject.model.named_modules()
        if isinstance(module, (*MATRICES, nn.RNNBase, nn.Embedding))
    ]
    try:
        subject.outputs()
    finally:
        for hook in hooks:
            hook.remove()
    rated = [
        (name, aims[id(weight)])
        for name, module in order
        for weight in list(module.parameters(recurse=False))[:1]
        if weight.requires_grad and id(weight) in aims
    ]
    if len(rated) < 2 or rated[-1][1] <= 0 or rated[0][1] / rated[-1][1] < SLOW_HEAD:
        return None
    ratio = rated[0][1] / rated[-1][1]
    return Finding(
        "G-P18",
        "fail" if ratio >= 10 and subject.facts.pretrained else "warn",
        f"the last layer ({rated[-1][0]}, rate {rated[-1][1]:g}) learns {ratio:.3g} times more "
        f"slowly than the first ({rated[0][0]}, rate {rated[0][1]:g}; limit {SLOW_HEAD:g}): are "
        "the rates of the groups swapped?",
        "give the new head the higher rate",
        measured=ratio,
        limit=SLOW_HEAD,
        place=rated[-1][0],
    )


# ---- symmetry and collapse -------------------------------------------------------------------


def alike(subject: Subject) -> list[Verdict]:
    """G-P15: are hidden units alike and stay so, and is the whole model one affine map?"""
    found = [each for each in (_equal_rows(subject), _affine(subject)) if each is not None]
    return [*found] or [Clean("G-P15")]


def _rows_alike(weight: Tensor) -> bool:
    rows = weight.detach().flatten(1).float()
    return len(rows) > 1 and float((rows - rows[:1]).abs().max()) <= ALIKE


def _equal_rows(subject: Subject) -> Finding | None:
    weights = [
        (f"{name}.weight".lstrip("."), module.weight)
        for name, module in subject.model.named_modules()
        if isinstance(module, MATRICES) and module.weight.requires_grad
    ]
    suspects = [(name, weight) for name, weight in weights if _rows_alike(weight)]
    if not suspects or (subject.loss is None and subject.step is None):
        return None
    with untouched(subject.model):
        # plain descent: what starts at 0 on purpose comes apart, what is symmetric stays so; the
        # seeds differ, since a layer may be left out at random
        for number in range(APART):
            loss = subject.loss_of(seed=number)
            if not loss.requires_grad:
                return None
            loss.backward()
            with torch.no_grad():
                for _, each in subject.trained:
                    if each.grad is not None:
                        size = max(float(each.grad.norm()), 1e-12)
                        each.sub_(each.grad * (0.1 * max(float(each.norm()), 0.1) / size))
        left = [name for name, weight in suspects if _rows_alike(weight)]
    if not left:
        return None
    return Finding(
        "G-P15",
        "fail",
        f"all units of {left[0]} are alike and get the same gradient, also after {APART} steps: "
        "they stay one unit for ever",
        "draw the weights at random: leave the layer's default initialisation",
        measured=0.0,
        limit=ALIKE,
        place=left[0],
    )


def _affine(subject: Subject) -> Finding | None:
    if subject.facts.linear:
        return None
    parts = [part for part in subject.role("content") if part.tensor.is_floating_point()]
    if len(parts) != 1 or len(subject.role("content")) != 1:
        return None
    layers: list[str] = []
    hooks = [
        module.register_forward_hook(lambda *_, name=name: layers.append(name))
        for name, module in subject.model.named_modules()
        if isinstance(module, MATRICES)
    ]
    try:
        subject.outputs()
    finally:
        for hook in hooks:
            hook.remove()
    if len(layers) < 2:
        return None
    shake(subject.model, size=1.0)  # branches that start at 0 would hide their bends
    values = parts[0].tensor
    spread = float(values.float().std()) * 10 + 1e-3
    ends = [torch.randn(values.shape, generator=stream(n)).to(values) * spread for n in (31, 32)]
    one, two = (subject.outputs(subject.with_part(parts[0], end)) for end in ends)
    middle = subject.outputs(subject.with_part(parts[0], (ends[0] + ends[1]) / 2))
    bend = moved((one + two) / 2, middle)
    if bend > AFFINE or moved(one, two) < 1e-3:
        return None
    return Finding(
        "G-P15",
        "warn",
        f"{len(layers)} layers make one affine map (they bend by {bend:.1g}, limit {AFFINE:g}): "
        "the model can do no more than a single linear layer",
        "put an activation such as ReLU between the layers",
        measured=bend,
        limit=AFFINE,
        place=layers[0],
    )


# ---- by heart --------------------------------------------------------------------------------


def by_heart(subject: Subject, steps: int = 200) -> Verdict:
    """G-P17: does any of several rates bring the loss of one batch down?"""
    if not subject.optimizers:
        return NotJudged("G-P17", "no optimizer was given")
    start = float(subject.loss_of().detach())
    if not math.isfinite(start):
        return NotJudged("G-P17", f"the first loss is {start}")
    best = start
    for factor in (1.0, 0.1, 10.0, 0.0):
        with untouched(subject.model, subject.optimizers):
            used: Sequence[Optimizer] = subject.optimizers
            if factor:
                for group, now, aim in rates(used):
                    _set_rate(group, (now or aim) * factor)
            else:
                used = [torch.optim.Adam([each for _, each in subject.trained], lr=1e-2)]
            losses = [each for each in walk(subject, used, steps).losses if math.isfinite(each)]
        best = min(best, *losses)
        if best < LEARNT * start or start <= 1e-3:
            return Clean("G-P17", best / max(start, 1e-12))
    return Finding(
        "G-P17",
        "fail",
        f"{steps} steps on one batch bring the loss from {start:.4g} to {best:.4g} at best, at "
        f"three rates and with Adam (limit {LEARNT:.0%} of the start)",
        "take the model apart until a part learns",
        measured=best / start,
        limit=LEARNT,
    )
