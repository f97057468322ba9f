"""Look at the model and one batch before the first step, for what ruins translators unseen.

Each check puts back bit for bit what it touched: weights, buffers, gradients, modes and random
streams.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer

from dltool.guards.classifier import untouched
from dltool.guards.findings import Finding
from dltool_seq2seq.data import Batch
from dltool_seq2seq.model import Model, loss_of
from dltool_seq2seq.vocab import BOS, EOS, PAD

LIMIT = 1e-4  # largest change of a logit, as a share of the largest logit
FIRST_LOSS = (0.3, 3.0)


def check(model: Model, optimizer: Optimizer, batch: Batch, vocabulary: int) -> list[Finding]:
    """Return what is wrong with a model, its optimizer and a batch.

    Args:
        vocabulary: number of target tokens V; guessing costs ln V a token.
    """
    findings = check_shift(batch)
    if findings:
        return findings
    small = Batch(*(part[:16] for part in batch))
    with untouched(model):
        for training in (False, True):
            findings += _causal(model, small, training=training)
        findings += _padding(model, small)
        findings += _gradients(model, optimizer, small, vocabulary)
    return findings


def check_shift(batch: Batch) -> list[Finding]:
    """Refuse a decoder that is fed its own label, or a target that holds the begin mark."""
    begins = bool((batch.decoder_input[:, 0] == BOS).all())
    fed, label = batch.decoder_input[:, 1:], batch.target[:, :-1]
    shifted = bool((fed == label).all())
    ends = bool(((batch.target == EOS).sum(1) == 1).all())
    if begins and shifted and ends and not bool((batch.target == BOS).any()):
        return []
    return [
        Finding(
            "G-S02",
            "fail",
            "the decoder's input is not the target moved by one place: it would learn to copy what "
            "it is given and could not write on its own",
            "begin the input with the begin mark, end the target with the end mark",
        )
    ]


def _logits(model: Model, batch: Batch, decoder_input: Tensor, *, training: bool) -> Tensor:
    """Return logits; dropout draws the same numbers at every call."""
    model.train(training)
    torch.manual_seed(7919)
    with torch.no_grad():
        logits: Tensor = model(batch.source, batch.lengths, decoder_input)
    return logits.float()


def _causal(model: Model, batch: Batch, *, training: bool) -> list[Finding]:
    """Change the later half of the decoder's input: the earlier half's logits may not move."""
    size = batch.target.shape[1]
    if size < 2:
        return []
    half = size // 2
    changed = batch.decoder_input.clone()
    changed[:, half:] = (changed[:, half:] + 1).clamp(max=model.spec.target_vocabulary - 1)
    before = _logits(model, batch, batch.decoder_input, training=training)[:, :half]
    after = _logits(model, batch, changed, training=training)[:, :half]
    moved = _moved(before, after)
    if moved <= LIMIT:
        return []
    mode = "training" if training else "evaluation"
    return [
        Finding(
            "G-S03",
            "fail",
            f"in {mode} mode the decoder sees later tokens: changing them moves earlier logits by "
            f"{moved:.2g} of their size (limit {LIMIT:g})",
            "mask the decoder's self-attention causally in both modes",
        )
    ]


def _padding(model: Model, batch: Batch) -> list[Finding]:
    """Add padding to the source: no logit may move."""
    before = _logits(model, batch, batch.decoder_input, training=False)
    longer = Batch(F.pad(batch.source, (0, 3), value=PAD), *batch[1:])
    after = _logits(model, longer, batch.decoder_input, training=False)
    moved = _moved(before, after)
    if moved <= LIMIT:
        return []
    return [
        Finding(
            "G-S05",
            "fail",
            f"three more places of source padding move the logits by {moved:.2g} of their size "
            f"(limit {LIMIT:g})",
            "mask the padding in the encoder and in the attention to it",
        )
    ]


def _moved(before: Tensor, after: Tensor) -> float:
    return float((before - after).abs().max()) / max(float(before.abs().max()), 1e-12)


def _gradients(model: Model, optimizer: Optimizer, batch: Batch, vocabulary: int) -> list[Finding]:
    """Look at the first loss, and at the gradient and the optimizer of every weight."""
    model.train()
    model.zero_grad(set_to_none=True)
    loss = loss_of(model, batch, 0.0)
    loss.backward()
    held = {id(part) for group in optimizer.param_groups for part in group["params"]}
    trained = [(name, part) for name, part in model.named_parameters() if part.requires_grad]
    without = [name for name, part in trained if part.grad is None or not part.grad.any()]
    forgotten = [name for name, part in trained if id(part) not in held]
    findings = []
    # one pair alone may leave a unit's ReLU shut, but no whole tensor
    if without and len(batch.source) > 1:
        findings.append(
            Finding(
                "G-P06",
                "warn",
                f"{len(without)} trainable parameters get no gradient: {', '.join(without[:3])}",
                "use these layers in forward, or freeze them",
            )
        )
    if forgotten:
        findings.append(
            Finding(
                "G-P07",
                "fail",
                f"the optimizer does not hold {', '.join(forgotten[:3])}",
                "build the optimizer after the model is complete",
            )
        )
    # the weights are a batch's own: of a part of it the mean differs by the parts' lengths
    tokens = int((batch.target != PAD).sum())
    first = float(loss.detach()) * len(batch.target) / tokens / float(batch.weight[0])
    return findings + _first_loss(first, math.log(vocabulary))


def _first_loss(first: float, chance: float) -> list[Finding]:
    low, high = FIRST_LOSS
    if low <= first / chance <= high:
        return []
    return [
        Finding(
            "G-P05",
            "warn",
            f"the first loss is {first:.3f} a token, {first / chance:.1f} times that of guessing "
            f"({chance:.3f}; usual {low} to {high} times)",
            "look at the initialisation of embeddings and output, and at --positions and --tied",
        )
    ]
