"""G-P11: padding may move neither the outputs of real tokens nor the loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dltool.guards.batch_parts import Part, noise, parts, replaced
from dltool.guards.findings import Clean, Finding, NotJudged, Verdict
from dltool.guards.subject import Subject, moved, stream

LIMIT = 1e-4


def padding(subject: Subject) -> list[Verdict]:
    """G-P11: put other values under the mask, or more padding behind; nothing real may move."""
    found = [each for each in (_outputs(subject), _loss(subject)) if each is not None]
    bad = [each for each in found if isinstance(each, Finding)]
    if bad:
        return [*bad]
    if any(isinstance(each, Clean) for each in found):
        return [Clean("G-P11")]
    return found[:1] or [NotJudged("G-P11", "no padding and no mask is known: state pad=")]


def pad_of(subject: Subject) -> tuple[int | None, bool]:
    """Return the padding's id, and whether it was stated rather than read off an embedding."""
    if subject.facts.pad is not None:
        return subject.facts.pad, True
    for module in subject.model.modules():
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            return int(module.padding_idx), False
    return None, False


def _outputs(subject: Subject) -> Verdict | None:
    masks = [part for part in subject.role("mask") if part.tensor.dim() == 2]
    lengths = subject.role("lengths")
    sequences = [part for part in subject.role("content") if part.tensor.dim() >= 2]
    if not sequences:
        return None
    real = _real(subject, masks, lengths)
    pad, is_stated = pad_of(subject)
    tokens = [part for part in sequences if part.is_tokens]
    if pad is not None and tokens:
        # other ids in their place would be text to a model that knows padding by its id
        return _behind(subject, tokens[0], pad, is_stated or real is not None)
    if real is None or bool(real.all()):
        return None
    return _under_the_mask(subject, sequences, real)


def _real(subject: Subject, masks: list[Part], lengths: list[Part]) -> Tensor | None:
    """Return which places are real, (B, T): a text begins with something real."""
    if masks:
        mask = masks[0].tensor
        first = mask[:, 0]
        return mask == first.mode().values if mask.dtype != torch.bool else mask == first[0]
    if not lengths:
        return None
    sizes = lengths[0].tensor
    for part in subject.role("content"):
        if part.tensor.dim() >= 2 and len(part.tensor) == len(sizes):
            places = torch.arange(part.tensor.shape[1], device=sizes.device)
            return places[None] < sizes[:, None]
    return None


def _under_the_mask(subject: Subject, sequences: list[Part], real: Tensor) -> Verdict:
    batch = subject.batch
    for number, part in enumerate(sequences):
        if part.tensor.shape[:2] != real.shape:
            continue
        other = noise(part.tensor, stream(number))
        keep = real.reshape(*real.shape, *[1] * (part.tensor.dim() - 2))
        batch = replaced(batch, part.path, torch.where(keep, part.tensor, other))
    before, after = _at_real(subject, subject.batch, real), _at_real(subject, batch, real)
    change = moved(before, after)
    if change <= LIMIT:
        return Clean("G-P11", change)
    return _finding(
        "fail",
        f"other values at masked places move the outputs of real ones by {change:.2g} of their "
        f"scale (limit {LIMIT:g}): the mask is not used, or does not close",
        change,
    )


def _at_real(subject: Subject, batch: Any, real: Tensor) -> Tensor:
    outputs = subject.outputs(batch)
    if outputs.dim() >= 3 and outputs.shape[:2] == real.shape:
        return outputs[real]
    return outputs


def _behind(subject: Subject, part: Part, pad: int, is_stated: bool) -> Verdict:
    """Compare the shorter texts of the batch with the same texts and less or more padding."""
    tokens = part.tensor
    sizes = (tokens != pad).long().mul(torch.arange(1, tokens.shape[1] + 1, device=tokens.device))
    sizes = sizes.amax(1)
    short = sizes < tokens.shape[1]
    if not bool(short.any()):
        return NotJudged("G-P11", "no text of the batch is padded at its end")
    longest = max(int(sizes[short].max()), 1)
    wide = _rows(subject.batch, short, tokens.shape[1], tokens.shape[1])
    narrow = _rows(subject.batch, short, tokens.shape[1], longest)
    before, after = subject.outputs(wide), subject.outputs(narrow)
    if before.dim() >= 3 and before.shape[1] == tokens.shape[1]:
        real = (tokens[short] != pad)[:, :longest]
        before, after = before[:, :longest][real], after[real]
    if before.shape != after.shape:
        return NotJudged("G-P11", "the outputs change their shape with the padding")
    change = moved(before, after)
    if change <= LIMIT:
        return Clean("G-P11", change)
    return _finding(
        "fail" if is_stated else "warn",
        f"{tokens.shape[1] - longest} places of padding (id {pad}) less move the outputs by "
        f"{change:.2g} of their scale (limit {LIMIT:g})",
        change,
    )


def _rows(batch: Any, rows: Tensor, width: int, kept: int) -> Any:
    """Return some samples of a batch, with `kept` of `width` places."""
    for part in parts(batch):
        value = part.tensor
        if value.dim() and len(value) == len(rows):
            value = value[rows]
            if value.dim() >= 2 and value.shape[1] == width:
                value = value[:, :kept]
        batch = replaced(batch, part.path, value)
    return batch


def _loss(subject: Subject) -> Verdict | None:
    """Move the outputs where the target is padding: the loss may not notice."""
    target, pad = subject.target, subject.facts.pad
    is_text = isinstance(target, Tensor) and target.dim() == 2 and not target.is_floating_point()
    if pad is None or not is_text or subject.loss is None:
        return None
    padded = target == pad
    outputs = subject.outputs()
    if outputs.shape[:2] != target.shape or not bool(padded.any()) or bool(padded.all()):
        return None
    draw = torch.randn(outputs.shape, generator=stream(2)).to(outputs)
    other = torch.where(padded[..., None], outputs + draw, outputs)
    first, second = subject.loss_at(outputs), subject.loss_at(other)
    change = abs(first - second) / max(abs(first), 1e-12)
    if change <= 1e-6:
        return Clean("G-P11", change)
    share = float(padded.float().mean())
    return Finding(
        "G-P11",
        "fail",
        f"predictions at padding move the loss by {change:.2g} of its size: {share:.0%} of the "
        "targets are padding, and the model is paid for guessing them",
        f"give the loss ignore_index={pad}, or mean over real tokens alone",
        measured=change,
        limit=1e-6,
    )


def _finding(severity: str, message: str, change: float) -> Finding:
    cure = "mask keys, take the state at the last real token, divide means by the lengths"
    return Finding("G-P11", severity, message, cure, measured=change, limit=LIMIT)
