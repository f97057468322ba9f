"""Preflight on one batch of a classifier."""

from __future__ import annotations

from torch import Tensor, nn
from torch.optim import Optimizer

from dltool.guards.facts import Facts
from dltool.guards.findings import Finding
from dltool.guards.preflight import check
from dltool.guards.subject import Loss
from dltool.guards.untouched import untouched as untouched


def check_classifier(
    model: nn.Module,
    optimizer: Optimizer,
    loss: Loss,
    inputs: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    full: bool = False,
) -> list[Finding]:
    """Run the preflight on one batch; everything that it touches is put back.

    Args:
        loss: takes logits (B, C) and labels (B,), returns the scalar that is trained on.
        inputs: (B, ...) as the model takes them.
        labels: (B,) integers in [0, C).
        full: also learn the batch by heart.
    """
    facts = Facts(task="classify", num_classes=num_classes)
    batch = (inputs, labels)
    report = check(model, batch, loss=loss, optimizer=optimizer, facts=facts, full=full)
    return list(report.findings)
