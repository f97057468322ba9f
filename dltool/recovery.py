"""How a session goes on after a step that failed: divide, leave out, roll back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import nn

from dltool import checkpoint, memory, position
from dltool.errors import CheckpointError, Diverged, DltoolError, OutOfMemory

if TYPE_CHECKING:
    from dltool.training import Session


def divide(active: Session, length: int, smallest: int, error: DltoolError) -> None:
    """Let batches come in twice as many pieces from now on, also when the run is resumed.

    Args:
        length: samples of the piece that did not fit.
        smallest: fewest samples of a piece.

    Raises:
        OutOfMemory: the piece cannot be divided any more.
    """
    memory.release(active.settings.device)
    if length < 2 * smallest:
        count = "one sample does" if length == 1 else f"{length} samples do"
        message = f"{count} not fit into memory: {error.message}"
        raise OutOfMemory(error.code, message, cure=error.cure)
    active.pieces *= 2
    active.run.update(memory={"pieces": active.pieces, "since_step": active.global_step})
    active.console.warn(
        f"memory ran out at step {active.global_step + 1}: batches now go in {active.pieces} "
        f"pieces, of {-(-length // 2)} samples at most; the effective batch stays the same"
    )


def leave_out(active: Session) -> None:
    """Undo what the batches of a bad step have changed, except torch's random stream.

    Raises:
        Diverged: too many steps in a row were bad.
    """
    active.boundary.rewind_buffers()
    _, active.samples, active.loss.count, active.loss.total = active.boundary.extra
    active.nan.skip(active.global_step + 1)
    active.console.event("skipped", step=active.global_step + 1, skipped=active.nan.skipped)
    if active.nan.in_row == 1:
        active.console.warn(f"step {active.global_step + 1} is not finite and was left out")


def roll_back(active: Session, error: Diverged) -> None:
    """Go back to the last checkpoint, with half the learning rate from there on.

    Raises:
        Diverged: `error`, when the run has gone back often enough or there is no checkpoint.
    """
    active.nan.refuse_more_rollbacks(error)
    at = active.global_step
    active.rewind()
    try:
        position.restore(active, keep_best=True)
    except CheckpointError:
        raise error from None
    active.nan.rollbacks.append({"at": at, "to": active.global_step})
    active.rate_scale = active.nan.rate_scale(active.global_step)
    active.run.update(rollbacks=active.nan.rollbacks)
    active.console.warn(
        f"{error.message}: went back to step {active.global_step}; the learning rate is now "
        f"{active.rate_scale:g} times the schedule's"
    )


def gradients_are_good(active: Session) -> bool:
    """Clip the gradients when that is wanted; tell whether the step is to be made."""
    if active.nan.group_is_bad:
        return False
    looks = active.nan.kind == "skip" and not active.scaler.is_enabled()
    if not active.settings.clip and not looks:
        return True
    active.scaler.unscale_(active.optimizer)
    limit = active.settings.clip or math.inf
    norm = nn.utils.clip_grad_norm_(active.model.parameters(), limit)
    active.nan.group_is_bad = looks and not math.isfinite(norm.item())
    return not active.nan.group_is_bad


def refuse_non_finite(active: Session, values: Mapping[str, float]) -> None:
    """Refuse to end an epoch whose training loss, measures or weights are not finite.

    Raises:
        Diverged: E701 or E702.
    """
    for name, value in values.items():
        if not math.isfinite(value):
            text = f"{name} became {value} after epoch {active.epoch + 1}"
            raise Diverged("E701", text, cure=cure(active))
    if active.loss.count and not math.isfinite(active.loss.value):
        raise Diverged("E701", f"the training loss became {active.loss.value}", cure=cure(active))
    checkpoint.refuse_non_finite(checkpoint.unwrap(active.model).state_dict())


def cure(active: Session) -> str:
    """Return what helps against divergence."""
    return f"lower --lr (now {active.rate:.2g}) or set --clip 1"
