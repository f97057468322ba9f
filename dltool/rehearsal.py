"""Dry runs: the first steps of a training, and what they say of its time, memory and disk."""

from __future__ import annotations

import shlex
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dltool import files
from dltool.console import Console
from dltool.errors import DltoolError, Stopped

if TYPE_CHECKING:
    from dltool.training import Session

# the first step is slow for reasons of its own, and one more could be a chance
MOST_STEPS = 10
SECONDS = 2.0
LEAST_KEPT = 2


@dataclass(frozen=True)
class Forecast:
    """What the first steps of a training say of the whole.

    Attributes:
        steps: of the whole training.
        step_seconds: of the usual step, reading its data included; the first one left out.
        memory_bytes: the most that was in use so far; None where nothing tells.
        memory_of: `cuda:0` and its like, or `process`.
        disk_bytes: the most that checkpoints, the best weights and the model will take at a time;
            None where nothing tells.
        pieces: into how many parts a batch had to be divided to fit into memory.
    """

    device: str
    epochs: int | None
    steps: int
    first_step_seconds: float
    step_seconds: float
    loss: float | None
    parameters: int | None
    memory_bytes: int | None
    memory_of: str
    disk_bytes: int | None
    pieces: int = 1


@dataclass
class Rehearsal:
    """Watch the first steps of a session."""

    moments: list[float] = field(default_factory=list)

    def look(self, active: Session) -> None:
        """Take the time between two steps; end when there is enough of it.

        Raises:
            Stopped: the forecast is printed.
            DltoolError: E101, the disk will not hold the run.
        """
        from dltool.timing import synchronize

        synchronize(active.settings.device)
        self.moments.append(time.perf_counter())
        steps = active.steps_here
        if not steps:
            return
        # what is left of the epoch may be less than a whole step, or the next one has begun
        left = active.batches_in_epoch - active.batch
        is_last = active.batch == 0 or left < active.settings.accumulate
        # processes that train together end at the same step, whatever their clocks say
        alone = active.team.count == 1
        is_late = alone and self.moments[-1] - self.moments[0] >= SECONDS
        if is_last or steps >= MOST_STEPS or is_late:
            tell(active.console, self.forecast(active))

    def forecast(self, active: Session) -> Forecast:
        """Return what the steps so far say of the whole training."""
        pairs = zip(self.moments, self.moments[1:], strict=False)
        times = [after - before for before, after in pairs]
        usual = statistics.median(times[1:] or times)
        per_epoch = -(-active.batches_in_epoch // active.settings.accumulate)
        memory, owner = peak_memory(active.settings.device)
        loss = active.loss.value if active.loss.count else None
        return Forecast(
            device=str(active.settings.device),
            epochs=active.total_epochs,
            steps=active.total_epochs * per_epoch,
            first_step_seconds=times[0],
            step_seconds=usual,
            loss=loss,
            parameters=sum(each.numel() for each in active.model.parameters()),
            memory_bytes=memory,
            memory_of=owner,
            disk_bytes=_disk(active),
            pieces=active.pieces,
        )


def _disk(active: Session) -> int:
    """Return the most that a run's checkpoints take at a time, from the state as it is now."""
    from dltool import checkpoint, position

    model = _bytes_of(checkpoint.unwrap(active.model).state_dict())
    whole = model + _bytes_of(position.parts(active))
    kept = max(active.settings.keep, LEAST_KEPT) + 1  # one is written before another goes
    return kept * whole + 2 * model  # the best weights, the model folder


def _bytes_of(value: Any) -> int:
    if hasattr(value, "element_size"):
        return int(value.numel() * value.element_size())
    if isinstance(value, Mapping):
        return sum(_bytes_of(each) for each in value.values())
    if isinstance(value, list | tuple):
        return sum(_bytes_of(each) for each in value)
    return 0


def peak_memory(device: Any = None) -> tuple[int | None, str]:
    """Return the most memory in use so far, and whose: the accelerator's, or this process's."""
    kind = getattr(device, "type", "cpu")
    if kind in ("cuda", "mps"):
        import torch

        if kind == "cuda":
            return torch.cuda.max_memory_allocated(device), str(device)
        return torch.mps.driver_allocated_memory(), str(device)
    try:
        import resource
    except ImportError:  # Windows
        return None, "process"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024), "process"


def one_step(console: Console, seconds: float, steps: int = 1) -> None:
    """End a dry run of a training without a session, after its first step; else do nothing.

    Args:
        seconds: what the step took.
        steps: of the whole training.

    Raises:
        Stopped: the forecast is printed.
    """
    if console.dry_run:
        memory, owner = peak_memory()
        tell(
            console,
            Forecast(
                device="cpu",
                epochs=None,
                steps=steps,
                first_step_seconds=seconds,
                step_seconds=seconds,
                loss=None,
                parameters=None,
                memory_bytes=memory,
                memory_of=owner,
                disk_bytes=None,
            ),
        )


def tell(console: Console, forecast: Forecast) -> None:
    """Print a forecast and end the dry run.

    Raises:
        Stopped: always, when the disk holds what is to come.
        DltoolError: E101, it does not.
    """
    target = Path(console.dry_run)
    place = next(each for each in (target, *target.absolute().parents) if each.exists())
    free = free_bytes(place)
    if forecast.disk_bytes is not None and free < forecast.disk_bytes:
        raise DltoolError(
            "E101",
            f"too little space at {place.absolute()} for the checkpoints of this run",
            received=f"{_size(free)} free",
            expected=_size(forecast.disk_bytes),
            cure="free some space, choose another folder with --out, or a smaller --keep",
        )
    seconds = forecast.steps * forecast.step_seconds
    result = {
        "dry_run": True,
        "device": forecast.device,
        "epochs": forecast.epochs,
        "steps": forecast.steps,
        "first_step_seconds": round(forecast.first_step_seconds, 6),
        "step_seconds": round(forecast.step_seconds, 6),
        "training_seconds": round(seconds, 3),
        "loss": forecast.loss,
        "parameters": forecast.parameters,
        "memory_bytes": forecast.memory_bytes,
        "memory_of": forecast.memory_of,
        "batch_pieces": forecast.pieces,
        "disk_bytes": forecast.disk_bytes,
        "free_bytes": free,
    }
    console.result(result, _text(forecast, seconds, free, place))
    words = [word for word in sys.argv[1:] if word != "--dry-run"]
    console.hint(f"dltool {shlex.join(words)}")
    raise Stopped("the dry run is over")


def free_bytes(place: Path) -> int:
    """Return the free bytes of the disk that a folder is on."""
    import shutil

    with files.explained(place):
        return shutil.disk_usage(place).free


def _text(forecast: Forecast, seconds: float, free: int, place: Path) -> str:
    loss = "" if forecast.loss is None else f", loss {forecast.loss:.4f}"
    lines = [f"the first step works on {forecast.device}{loss}; nothing was kept"]
    if forecast.pieces > 1:
        lines.append(f"memory  a batch does not fit: it is trained in {forecast.pieces} pieces")
    lines.append(
        f"time    {forecast.steps:,} steps of {forecast.step_seconds * 1000:.3g} ms: about "
        f"{_duration(seconds)}, evaluations and checkpoints not counted"
    )
    if forecast.memory_bytes is not None:
        lines.append(f"memory  {_size(forecast.memory_bytes)} at most ({forecast.memory_of})")
    if forecast.disk_bytes is not None:
        lines.append(f"disk    {_size(forecast.disk_bytes)} at most, {_size(free)} free at {place}")
    return "\n".join(lines)


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count < 1e9 else f"{count / 1e9:,.2f} GB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
