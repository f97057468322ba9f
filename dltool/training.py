"""The mechanics of a training loop: position, resume, signals, precision, accumulation, NaN.

The loop itself stays in the topic; it hands batches and losses to a `Session`:

    with training.session(run, model, optimizer, settings) as session:
        for epoch in session.epochs(config.epochs):
            for images, labels in session.batches(train_set, label=f"epoch {epoch + 1}"):
                with session.autocast():
                    loss = F.cross_entropy(model(images), labels)
                session.step(loss, count=len(labels))
            session.report(evaluate(model, val_set))
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from dltool import checkpoint, device, rng
from dltool.best import Best
from dltool.console import Console
from dltool.errors import DataError, Diverged, DltoolError, Interrupted
from dltool.metrics import Mean
from dltool.runs import Run
from dltool.signals import Watch
from dltool.timing import Stopwatch


class Batches(Protocol):
    """A source of training batches whose content depends only on (seed, epoch, position)."""

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        ...

    def batches(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """Yield the batches of an epoch from number `start` on."""
        ...


@dataclass(frozen=True)
class Settings:
    """How a session trains; the topic fills it from its config.

    Attributes:
        accumulate: batches whose gradients are added up for one optimizer step.
        clip: largest gradient norm; 0 leaves gradients alone.
        save_every: seconds between checkpoints while training.
        keep: step checkpoints to keep, at least 2.
        monitor: the reported value that chooses the best weights; higher is better unless
            it ends with "loss".
        check_every: steps between tests of the loss on an accelerator (on the CPU: every step).
    """

    device: torch.device
    precision: str = "fp32"
    accumulate: int = 1
    clip: float = 0.0
    save_every: float = 60.0
    keep: int = 2
    monitor: str = "val_accuracy"
    check_every: int = 50


class Session:
    """Carry one training run from its first step or its checkpoint to its end; see `session`."""

    def __init__(
        self,
        run: Run,
        model: nn.Module,
        optimizer: Optimizer,
        settings: Settings,
        scheduler: LambdaLR | None,
        console: Console,
        watch: Watch,
    ) -> None:
        self.run, self.model, self.optimizer = run, model, optimizer
        self.settings, self.scheduler = settings, scheduler
        self.console, self.watch = console, watch
        self.epoch = self.batch = self.global_step = self.samples = 0
        self.loss = Mean()
        self.best = Best(settings.monitor, self.folder / "best")
        self.stopwatch = Stopwatch(settings.device)
        self.finished = False
        self._batches_in_epoch = 0
        self._rng: Any = None
        self._saved_at: tuple[int, int, int] | None = None
        self._last_save = self._last_info = time.monotonic()
        self._scaler = torch.amp.GradScaler(
            settings.device.type, enabled=settings.precision == "fp16"
        )

    # ---- the loop's view -------------------------------------------------------------------

    def epochs(self, total: int) -> Iterator[int]:
        """Yield the epochs that are left of `total`, counted from 0; save after the last."""
        while self.epoch < total:
            epoch = self.epoch
            yield epoch
            if self.epoch == epoch:
                raise RuntimeError("an epoch ended without Session.report")
        with self.watch.hold():
            self.save()
            self.finished = True

    def batches(self, source: Batches, label: str = "train") -> Iterator[Any]:
        """Yield the batches of this epoch that are left, with progress; time only the training."""
        self.model.train()
        self._batches_in_epoch = total = len(source)
        if total == 0:
            raise DataError("E503", "there is no batch to train on", cure="give more data")
        # signals wait for the end of an accumulation group: only there the state is whole
        with (
            self.console.progress(total, label, "batch") as bar,
            self.stopwatch.lap(),
            self.watch.hold(),
        ):
            bar.advance(self.batch)
            for batch in source.batches(self.epoch, self.batch):
                position = self.batch
                yield batch
                if self.batch == position:
                    raise RuntimeError("a batch was left without Session.step")
                bar.advance(1, self._info())
                if self.batch % self.settings.accumulate == 0:
                    self._between_steps()
        self._rng = rng.capture(self.settings.device)

    def _between_steps(self) -> None:
        if self.watch.pending:
            self.watch.stop()
        if time.monotonic() - self._last_save >= self.settings.save_every:
            self.save()

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which the forward pass runs at the session's precision."""
        return device.autocast(self.settings.device, self.settings.precision)

    def step(self, loss: Tensor, count: int) -> None:
        """Go one batch forward: backward, and at the end of an accumulation group the update.

        Args:
            loss: scalar, the mean over the batch's `count` samples.

        Raises:
            Diverged: the loss is not finite; the weights and the last checkpoint stay good.
        """
        self._watch_loss(loss, count)
        group_start = self.batch - self.batch % self.settings.accumulate
        group = min(self.settings.accumulate, self._batches_in_epoch - group_start)
        self._scaler.scale(loss / group if group > 1 else loss).backward()
        self.batch += 1
        if self.batch == group_start + group:
            self._update()

    def _update(self) -> None:
        if self.settings.clip:
            self._scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.scheduler is not None:
            self.scheduler.step()
        self.global_step += 1

    def _watch_loss(self, loss: Tensor, count: int) -> None:
        self.loss.add(loss, count)
        self.samples += count
        on_cpu = self.settings.device.type == "cpu"
        if (on_cpu or self.batch % self.settings.check_every == 0) and not math.isfinite(
            self.loss.total.item()
        ):
            raise Diverged(
                "E701",
                f"the loss became {loss.item()} at step {self.global_step + 1}",
                cure=f"lower --lr (now {self.optimizer.param_groups[0]['lr']:.2g}) or set --clip 1",
            )

    def _info(self) -> str:
        now = time.monotonic()
        if now - self._last_info < 0.5:
            return ""
        self._last_info = now
        loss = self.loss.value
        self.console.event("step", step=self.global_step, epoch=self.epoch, train_loss=loss)
        return f"loss {loss:.4f}"

    def report(self, values: Mapping[str, float]) -> bool:
        """End an epoch: log, remember the best weights, save when it is time.

        Args:
            values: what the evaluation measured, among it the monitored value.

        Returns:
            Whether this epoch is the best so far.
        """
        with self.watch.hold():
            train_loss = self.loss.value
            if not math.isfinite(train_loss):
                raise Diverged("E701", f"the training loss became {train_loss}", cure="lower --lr")
            monitored = values[self.settings.monitor]
            is_best = self.best.offer(monitored, self.epoch + 1, self.model)
            record = {
                "epoch": self.epoch + 1,
                "step": self.global_step,
                "train_loss": train_loss,
                **values,
                "lr": self.optimizer.param_groups[0]["lr"],
                "seconds": round(self.stopwatch.seconds, 3),
                "best": is_best,
            }
            self.run.log(record)
            self.console.event("epoch", **record)
            self.console.note(_epoch_line(record))
            self.epoch, self.batch = self.epoch + 1, 0
            self.loss = Mean()
            self._rng = None
            if time.monotonic() - self._last_save >= self.settings.save_every:
                self.save()
        return is_best

    @property
    def samples_per_second(self) -> float:
        """Trained samples over the time spent training; evaluation and saving do not count."""
        return self.samples / max(self.stopwatch.seconds, 1e-9)

    # ---- saving and resuming ---------------------------------------------------------------

    @property
    def folder(self) -> Path:
        """Where the run's checkpoints are."""
        return self.run.folder / "checkpoints"

    def save(self) -> None:
        """Write a checkpoint of this moment; a full disk is reported and training goes on."""
        moment = (self.epoch, self.batch, self.global_step)
        if moment == self._saved_at:
            return
        try:
            self.best.save()
            target = self.folder / f"step-{self.global_step:08d}"
            checkpoint.save(target, self.model, self._parts(), self._state())
            self._prune(target)
            self._saved_at, self.run.unsaved = moment, ""
        except Diverged:
            raise
        except DltoolError as error:
            if not self.run.unsaved:
                self.console.warn(f"{error.one_line()}; training goes on without a new checkpoint")
            self.run.unsaved = error.message
        self._last_save = time.monotonic()

    def _prune(self, newest: Path) -> None:
        """Verify the new checkpoint, then drop older ones and let `last` point to it."""
        checkpoint.verify(newest)
        for old in checkpoint.steps(self.folder)[max(self.settings.keep, 2) :]:
            shutil.rmtree(old, ignore_errors=True)
        checkpoint.point_last(self.folder, newest)

    def _parts(self) -> dict[str, Any]:
        scheduler = self.scheduler.state_dict() if self.scheduler is not None else None
        return {
            "optimizer": {
                "optimizer": self.optimizer.state_dict(),
                "scheduler": scheduler,
                "scaler": self._scaler.state_dict(),
            },
            "rng": self._rng or rng.capture(self.settings.device),
        }

    def _state(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "batch": self.batch,
            "step": self.global_step,
            "samples": self.samples,
            "best_value": self.best.value,
            "best_epoch": self.best.epoch,
            "loss": self.loss.state(),
            "stopwatch": self.stopwatch.state(),
        }

    def restore(self) -> None:
        """Go back to the newest checkpoint that verifies, saying which were passed over.

        Raises:
            CheckpointError: there is none, or it does not fit the model.
        """
        found, notes = checkpoint.newest(self.folder)
        for note in notes:
            self.console.warn(note)
        checkpoint.load_weights(self.model, found.model, found.path)
        saved = found.parts["optimizer"]
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(saved["scheduler"])
        self._scaler.load_state_dict(saved["scaler"])
        state = found.state
        self.epoch, self.batch, self.global_step = state["epoch"], state["batch"], state["step"]
        self.samples = state["samples"]
        self.best.restore(state["best_value"], state["best_epoch"])
        self.loss.restore(state["loss"])
        self.stopwatch.restore(state["stopwatch"])
        rng.restore(found.parts["rng"], self.settings.device)
        self.run.truncate_log(self.global_step)
        self._saved_at = (self.epoch, self.batch, self.global_step)
        place = f"epoch {self.epoch + 1}, batch {self.batch}, step {self.global_step}"
        self.console.note(f"going on from {found.path.name}: {place}")


def _epoch_line(record: Mapping[str, Any]) -> str:
    shown = [
        f"{name.replace('_', ' ')} {value:.4f}"
        for name, value in record.items()
        if isinstance(value, float) and name not in ("lr", "seconds")
    ]
    star = " *" if record["best"] else ""
    return f"epoch {record['epoch']:>3}  {'  '.join(shown)}  {record['seconds']:.1f} s{star}"


@contextmanager
def session(
    run: Run,
    model: nn.Module,
    optimizer: Optimizer,
    settings: Settings,
    *,
    scheduler: LambdaLR | None = None,
    console: Console,
    resume: bool = False,
) -> Iterator[Session]:
    """Open the mechanics around a training loop; save on the way out, also when interrupted.

    Raises:
        Interrupted: after Ctrl-C or SIGTERM, with the checkpoint written.
        Diverged: the loss or a weight is not finite; the last good checkpoint is kept.
    """
    with Watch() as watch:
        active = Session(run, model, optimizer, settings, scheduler, console, watch)
        if resume:
            active.restore()
        try:
            yield active
        except Interrupted as stop:
            if not active.finished:  # afterwards the model may hold the best weights
                active.save()
            run.update(status="interrupted", step=active.global_step)
            raise _interrupted(active, stop) from None
        except Diverged:
            run.update(status="diverged", step=active.global_step)
            raise


def _interrupted(active: Session, stop: Interrupted) -> Interrupted:
    if active.run.unsaved:
        message = f"stopped at step {active.global_step}; saving failed: {active.run.unsaved}"
    else:
        message = f"stopped and saved at step {active.global_step} in {active.run.folder}"
    return Interrupted(stop.exit_code - 128, message, cure=active.run.resume_command)
