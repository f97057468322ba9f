"""Preflight on one batch of a classifier: loss, gradients, optimizer, batch independence.

Each guard looks, and puts back bit for bit what it touched: weights, buffers, gradients, modes and
random streams.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dltool import rng
from dltool.guards.findings import Finding

Loss = Callable[[Tensor, Tensor], Tensor]
INIT_LOSS_LIMITS = (0.5, 3.0)
INDEPENDENCE_LIMIT = 1e-4


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put back everything that a check may change in the model and in the random streams."""
    device = next(model.parameters()).device
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    modes = {module: module.training for module in model.modules()}
    gradients = {parameter: parameter.grad for parameter in model.parameters()}
    streams = rng.capture(device)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, value in model.state_dict().items():
                value.copy_(state[name])
        for module, training in modes.items():
            module.training = training
        for parameter, gradient in gradients.items():
            parameter.grad = gradient
        rng.restore(streams, device)


def check_classifier(
    model: nn.Module,
    optimizer: Optimizer,
    loss: Loss,
    inputs: Tensor,
    labels: Tensor,
    num_classes: int,
) -> list[Finding]:
    """Run the preflight on one batch.

    Args:
        loss: takes logits (B, C) and labels (B,), returns the scalar that is trained on.
        inputs: (B, ...) as the model takes them.
        labels: (B,) integers in [0, C).
    """
    with untouched(model):
        found = [
            *_optimizer_coverage(model, optimizer),
            *_outputs(model, loss, inputs, labels, num_classes),
            *_gradients(model, loss, inputs, labels),
        ]
        if len(inputs) > 1 and inputs.is_floating_point() | (inputs.dtype == torch.uint8):
            found += _batch_independence(model, inputs)
    return found


def _optimizer_coverage(model: nn.Module, optimizer: Optimizer) -> list[Finding]:
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    ids = {id(parameter) for parameter in held}
    names = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and id(parameter) not in ids
    ]
    foreign = ids - {id(parameter) for parameter in model.parameters()}
    if not names and not foreign and len(ids) == len(held):
        return []
    problem = f"{len(names)} trainable parameters are in no group ({', '.join(names[:3])})"
    if not names:
        problem = (
            f"{len(foreign)} parameters are not the model's" if foreign else "some occur twice"
        )
    return [
        Finding(
            "G-P07",
            "fail",
            f"the optimizer does not hold the model's parameters: {problem}",
            "build the optimizer after the model is complete",
        )
    ]


def _outputs(
    model: nn.Module, loss: Loss, inputs: Tensor, labels: Tensor, num_classes: int
) -> list[Finding]:
    model.eval()
    with torch.no_grad():
        logits = model(inputs).float()
        if logits.shape != (len(inputs), num_classes):
            return [
                Finding(
                    "G-P03",
                    "fail",
                    f"the model gives {tuple(logits.shape)} for {len(inputs)} samples of "
                    f"{num_classes} classes",
                    f"let its last layer give ({len(inputs)}, {num_classes})",
                )
            ]
        sums_to_one = bool(((logits.sum(1) - 1).abs() < 1e-3).all()) and bool((logits >= 0).all())
        model.train()
        first = float(loss(model(inputs).float(), labels)) if len(inputs) > 1 else math.nan
    if sums_to_one:
        return [
            Finding(
                "G-P01",
                "fail",
                "the outputs are probabilities already (rows are >= 0 and sum to 1), and the "
                "cross-entropy takes a softmax itself: the loss cannot fall below "
                f"{math.log(1 + (num_classes - 1) / math.e):.4f}",
                "remove the softmax from the model",
            )
        ]
    return _first_loss(first, num_classes)


def _first_loss(first: float, num_classes: int) -> list[Finding]:
    chance = math.log(num_classes)
    low, high = INIT_LOSS_LIMITS
    if math.isnan(first) or low <= first / chance <= high:
        return []
    return [
        Finding(
            "G-P05",
            "warn",
            f"the first loss is {first:.3f}, {first / chance:.1f} times that of guessing "
            f"({chance:.3f}; usual {low} to {high} times)",
            "look at the initialisation of the last layer and at the scale of the inputs",
        )
    ]


def _gradients(model: nn.Module, loss: Loss, inputs: Tensor, labels: Tensor) -> list[Finding]:
    model.train()
    model.zero_grad(set_to_none=True)
    if len(inputs) < 2:
        return []
    value = loss(model(inputs).float(), labels)
    if not value.requires_grad:
        message = "the loss does not depend on any trainable parameter"
        return [Finding("G-P06", "fail", message, "look for detach or no_grad in the model")]
    value.backward()
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    without = [name for name, parameter in trained if parameter.grad is None]
    broken = [name for name, p in trained if p.grad is not None and not p.grad.isfinite().all()]
    found = []
    if without:
        found.append(
            Finding(
                "G-P06",
                "fail",
                f"{len(without)} trainable parameters get no gradient: {', '.join(without[:3])}",
                "use these layers in forward, or freeze them",
            )
        )
    if broken:
        found.append(
            Finding(
                "G-P06",
                "fail",
                f"the first gradient of {broken[0]} is not finite",
                "look for NaN in the data and for log or sqrt of 0 in the model",
            )
        )
    return found


def _batch_independence(model: nn.Module, inputs: Tensor) -> list[Finding]:
    """Replace sample 0 by noise: in evaluation mode no other output may move."""
    model.eval()
    generator = torch.Generator().manual_seed(7919)
    noise = torch.randint(0, 256, inputs[:1].shape, generator=generator)
    changed = inputs.clone()
    changed[:1] = noise.to(inputs)
    with torch.no_grad():
        before, after = model(inputs).float()[1:], model(changed).float()[1:]
    scale = max(float(before.abs().max()), 1e-12)
    moved = float((before - after).abs().max()) / scale
    if moved <= INDEPENDENCE_LIMIT:
        return []
    return [
        Finding(
            "G-P09",
            "fail",
            f"changing one image of a batch moves the outputs of others by {moved:.2g} of their "
            f"scale (limit {INDEPENDENCE_LIMIT:g})",
            "look for a layer that mixes the batch axis: a wrong reshape, batch_first, softmax(0)",
        )
    ]
