"""Write a session's whole state as a checkpoint, and put a session back to one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dltool import checkpoint, files, keeping, rng
from dltool import tensors as tensor_files
from dltool.checkpoint import Checkpoint
from dltool.durations import Every
from dltool.errors import CheckpointError, Diverged, DltoolError

if TYPE_CHECKING:
    from dltool.training import Session

LEAST_KEPT = 2
# weights, two moments of an optimizer of the Adam family
PARTS_OF_A_CHECKPOINT = 3


class Saves:
    """Know when the next checkpoint is due, which moment was saved last, and what is given up."""

    def __init__(self, every: Every) -> None:
        self.every = every
        self.moment: tuple[int, int, int] | None = None
        self.time = time.monotonic()
        self.step = 0
        self.given_up: set[Path] = set()

    def is_due(self, now: float, step: int) -> bool:
        """Tell whether the interval has passed."""
        return self.every.is_due(now - self.time, step - self.step)

    def done(self, step: int) -> None:
        """Begin the next interval."""
        self.time, self.step = time.monotonic(), step


def begin(active: Session, *, resume: bool) -> None:
    """Check the disk and find the place to go on from.

    Raises:
        DltoolError: E101, there is no room for the checkpoints of the run.
        CheckpointError: there is none to resume from, or it does not fit the model.
    """
    tensors = checkpoint.unwrap(active.model).state_dict().values()
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    size *= PARTS_OF_A_CHECKPOINT + (active.ema is not None)
    kept = max(active.settings.keep + 1, 3)  # `keep`, and one being written; the best weights
    if active.team.is_first and not active.console.dry_run:
        files.require_space(active.folder, kept * size, f"{kept} checkpoints of this model")
    active.team.take_over(checkpoint.unwrap(active.model).state_dict())
    if not active.team.is_first:
        rng.branch(active.team.rank)
    if resume:
        restore(active)
        active.run.settle_changes(active.global_step)
    elif active.settings.on_nan == "rollback":
        save(active)


def save(active: Session) -> None:
    """Write a checkpoint of this moment; a full disk is reported and training goes on.

    Raises:
        Diverged: a weight is not finite; nothing is written.
    """
    moment = (active.epoch, active.batch, active.global_step)
    requested, active.watch.save_requested = active.watch.save_requested, False
    if moment == active.saves.moment or _saved(active):
        active.saves.moment, active.run.save_failed = moment, ""
        if requested:
            active.console.note(f"saved at step {active.global_step}, as SIGUSR1 asked")
    active.saves.done(active.global_step)


def _saved(active: Session) -> bool:
    """Write a checkpoint, or warn that it cannot be; of several ranks the first one does.

    Raises:
        Diverged: a weight is not finite.
        DltoolError: E104, the ranks' weights differ.
    """
    weights = checkpoint.unwrap(active.model).state_dict()
    active.team.refuse_different(weights)
    found, described = parts(active), state(active)
    if not active.team.is_first:
        checkpoint.refuse_non_finite(weights)
        return not active.team.highest([0])[0]
    failure = ""
    try:
        _write(active, found, described)
    except Diverged:
        raise
    except DltoolError as error:
        failure = error.message
        if not active.run.save_failed:
            active.console.warn(f"{error.one_line()}; training goes on without a new checkpoint")
        active.run.save_failed = failure
    return not active.team.highest([bool(failure)])[0]


def _write(active: Session, found: dict[str, Any], described: dict[str, Any]) -> None:
    active.best.save()
    target = active.folder / f"step-{active.global_step:08d}"
    with files.explained(target):
        aside = keeping.make_way(target, active.run.identity)
    if aside is not None:
        active.console.warn(f"{target} was not this run's checkpoint; it is now {aside}")
    checkpoint.save(target, active.model, found, described)
    keep = max(active.settings.keep, LEAST_KEPT)
    keeping.prune(active.folder, target, keep, active.run.identity, active.saves.given_up)
    active.saves.given_up = set()
    checkpoint.point_last(active.folder, target)


def parts(active: Session) -> dict[str, Any]:
    """Return the tensors beside the weights, by file."""
    scheduler = active.scheduler.state_dict() if active.scheduler is not None else None
    found = {
        "optimizer": {
            "optimizer": active.optimizer.state_dict(),
            "scheduler": scheduler,
            "scaler": active.scaler.state_dict(),
        },
        "rng": active.streams or rng.capture(active.settings.device),
    }
    if not active.team.is_alone:
        others = active.team.blobs(tensor_files.to_bytes(found["rng"]))[1:]
        found["ranks"] = [tensor_files.from_bytes(each) for each in others]
    return found if active.ema is None else {**found, "ema": active.ema.state()}


def state(active: Session) -> dict[str, Any]:
    """Return the plain values: position, best, counts."""
    return {
        "run": active.run.identity,
        "ranks": active.team.count,
        "epoch": active.epoch,
        "batch": active.batch,
        "step": active.global_step,
        "samples": active.samples,
        "best_value": active.best.value,
        "best_epoch": active.best.epoch,
        "loss": active.team.total(active.loss).state(),
        "patience": active.patience.state(),
        "nan": active.nan.state(),
        "stopwatch": active.stopwatch.state(),
    }


def restore(active: Session, *, keep_best: bool = False) -> None:
    """Go back to the newest checkpoint that verifies, saying which were passed over.

    Args:
        keep_best: leave the best weights in memory as they are (after a rollback).

    Raises:
        CheckpointError: there is none, or it does not fit the model.
    """
    found, notes = keeping.newest(active.folder, active.run.identity)
    for note in notes:
        active.console.warn(note)
    _restore_tensors(active, found)
    saved = found.state
    active.epoch, active.batch, active.global_step = saved["epoch"], saved["batch"], saved["step"]
    if active.run.changed:
        active.batch -= active.batch % active.settings.accumulate
    active.samples = saved["samples"]
    active.loss.restore(saved["loss"] if active.team.is_first else {"sum": 0.0, "count": 0})
    active.patience.restore(saved["patience"])
    active.nan.restore(saved["nan"])
    active.rate_scale = active.nan.rate_scale(active.global_step)
    active.stopwatch.restore(saved["stopwatch"])
    if not keep_best:
        _restore_best(active, saved)
    _restore_streams(active, found)
    active.streams = None
    active.run.truncate_log(active.global_step)
    active.saves.moment = (active.epoch, active.batch, active.global_step)
    active.saves.done(active.global_step)
    active.saves.given_up = keeping.later(active.folder, active.global_step, active.run.identity)
    place = f"epoch {active.epoch + 1}, batch {active.batch}, step {active.global_step}"
    active.console.note(f"going on from {found.path.name}: {place}")


def _restore_tensors(active: Session, found: Checkpoint) -> None:
    checkpoint.load_weights(active.model, found.model, found.path)
    saved = found.parts["optimizer"]
    active.optimizer.load_state_dict(saved["optimizer"])
    if active.scheduler is not None and saved["scheduler"] is not None:
        active.scheduler.load_state_dict(saved["scheduler"])
    active.scaler.load_state_dict(saved["scaler"])
    if active.ema is not None and "ema" in found.parts:
        active.ema.restore(found.parts["ema"])


def _restore_streams(active: Session, found: Checkpoint) -> None:
    """Put the random streams back; a rank that the checkpoint does not know gets new ones."""
    team, others = active.team, found.parts.get("ranks", [])
    rng.restore(found.parts["rng"], active.settings.device)
    if len(others) + 1 == team.count:
        if not team.is_first:
            rng.restore(others[team.rank - 1], active.settings.device)
        return
    if not team.is_first:
        rng.branch(team.rank)
    active.run.update(grade="statistical", ranks=team.count)
    active.console.note(
        f"saved by {_ranks(len(others) + 1)}, goes on with {_ranks(team.count)}: the same batches "
        "and, up to the order of sums, the same gradients; no longer the same bits"
    )


def _ranks(count: int) -> str:
    return "1 rank" if count == 1 else f"{count} ranks"


def _restore_best(active: Session, saved: dict[str, Any]) -> None:
    try:
        active.best.restore(saved["best_value"], saved["best_epoch"], exact=not active.run.changed)
    except CheckpointError as error:
        active.best.value, active.best.epoch = None, 0
        active.console.warn(
            f"{error.message}: the best weights so far are lost, the best of the epochs that are "
            "left will be kept"
        )
