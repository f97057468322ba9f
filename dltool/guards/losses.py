"""Find out by trial what a loss takes: logits, log-probabilities, probabilities or values."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dltool.guards.subject import CannotJudge, Subject, stream

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Seen:
    """What a first look at the outputs shows.

    Attributes:
        outputs: the model's output in evaluation mode.
        task: as in `Facts`.
        kind: what the loss takes, see `kind`; `unknown` where it cannot be asked.
        axis: where the classes are; None without any.
    """

    outputs: Tensor
    task: str
    kind: str
    axis: int | None

    @property
    def classes(self) -> int:
        """The number of classes; 0 without any."""
        return 0 if self.axis is None else int(self.outputs.shape[self.axis])


def see(subject: Subject) -> Seen:
    """Run the model once in evaluation mode and find out what it is for.

    Raises:
        CannotJudge: it gives no tensor.
    """
    outputs = subject.outputs()
    target = subject.target
    axis = class_axis(outputs, target) if isinstance(target, Tensor) else None
    try:
        takes = kind(subject, outputs)
    except CannotJudge:
        takes = "unknown"
    return Seen(outputs, task_of(subject, outputs), takes, axis)


def class_axis(outputs: Tensor, target: Tensor) -> int | None:
    """Return the axis of the outputs that runs over the classes; None where there is none.

    (B, C) with (B,), (B, C, H, W) with (B, H, W), (B, T, C) with (B, T) or (B T,).
    """
    if target.is_floating_point() or outputs.dim() < 2:
        return None
    fits = [
        axis
        for axis in range(1, outputs.dim())
        if outputs.shape[:axis] + outputs.shape[axis + 1 :] == target.shape
    ]
    if not fits and math.prod(outputs.shape[:-1]) == target.numel():
        fits = [outputs.dim() - 1]
    limit = int(target.max()) if target.numel() else 0
    able = [axis for axis in fits if outputs.shape[axis] > limit]
    return able[-1] if able else None


def answers(outputs: Tensor, target: Tensor, axis: int, size: float, shift: int = 0) -> Tensor:
    """Return log-probabilities that prefer the target by `size`; with `shift`, another class."""
    count = outputs.shape[axis]
    spot = outputs.shape[:axis] + outputs.shape[axis + 1 :]
    known = ((target.clamp_min(0) + shift) % count).reshape(spot)
    logits = torch.zeros_like(outputs, dtype=torch.float32)
    logits.scatter_(axis, known.unsqueeze(axis), size)
    return logits.log_softmax(axis)


def kind(subject: Subject, outputs: Tensor) -> str:
    """Return `softmax`, `log-probabilities`, `sigmoid`, `values` or `other`.

    Found by what the loss does with made-up outputs, so that a loss written by hand is known too.

    Raises:
        CannotJudge: the loss does not take outputs and target.
    """
    target = subject.tensor_target
    axis = class_axis(outputs, target)
    if axis is not None:
        draw = torch.randn(outputs.shape, generator=stream(5)).to(outputs)
        base, lifted = subject.loss_at(draw), subject.loss_at(draw + 3.0)
        if _near(base, lifted):
            return "softmax"
        twice = base - subject.loss_at(draw + 6.0)
        is_linear = base > lifted and _near(2 * (base - lifted), twice, 1e-3)
        return "log-probabilities" if is_linear else "other"
    if target.shape != outputs.shape and target.numel() != outputs.numel():
        return "other"
    return _element_kind(subject, outputs, target)


def _element_kind(subject: Subject, outputs: Tensor, target: Tensor) -> str:
    goal = target.reshape(outputs.shape).float()
    if bool(((goal == 0) | (goal == 1)).all()):
        right, half = subject.loss_at(30 * (2 * goal - 1)), subject.loss_at(torch.zeros_like(goal))
        if abs(right) < 1e-3 and half > 0.1 and subject.loss_at(goal) > 0.05 * half:
            return "sigmoid"
    if target.is_floating_point() and abs(subject.loss_at(goal)) < 1e-6:
        return "values"
    return "other"


def _near(one: float, other: float, tolerance: float = TOLERANCE) -> bool:
    return math.isfinite(one) and abs(one - other) <= tolerance * max(abs(one), abs(other), 1e-3)


def task_of(subject: Subject, outputs: Tensor) -> str:
    """Return the task that a batch and its loss show: `classify`, `multilabel`, `regress`, …

    A stated task is taken as it is.
    """
    if subject.facts.task:
        return subject.facts.task
    try:
        target = subject.tensor_target
        if class_axis(outputs, target) is not None:
            return "classify"
        found = kind(subject, outputs)
    except CannotJudge:
        return "other"
    if found == "sigmoid":
        return "multilabel"
    return "regress" if target.is_floating_point() else "other"
