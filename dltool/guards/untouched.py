"""Let checks do what they like with a model, and put everything back bit for bit afterwards."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dltool import rng

# what every module has by itself; `training` is kept apart
OWN = frozenset(vars(nn.Module()))
PLAIN = (bool, int, float, complex, str, type(None))

Undo = Callable[[], None]


@contextmanager
def untouched(model: nn.Module, optimizers: Sequence[Optimizer] = ()) -> Iterator[None]:
    """Put back everything that a check may change: model, optimizers and random streams.

    Weights, buffers (also those that are not saved), plain attributes, modes, `requires_grad`,
    gradients, the optimizers' states and settings, and the global random streams of Python, NumPy
    and torch. Inside, no weight has a gradient.
    """
    device = device_of(model)
    undo = [
        *[_module(module) for module in model.modules()],
        *[_optimizer(optimizer) for optimizer in optimizers],
        _gradients(model, optimizers),
    ]
    streams = rng.capture(device)
    grad_mode = torch.is_grad_enabled()
    try:
        torch.set_grad_enabled(True)
        yield
    finally:
        torch.set_grad_enabled(grad_mode)
        with torch.no_grad():
            for put_back in undo:
                put_back()
        rng.restore(streams, device)


def device_of(model: nn.Module) -> torch.device:
    """Return where the model's weights are; the CPU for a model without any."""
    tensors = [*model.parameters(), *model.buffers()]
    return tensors[0].device if tensors else torch.device("cpu")


def _module(module: nn.Module) -> Undo:
    training = module.training
    tensors: list[dict[str, Any]] = [dict(module._parameters), dict(module._buffers)]
    values = [_values(held) for held in tensors]
    trained = {name: each.requires_grad for name, each in tensors[0].items() if each is not None}
    attributes = {name: value for name, value in vars(module).items() if name not in OWN}
    kept = {name: _copied(value) for name, value in attributes.items()}

    def undo() -> None:
        module.training = training
        places: list[dict[str, Any]] = [module._parameters, module._buffers]
        for own, held, stored in zip(places, tensors, values, strict=True):
            own.clear()
            own.update(held)
            for name, value in stored.items():
                held[name].data.copy_(value)
        for name, needs in trained.items():
            module._parameters[name].requires_grad_(needs)  # type: ignore[union-attr]
        _restore_attributes(module, attributes, kept)

    return undo


def _values(held: dict[str, Any]) -> dict[str, Tensor]:
    return {name: each.detach().clone() for name, each in held.items() if each is not None}


def _copied(value: object) -> object:
    """Return a copy of what a forward pass may change in place."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if type(value) in (list, dict, set):
        return copy.copy(value)
    return value


def _restore_attributes(
    module: nn.Module, attributes: dict[str, Any], kept: dict[str, object]
) -> None:
    own = vars(module)
    for name in set(own) - set(attributes) - OWN:
        del own[name]
    for name, value in attributes.items():
        stored = kept[name]
        if isinstance(value, Tensor) and isinstance(stored, Tensor):
            with suppress(RuntimeError):  # an expanded or inference tensor cannot be written
                value.data.copy_(stored)
        elif isinstance(value, list) and isinstance(stored, list):
            value[:] = stored
        elif isinstance(value, dict | set) and isinstance(stored, dict | set):
            value.clear()
            value.update(stored)
        own[name] = value


def _gradients(model: nn.Module, optimizers: Sequence[Optimizer]) -> Undo:
    held = {id(each): each for each in model.parameters()}
    for optimizer in optimizers:
        held.update(
            {id(each): each for group in optimizer.param_groups for each in group["params"]}
        )
    gradients = [(each, each.grad) for each in held.values()]
    foreign = [each for each in held.values() if id(each) not in set(map(id, model.parameters()))]
    values = [(each, each.detach().clone()) for each in foreign]
    for each in held.values():
        each.grad = None

    def undo() -> None:
        for each, gradient in gradients:
            each.grad = gradient
        for each, value in values:
            each.data.copy_(value)

    return undo


def _optimizer(optimizer: Optimizer) -> Undo:
    groups = [
        {name: _copied(value) for name, value in group.items() if name != "params"}
        for group in optimizer.param_groups
    ]
    states = {each: dict(state) for each, state in optimizer.state.items()}
    values = {
        each: {name: _copied(value) for name, value in state.items()}
        for each, state in optimizer.state.items()
    }
    plain = {name: value for name, value in vars(optimizer).items() if isinstance(value, PLAIN)}

    def undo() -> None:
        for group, kept in zip(optimizer.param_groups, groups, strict=True):
            for name, value in kept.items():
                now = group.get(name)
                if isinstance(now, Tensor) and isinstance(value, Tensor):
                    now.copy_(value)
                else:
                    group[name] = value
        optimizer.state.clear()
        for each, state in states.items():
            for name, value in values[each].items():
                if isinstance(value, Tensor):
                    state[name].copy_(value)
                else:
                    state[name] = value
            optimizer.state[each] = state
        for name in [n for n, v in vars(optimizer).items() if isinstance(v, PLAIN)]:
            if name not in plain:
                delattr(optimizer, name)
        vars(optimizer).update(plain)

    return undo
