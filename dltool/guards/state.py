"""Guards on what a model remembers: G-P08 (frozen or unsaved state) and G-P19 (round trip)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dltool.guards.findings import Clean, Finding, NotJudged, Verdict
from dltool.guards.subject import Subject, moved
from dltool.guards.untouched import OWN

PARITY = 1e-6
Norm = nn.modules.batchnorm._BatchNorm


def frozen(subject: Subject, modes: dict[str, bool]) -> list[Verdict]:
    """G-P08: is fresh BatchNorm frozen, does frozen state move, is moving state not saved?

    Args:
        modes: the training flags of all modules as the model came.
    """
    found = [
        each
        for each in (_fresh(subject, modes), _drifting(subject), _unsaved(subject))
        if each is not None
    ]
    return [*found] or [Clean("G-P08")]


def _fresh(subject: Subject, modes: dict[str, bool]) -> Finding | None:
    """Find BatchNorm that would train in evaluation mode with statistics it never measured."""
    subject.model.train()
    held = [
        name
        for name, module in subject.model.named_modules()
        if isinstance(module, Norm)
        and module.running_mean is not None
        and module.running_var is not None
        and (not module.training or (modes.get("", True) and not modes.get(name, True)))
        and not bool(module.running_mean.any())
        and bool((module.running_var == 1).all())
    ]
    if not held:
        return None
    return Finding(
        "G-P08",
        "fail",
        f"{len(held)} fresh batch normalisations are in evaluation mode while training "
        f"({held[0]}): they pass everything through and never measure",
        "leave them in train mode, or load weights with measured statistics",
        measured=float(len(held)),
        limit=0.0,
        place=held[0],
    )


def _drifting(subject: Subject) -> Finding | None:
    """Find frozen BatchNorm whose running statistics a training step moves."""
    watched = {
        name: (module, module.running_mean.clone())
        for name, module in subject.model.named_modules()
        if isinstance(module, Norm)
        and module.running_mean is not None
        and module.weight is not None
        and not module.weight.requires_grad
    }
    if not watched or not subject.trained:
        return None
    subject.outputs(training=True)
    moving = [
        name
        for name, (module, before) in watched.items()
        if module.running_mean is not None and not torch.equal(before, module.running_mean)
    ]
    if not moving:
        return None
    return Finding(
        "G-P08",
        "warn",
        f"{len(moving)} frozen batch normalisations go on measuring in train mode ({moving[0]}): "
        "the frozen part does not stay what it was",
        "put the frozen part in eval mode after each model.train()",
        measured=float(len(moving)),
        limit=0.0,
        place=moving[0],
    )


def _plain_tensors(model: nn.Module) -> dict[tuple[str, str], Tensor]:
    return {
        (where, name): value
        for where, module in model.named_modules()
        for name, value in vars(module).items()
        if name not in OWN and isinstance(value, Tensor)
    }


def _saved(model: nn.Module) -> list[Tensor]:
    return [each for each in model.state_dict().values() if isinstance(each, Tensor)]


def _unsaved(subject: Subject) -> Finding | None:
    """Find plain tensors that a training step moves and that evaluation then depends on."""
    model = subject.model
    before = {key: value.detach().clone() for key, value in _plain_tensors(model).items()}
    saved = [each.detach().clone() for each in _saved(model)]
    subject.outputs(training=True)
    with torch.no_grad():
        for each, value in zip(_saved(model), saved, strict=True):
            each.copy_(value)
    after = _plain_tensors(model)
    moving = [
        key
        for key, value in after.items()
        if key in before
        and value.shape == before[key].shape
        and value.is_floating_point()
        and not torch.equal(value, before[key])
    ]
    if not moving:
        return None
    one = subject.outputs()
    modules = dict(model.named_modules())
    for where, name in moving:
        setattr(modules[where], name, before[where, name].clone())
    change = moved(one, subject.outputs())
    if change <= PARITY:
        return None
    where, name = moving[0]
    place = f"{where}.{name}".lstrip(".")
    return Finding(
        "G-P08",
        "fail",
        f"{place} changes while training and is not in state_dict: a saved model answers otherwise "
        f"by {change:.2g} of its outputs' scale",
        f'self.register_buffer("{name}", …) in place of self.{name} = …',
        measured=change,
        limit=PARITY,
        place=place,
    )


def round_trip(subject: Subject) -> Verdict:
    """G-P19: does a new model with the saved weights answer alike?"""
    if subject.build is None or subject.forward is not None:
        return NotJudged("G-P19", "no build= that makes the model anew")
    # what training moved, and what nobody saved, has to show
    subject.outputs(training=True)
    one = subject.outputs()
    other = subject.build().to(subject.device)
    result = other.load_state_dict(subject.model.state_dict(), strict=False)
    strange = [*result.missing_keys, *result.unexpected_keys]
    two = Subject(other, subject.batch, subject.facts).outputs()
    change = moved(one, two) if one.shape == two.shape else float("inf")
    if change <= PARITY and not strange:
        return Clean("G-P19", change)
    keys = f"; keys that do not fit: {', '.join(strange[:3])}" if strange else ""
    return Finding(
        "G-P19",
        "fail",
        f"a new model with these weights answers otherwise by {change:.2g} of its outputs' scale "
        f"(limit {PARITY:g}){keys}",
        "register_buffer what the outputs depend on; build the model from stored settings",
        measured=change,
        limit=PARITY,
    )
