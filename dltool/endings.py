"""How epochs and trainings end: what is saved, what the run says, what the user reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch.optim.lr_scheduler import ReduceLROnPlateau

from dltool import memory
from dltool import team as teams
from dltool.console import Console
from dltool.errors import Diverged, DltoolError, Interrupted, OutOfMemory, Stopped
from dltool.rehearsal import Rehearsal

if TYPE_CHECKING:
    from dltool.training import Session


class OutOfTime(Exception):
    """`max_time` has passed."""


# what several ranks raise at the same moment
AGREED = (Diverged, Interrupted, OutOfMemory, OutOfTime)


def explained(active: Session, error: BaseException) -> Exception | None:
    """Save what is whole, mark the run, and return what is raised in the place of `error`.

    None means that `error` itself goes on. Of several ranks the first one tells what all have
    agreed on; a rank that fails by itself tells the others why, and saves nothing.
    """
    if not active.team.is_alone and not isinstance(error, AGREED):
        return _alone_with(active, error)
    try:
        end = _explained(active, error)
    except Diverged as diverged:  # the weights were found bad while they were saved
        active.run.update(status="diverged", step=active.global_step)
        end = diverged
    active.team.highest([0])  # who left before the first rank has saved would end it
    return end if active.team.is_first else Stopped("the first rank tells why")


def _alone_with(active: Session, error: BaseException) -> Exception | None:
    """Return what a rank raises that has failed without the others."""
    if not isinstance(error, Exception) or isinstance(error, Stopped):
        return None
    if isinstance(error, teams.Gone):
        error.cure = active.run.resume_command
        return None
    known = out_of_memory(error) if memory.is_out_of_memory(error) else None
    if not active.team.is_lost:
        teams.leave_last_words(known or error)
    return known


def _explained(active: Session, error: BaseException) -> Exception | None:
    if isinstance(error, Diverged):
        active.run.update(status="diverged", step=active.global_step)
        return None
    if isinstance(error, Interrupted):
        return _interrupted(active, error.exit_code - 128)
    if isinstance(error, OutOfTime):
        return _out_of_time(active)
    if not isinstance(error, Exception):
        return None
    if active.watch.pending and not isinstance(error, DltoolError):
        # the signal went to the whole process group, and the workers are gone before us
        return _interrupted(active, active.watch.pending)
    if isinstance(error, OutOfMemory) or memory.is_out_of_memory(error):
        _save(active)
        active.run.update(status="out of memory", step=active.global_step)
        return None if isinstance(error, OutOfMemory) else out_of_memory(error)
    return None


def _save(active: Session) -> None:
    # after the last epoch the model may hold the best weights, and a broken update is not whole
    if not active.finished and not active.updating:
        active.rewind()
        active.save()


def _interrupted(active: Session, number: int) -> Interrupted:
    _save(active)
    active.run.update(status="interrupted", step=active.global_step)
    if active.run.save_failed:
        message = f"stopped at step {active.global_step}; saving failed: {active.run.save_failed}"
    else:
        message = f"stopped and saved at step {active.global_step} in {active.run.folder}"
    return Interrupted(number, message, cure=active.run.resume_command)


def _out_of_time(active: Session) -> Exception:
    _save(active)
    active.run.update(status="stopped", step=active.global_step)
    if active.run.save_failed:
        return DltoolError(
            "E101",
            f"stopped at step {active.global_step}; saving failed: {active.run.save_failed}",
            cure=f"free some space, then {active.run.resume_command}",
        )
    result = {
        "run": str(active.run.folder),
        "status": "stopped",
        "step": active.global_step,
        "epoch": active.epoch,
        "resume": active.run.resume_command,
    }
    limit = active.settings.max_time
    text = f"stopped after --max-time {limit} at step {active.global_step}, saved"
    active.console.result(result, f"{text}\nrun   {active.run.folder}")
    active.console.hint(active.run.resume_command)
    return Stopped(text)


def out_of_memory(error: BaseException) -> OutOfMemory:
    """Return torch's error as ours, with the first line of what torch said."""
    said = next(iter(str(error).splitlines()), type(error).__name__)[:200]
    cure = "use a smaller model or smaller inputs, --precision bf16, or another --device"
    return OutOfMemory("E801", f"memory ran out ({said})", cure=cure)


def rehearsal_of(console: Console) -> Rehearsal | None:
    """Return what watches the first steps of a dry run; None where a run is meant."""
    return Rehearsal() if console.dry_run else None


def rehearse(active: Session) -> None:
    """End a dry run once its first steps have told enough.

    Raises:
        Stopped: they have; the forecast is printed.
    """
    if active.rehearsal is not None:
        active.rehearsal.look(active)


def close_epoch(active: Session, values: Mapping[str, float]) -> bool:
    """Take an epoch's values: for the best weights, the patience, the log and the schedule."""
    monitored = values[active.settings.monitor]
    weights = active.model if active.ema is None else active.ema.tensors()
    is_best = active.best.offer(monitored, active.epoch + 1, weights)
    active.patience.offer(monitored)
    log_epoch(active, values, is_best)
    if isinstance(active.scheduler_by_epoch, ReduceLROnPlateau):
        active.scheduler_by_epoch.step(monitored)
    elif active.scheduler_by_epoch is not None:
        active.scheduler_by_epoch.step()
    return is_best


def log_epoch(active: Session, values: Mapping[str, float], is_best: bool) -> None:
    """Write down what an epoch gave: in `metrics.jsonl`, as an event and for people."""
    rehearse(active)  # an epoch may be shorter than a step
    skipped = {"skipped": active.nan.skipped} if active.nan.skipped else {}
    record = {
        "epoch": active.epoch + 1,
        "step": active.global_step,
        "train_loss": active.loss.value if active.loss.count else None,
        **values,
        "lr": active.rate,
        "seconds": round(active.stopwatch.seconds, 3),
        "best": is_best,
        **skipped,
    }
    active.run.log(record)
    active.console.event("epoch", **record)
    active.console.note(_epoch_line(record))
    active.monitors.tell()


def _epoch_line(record: Mapping[str, Any]) -> str:
    shown = [
        f"{name.replace('_', ' ')} {value:.4f}"
        for name, value in record.items()
        if isinstance(value, float) and name not in ("lr", "seconds")
    ]
    star = " *" if record["best"] else ""
    return f"epoch {record['epoch']:>3}  {'  '.join(shown)}  {record['seconds']:.1f} s{star}"
