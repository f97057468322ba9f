"""Look at one batch before the first step, and leave everything as it was."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dltool.guards.classifier import untouched
from dltool.guards.findings import Finding
from dltool_bert_finetune.model import forward
from dltool_bert_finetune.targets import Targets
from dltool_bert_finetune.tasks import Loss

PAD_LIMIT = 1e-4
FIRST_LOSS = (0.4, 3.0)
SAMPLE = 8


def check(
    network: nn.Module,
    optimizer: Optimizer,
    loss: Loss,
    batch: Mapping[str, Tensor],
    pad: int,
    targets: Targets,
) -> list[Finding]:
    """Return what is wrong with network, optimizer and loss on a batch.

    Args:
        loss: takes logits and labels, returns the scalar that is trained on.
        batch: as the training gives it; the first samples are used.
    """
    few = {name: part[:SAMPLE] for name, part in batch.items()}
    with untouched(network):
        return [
            *_coverage(network, optimizer),
            *_first_loss(network, loss, few, targets),
            *_gradients(network, loss, few),
            *_padding(network, few, pad),
        ]


def _coverage(network: nn.Module, optimizer: Optimizer) -> list[Finding]:
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    left = [
        name
        for name, parameter in network.named_parameters()
        if parameter.requires_grad and held.count(id(parameter)) != 1
    ]
    if not left:
        return []
    message = f"{len(left)} trained weights are not in exactly one group ({', '.join(left[:3])})"
    return [Finding("G-P07", "fail", message, "report this: it is a fault of dltool")]


def _first_loss(
    network: nn.Module, loss: Loss, batch: Mapping[str, Tensor], targets: Targets
) -> list[Finding]:
    network.eval()
    with torch.no_grad():
        value = float(loss(forward(network, batch).float(), batch["labels"]))
    if not math.isfinite(value):
        message = f"the first loss is {value}"
        return [Finding("G-P06", "fail", message, "use another model; these weights are broken")]
    chance = math.log(len(targets.classes)) if targets.task in ("classify", "token") else 0.0
    low, high = FIRST_LOSS
    if chance and not low <= value / chance <= high:
        message = f"the first loss is {value:.3f}; guessing {len(targets.classes)} classes gives "
        cure = "a head that was trained already explains it; else look at the labels"
        return [Finding("G-P05", "warn", f"{message}{chance:.3f}", cure)]
    return []


def _gradients(network: nn.Module, loss: Loss, batch: Mapping[str, Tensor]) -> list[Finding]:
    network.train()
    network.zero_grad(set_to_none=True)
    loss(forward(network, batch).float(), batch["labels"]).backward()
    gradients = {
        name: parameter.grad
        for name, parameter in network.named_parameters()
        if parameter.requires_grad
    }
    broken = [
        name
        for name, gradient in gradients.items()
        if gradient is not None and not bool(gradient.isfinite().all())
    ]
    if broken:
        message = f"the first gradient of {broken[0]} is not finite"
        return [Finding("G-P06", "fail", message, "use another model or --precision fp32")]
    without = [name for name, gradient in gradients.items() if gradient is None]
    if without and len(without) > len(gradients) / 2:
        message = f"{len(without)} of {len(gradients)} trained weights get no gradient"
        return [Finding("G-P06", "fail", message, "use another model, or freeze fewer layers")]
    return []


def _padding(network: nn.Module, batch: Mapping[str, Tensor], pad: int) -> list[Finding]:
    """Put more padding behind each text: in evaluation mode no output may move."""
    network.eval()
    wider = {}
    for name, part in batch.items():
        value = pad if name == "input_ids" else 0
        is_row = name != "labels"
        wider[name] = nn.functional.pad(part, (0, 3), value=value) if is_row else part
    longest = getattr(network.config, "max_position_embeddings", None) or math.inf
    if wider["input_ids"].shape[1] > longest - 2:
        return []
    with torch.no_grad():
        before, after = forward(network, batch).float(), forward(network, wider).float()
    if before.ndim == 3:  # (B, T, outputs): of each token that is no padding
        is_text = batch["attention_mask"] != 0
        before, after = before[is_text], after[:, : is_text.shape[1]][is_text]
    scale = max(float(before.abs().max()), 1e-6)
    moved = float((before - after).abs().max()) / scale
    if moved <= PAD_LIMIT:
        return []
    message = (
        f"three more padding tokens move the outputs by {moved:.2g} of their scale (limit "
        f"{PAD_LIMIT:g}): the model does not mask its padding"
    )
    return [Finding("G-P11", "fail", message, "use another model, or --batch-size 1")]
