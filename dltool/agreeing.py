"""What the ranks of a session decide together: a step, its gradients, a checkpoint, the end.

A rank that decided alone would leave the others waiting. Whatever may differ between them, a
signal, the clock, a loss that is not finite, memory that ran out, is asked of all at one moment.
"""

from __future__ import annotations

import math
import signal
import time
from typing import TYPE_CHECKING

from torch import Tensor

from dltool import endings, ranks, recovery
from dltool.errors import Diverged, Interrupted, OutOfMemory

if TYPE_CHECKING:
    from dltool.training import Session


def between_steps(active: Session) -> None:
    """Save when it is time; stop when a signal or the time limit asks for it.

    Raises:
        Interrupted: a rank got a signal.
        OutOfTime: `max_time` has passed.
    """
    endings.rehearse(active)
    now, first = time.monotonic(), active.team.is_first
    stop, late, due, tell = active.team.highest(
        [
            _asked_to_stop(active),
            first and now >= active.deadline and active.steps_here > 0,
            active.watch.save_requested or (first and active.saves.is_due(now, active.global_step)),
            first and active.loss.count > 0 and active.teller.is_due(now),
        ]
    )
    if late and not stop:
        raise endings.OutOfTime
    if due and not stop:
        try:
            active.save()
        except Diverged as error:
            active.diverged(error)
        # a signal that came while saving need not wait for another step
        (stop,) = active.team.highest([_asked_to_stop(active)])
    if stop:
        raise Interrupted(stop, "interrupted")
    if tell:
        loss = active.team.total(active.loss)
        active.teller.tell(loss, active.global_step, active.epoch, now)


def _asked_to_stop(active: Session) -> int:
    return active.watch.pending or (signal.SIGTERM if ranks.is_orphan() else 0)


def step(active: Session) -> bool:
    """Bring the gradients of all ranks together; return whether there is a step to make.

    Raises:
        Diverged: the loss of a rank is not finite.
    """
    team = active.team
    if team.is_alone:
        return True
    trained = _trained(active)
    has_gradient = [weight.grad is not None for weight in trained]
    failed, bad, *used = team.highest([active.has_failed, active.nan.group_is_bad, *has_gradient])
    if failed:
        active.out_of_memory(OutOfMemory("E801", "memory ran out on a rank"))
        return False
    if bad and active.nan.kind != "skip":
        where = f"on a rank at step {active.global_step + 1}"
        active.diverged(
            Diverged("E701", f"the loss is not finite {where}", cure=recovery.cure(active))
        )
        return False
    active.nan.group_is_bad = bool(bad)
    if not bad:
        team.add_gradients([each for each, use in zip(trained, used, strict=True) if use])
    return True


def _trained(active: Session) -> list[Tensor]:
    groups = active.optimizer.param_groups
    weights = [*active.model.parameters(), *(each for group in groups for each in group["params"])]
    return [weight for weight in dict.fromkeys(weights) if weight.requires_grad]


def take(active: Session, loss: Tensor, count: int) -> None:
    """Count the loss of a part of a batch; a bad one is told to the others at the step's end."""
    kept_waiting = active.nan.kind == "skip" or active.settings.device.type == "cpu"
    if kept_waiting or active.batch % active.settings.check_every == 0:
        active.nan.group_is_bad |= not math.isfinite(loss.item())
    active.loss.add(active.team.as_mean(loss.detach()), active.team.own(count))


def after_epoch(active: Session) -> None:
    """Save when it is time; let a signal that came during the evaluation stop the ranks.

    Raises:
        Interrupted: a rank got one, and there are several; a single one stops by itself.
    """
    due = active.team.is_first and active.saves.is_due(time.monotonic(), active.global_step)
    stop = 0 if active.team.is_alone else _asked_to_stop(active)
    stop, save = active.team.highest([stop, due])
    if save:
        active.save()
    if stop:
        raise Interrupted(stop, "interrupted")


def last_chance(active: Session) -> None:
    """Let a signal that came during the last evaluation still stop the ranks.

    Raises:
        Interrupted: a rank got one.
    """
    if not active.team.is_alone and (stop := active.team.highest([_asked_to_stop(active)])[0]):
        raise Interrupted(stop, "interrupted")
