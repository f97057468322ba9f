"""More of G-P04: has the loss a lowest value, and does it score every class?"""

from __future__ import annotations

import torch
from torch import Tensor

from dltool.guards.findings import Clean, Finding, NotJudged, Verdict
from dltool.guards.losses import Seen
from dltool.guards.subject import Subject, stream

SIZES = (10.0, 100.0, 1000.0)
DEEP = -50.0


def bottom(subject: Subject, seen: Seen) -> Verdict:
    """G-P04: does the loss fall without end, or leave a class out?"""
    target = subject.tensor_target
    if seen.axis is not None:
        return _scored(subject, seen, target, seen.axis)
    if target.numel() != seen.outputs.numel():
        return NotJudged("G-P04", "output and target differ in size")
    return _endless(subject, target.reshape(seen.outputs.shape).float())


def _endless(subject: Subject, goal: Tensor) -> Verdict:
    """Find a loss for shares between 0 and 1 that gets other targets: it has no lowest value."""
    low, high = float(goal.min()), float(goal.max())
    if low >= 0 and high <= 1:
        return Clean("G-P04")
    for way in (torch.ones_like(goal), -torch.ones_like(goal), (goal - 0.5).sign()):
        losses = [subject.loss_at(size * way) for size in SIZES]
        if losses[2] < losses[1] < losses[0] < 0 and losses[2] < DEEP:
            return Finding(
                "G-P04",
                "fail",
                f"the loss falls without end (to {losses[2]:.3g} for outputs of {SIZES[2]:g}): the "
                f"targets run from {low:g} to {high:g}, and it takes shares between 0 and 1",
                "number the two classes 0 and 1, or use another loss for values",
                measured=losses[2],
                limit=0.0,
            )
    return Clean("G-P04")


def _scored(subject: Subject, seen: Seen, target: Tensor, axis: int) -> Verdict:
    """Find a class whose samples the loss leaves out, by an ignored index or a weight of 0."""
    if target.dim() != 1 or subject.loss is None:
        return NotJudged("G-P04", "targets of one class a sample are needed")
    leaf = torch.randn(seen.outputs.shape, generator=stream(6)).to(seen.outputs).requires_grad_()
    subject.loss(leaf, target).backward()
    if leaf.grad is None:
        return NotJudged("G-P04", "the loss does not depend on the outputs")
    per_sample = leaf.grad.abs().sum(axis)
    for label in target.unique().tolist():
        rows = target == label
        if label != subject.facts.ignore_index and not bool(per_sample[rows].any()):
            return Finding(
                "G-P04",
                "fail",
                f"the loss leaves class {label} out: none of its {int(rows.sum())} samples has a "
                "gradient",
                "look at ignore_index and at the class weights",
                measured=0.0,
                limit=0.0,
                place=f"class {label}",
            )
    return Clean("G-P04")
