"""The gradient of every weight after one backward pass, in numbers that checks can share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dltool.guards.subject import SEED, Subject, shake

MATRICES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Slope:
    """What one backward pass left at one weight.

    Attributes:
        size: root mean square of the gradient; None without a gradient.
        per_weight: `size` over the weight's own root mean square.
        dead: share of a layer's units (rows) with a gradient of exactly 0; None for no layer.
        units: rows of the weight.
    """

    name: str
    size: float | None
    is_finite: bool
    per_weight: float
    dead: float | None
    units: int = 0

    @property
    def is_zero(self) -> bool:
        """Whether there is a gradient and it is exactly 0."""
        return self.size == 0


@dataclass(frozen=True)
class Slopes:
    """All slopes of a model: with its own weights, and with each weight a little moved.

    Attributes:
        shaken: the same with noise on every weight, three times; what starts at 0 is not 0 there.
        called: the modules that the forward pass called.
        strangers: shapes of weights that take part, but stand in plain lists of the model.
        loss: the loss; `needs_grad` whether it hangs on any weight.
    """

    own: dict[str, Slope]
    shaken: tuple[dict[str, Slope], ...]
    called: frozenset[str]
    strangers: tuple[str, ...]
    loss: float
    needs_grad: bool


def look(subject: Subject) -> Slopes:
    """Run backward on the batch, as it is and with shaken weights."""
    called: set[str] = set()
    hooks = [
        module.register_forward_hook(lambda *_, name=name: called.add(name))
        for name, module in subject.model.named_modules()
    ]
    try:
        loss = subject.loss_of()
    finally:
        for hook in hooks:
            hook.remove()
    strangers = _strangers(subject, loss)
    value = float(loss.detach())
    if not loss.requires_grad:
        return Slopes({}, (), frozenset(called), strangers, value, False)
    loss.backward()
    own = _measured(subject)
    quiet = [each for each in own.values() if each.size in (None, 0) or (each.dead or 0) > 0.5]
    return Slopes(
        own,
        tuple(_shaken(subject, number) for number in range(3)) if quiet else (),
        frozenset(called),
        strangers,
        value,
        True,
    )


def _shaken(subject: Subject, number: int) -> dict[str, Slope]:
    state = [each.detach().clone() for each in subject.model.parameters()]
    shake(subject.model, number, size=0.2)
    try:
        loss = subject.loss_of(seed=SEED + number)
        if loss.requires_grad:
            loss.backward()
        return _measured(subject)
    finally:
        with torch.no_grad():
            for each, value in zip(subject.model.parameters(), state, strict=True):
                each.copy_(value)


def _measured(subject: Subject) -> dict[str, Slope]:
    layers = {
        f"{name}.weight" if name else "weight"
        for name, module in subject.model.named_modules()
        if isinstance(module, MATRICES)
    }
    return {name: _slope(name, each, name in layers) for name, each in subject.trained}


def _slope(name: str, weight: nn.Parameter, is_layer: bool) -> Slope:
    gradient = weight.grad
    if gradient is None:
        return Slope(name, None, True, 0.0, None)
    if gradient.is_sparse:
        gradient = gradient.coalesce().values()
    dead = None
    if is_layer and len(gradient) > 1:
        dead = float((gradient.flatten(1) == 0).all(1).float().mean())
    size = _rms(gradient)
    own = _rms(weight.detach())
    finite = bool(gradient.isfinite().all())
    units = len(gradient) if gradient.dim() else 0
    return Slope(name, size, finite, size / own if own else 0.0, dead, units)


def _rms(tensor: Tensor) -> float:
    return float(tensor.float().square().mean().sqrt()) if tensor.numel() else 0.0


def _strangers(subject: Subject, loss: Tensor) -> tuple[str, ...]:
    """Return the shapes of weights in plain lists that take part but are not registered."""
    known = {id(each) for each in subject.model.parameters()}
    for optimizer in subject.optimizers:
        known |= {id(each) for group in optimizer.param_groups for each in group["params"]}
    hidden = {
        id(weight): weight
        for module in subject.model.modules()
        for name, value in vars(module).items()
        if not name.startswith("_")
        for weight in _weights_in(value, 3)
    }
    suspects = {number for number in hidden if number not in known}
    if not suspects:
        return ()
    found, seen, todo = [], set(), [loss.grad_fn]
    while todo:
        node: Any = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) in suspects:
            found.append("x".join(map(str, leaf.shape)) or "scalar")
        todo += [following for following, _ in node.next_functions]
    return tuple(found)


def _weights_in(value: object, depth: int) -> Iterator[Tensor]:
    """Yield what could be trained inside a plain attribute: lists and dictionaries of layers."""
    if isinstance(value, nn.Module):
        yield from value.parameters()
    elif isinstance(value, Tensor):
        if value.requires_grad:
            yield value
    elif depth and isinstance(value, list | tuple | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _weights_in(each, depth - 1)
