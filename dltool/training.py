"""The mechanics of a training loop: position, resume, signals, precision, accumulation, NaN.

The loop itself stays in the topic; it hands batches and losses to a `Session`:

    with training.session(run, model, optimizer, settings) as session:
        for epoch in session.epochs(config.epochs):
            for images, labels in session.batches(train_set, label=f"epoch {epoch + 1}"):
                with session.attempt():
                    loss = F.cross_entropy(model(images), labels)
                    session.step(loss, count=len(labels))
            with session.averaged():
                values = evaluate(model, val_set)
            session.report(values)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from dltool import (
    agreeing,
    device,
    durations,
    endings,
    memory,
    nonfinite,
    norms,
    optim,
    position,
    recovery,
    rng,
)
from dltool import team as teams
from dltool.best import Best
from dltool.boundary import Boundary
from dltool.console import Console
from dltool.ema import Average
from dltool.errors import DataError, Diverged, DltoolError, OutOfMemory, Stopped
from dltool.guarding import Monitors
from dltool.metrics import Mean
from dltool.runs import Run
from dltool.settings import Batches as Batches
from dltool.settings import Settings as Settings
from dltool.signals import Watch
from dltool.stopping import Patience
from dltool.team import Team
from dltool.telling import Teller
from dltool.timing import Stopwatch


class Session:
    """Carry one training run from its first step or its checkpoint to its end; see `session`."""

    def __init__(
        self,
        run: Run,
        model: nn.Module,
        optimizer: Optimizer,
        settings: Settings,
        scheduler: LRScheduler | ReduceLROnPlateau | None,
        console: Console,
        watch: Watch,
        team: Team,
    ) -> None:
        optim.refuse_closures(optimizer)
        self.run, self.model, self.optimizer = run, model, optimizer
        self.settings, self.scheduler = settings, scheduler
        self.console, self.watch, self.team = console, watch, team
        facts = run.facts()
        self.epoch = self.batch = self.global_step = self.samples = 0
        self.loss = Mean()
        self.best = Best(settings.monitor, self.folder / "best")
        self.patience = Patience(settings.monitor, settings.patience)
        self.ema = Average(model, settings.ema) if settings.ema else None
        self.nan = nonfinite.Policy(settings.on_nan, facts.get("rollbacks", ()))
        self.pieces = int(facts.get("memory", {}).get("pieces", 1))
        self.rate_scale = 1.0
        self.scaler = torch.amp.GradScaler(
            settings.device.type, enabled=settings.precision == "fp16"
        )
        self.stopwatch = Stopwatch(settings.device)
        self.finished = self.updating = False
        self.streams: Any = None
        self.saves = position.Saves(durations.parse_every("--save-every", settings.save_every))
        self.deadline = console.started + durations.parse_duration("--max-time", settings.max_time)
        self._smallest = memory.smallest_piece(model)
        self.boundary = Boundary(model, settings.device)
        self._source: Any = None
        self._piece = memory.Piece(None, 1.0, True)
        self.batches_in_epoch = self.steps_here = 0
        self._stepped = self._reported = self._again = False
        self._recover: DltoolError | None = None
        self.teller = Teller(console)
        self.rehearsal, self.total_epochs = endings.rehearsal_of(console), 0
        per_epoch = settings.schedule_by_epoch or isinstance(scheduler, ReduceLROnPlateau)
        self._scheduler_by_step = None if per_epoch else scheduler
        self.scheduler_by_epoch: Any = scheduler if per_epoch else None
        self.monitors = Monitors(self)

    # ---- the loop's view -------------------------------------------------------------------

    def epochs(self, total: int) -> Iterator[int]:
        """Yield the epochs that are left of `total`, counted from 0; save after the last."""
        self.total_epochs = total
        while self.epoch < total and not self.patience.is_over:
            self._reported = False
            yield self.epoch
            if not self._reported:
                raise RuntimeError("an epoch ended without Session.report")
        if self.patience.is_over:
            self.console.note(f"no better epoch in {self.patience.waited}: stopped early")
        self.monitors.tell(at_end=True)
        with self.watch.hold():
            self.save()
            self.finished = True

    def batches(self, source: Batches, label: str = "train") -> Iterator[Any]:
        """Yield the batches of this epoch that are left, with progress; time only the training.

        When memory ran out (see `attempt`) batches come again, in smaller pieces; after a rollback
        they begin again where the checkpoint was.
        """
        self.model.train()
        self.batches_in_epoch = total = len(source)
        if total == 0:
            raise DataError("E503", "there is no batch to train on", cure="give more data")
        epoch = self.epoch
        # signals wait for the end of an accumulation group: only there the state is whole
        with (
            self.console.progress(total, label, "batch") as bar,
            self.stopwatch.lap(),
            self.watch.hold(),
        ):
            agreeing.between_steps(self)
            bar.advance(self.batch)
            yield from self._pieces(source, bar)
            while self._recover is not None:
                self._recovered(self._recover)
                if self.epoch != epoch:
                    # another epoch than the topic's loop is in: let it come round again
                    self._again = True
                    return
                yield from self._pieces(source, bar)
        self.streams = rng.capture(self.settings.device)

    def _pieces(self, source: Batches, bar: Any) -> Iterator[Any]:
        self._source = self.team.parts(source, self.epoch, self.batch)
        for part in self._source:
            if self.batch % self.settings.accumulate == 0:
                self.boundary.mark(self.batch, self.samples, self.loss.count, self.loss.total)
            for piece in memory.pieces(part.content, self.pieces, self._smallest):
                self._piece, self._stepped = piece, False
                yield piece.content
                if self._recover is not None:
                    return
                if not self._stepped:
                    raise RuntimeError("a batch was left without Session.step")
            bar.advance(1, self.teller.words())
            if self.batch % self.settings.accumulate == 0:
                agreeing.between_steps(self)
                if self._recover is not None:
                    return

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which the forward pass runs at the session's precision."""
        return device.autocast(self.settings.device, self.settings.precision)

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Run forward pass and `step` at the session's precision; survive running out of memory.

        The state goes back to the last step's end and the batches of the step come again in smaller
        pieces, in the same order, weighted so that the gradient is that of the whole batch. Layers
        that look at the whole batch (batch normalisation) see the pieces.
        """
        try:
            with self.autocast():
                yield
        except (RuntimeError, MemoryError) as error:
            # an update that broke off has changed some weights already: there is no way back
            if self.updating or self.team.meets or not memory.is_out_of_memory(error):
                raise
            memory.let_go(error.__traceback__)
            self._recover = endings.out_of_memory(error)
            agreeing.step(self)

    def averaged(self) -> AbstractContextManager[object]:
        """Return the context in which the model holds the averaged weights, if there are any."""
        return self.ema.swapped(self.watch) if self.ema is not None else nullcontext()

    def step(self, loss: Tensor, count: int, weight: Tensor | float | None = None) -> None:
        """Go one batch forward: backward, and at the end of an accumulation group the update.

        Args:
            loss: scalar, the mean over the batch's `count` samples.
            weight: what the mean is over where that is not samples, as tokens or class weights;
                several ranks then divide a batch's gradient by it.

        Raises:
            Diverged: the loss is not finite; the weights and the last checkpoint stay good.
        """
        self._stepped = True
        group_start = self.batch - self.batch % self.settings.accumulate
        group = min(self.settings.accumulate, self.batches_in_epoch - group_start)
        self.team.weigh(weight)
        with device.without_autocast(self.settings.device, self.settings.precision):
            if self._takes(loss, count):
                scale = self._piece.share * self.team.part.share / group
                self.scaler.scale(loss * scale if scale != 1 else loss).backward()
            if self._recover is not None or not self._piece.is_last:
                return
            self.batch += 1
            if self.batch == group_start + group:
                self._update()

    def _takes(self, loss: Tensor, count: int) -> bool:
        """Count the loss and tell whether it can be learnt from."""
        if self.team.part.total is not None:
            agreeing.take(self, loss, count)
            self.samples += self.team.part.total if self._piece.is_last else 0
            return True
        if self.nan.kind == "skip":
            self.nan.group_is_bad |= not math.isfinite(loss.item())
            if self.nan.group_is_bad:
                return False
        self.loss.add(loss, count)
        self.samples += count
        on_cpu = self.settings.device.type == "cpu"
        if (on_cpu or self.batch % self.settings.check_every == 0) and not math.isfinite(
            self.loss.total.item()
        ):
            where = f"{loss.item()} at step {self.global_step + 1}"
            self.diverged(Diverged("E701", f"the loss became {where}", cure=recovery.cure(self)))
        return self._recover is None

    def diverged(self, error: Diverged) -> None:
        """Go back to the last checkpoint, when the policy is that, as soon as the loop lets us."""
        if self.nan.kind != "rollback":
            raise error
        self._recover = error

    def out_of_memory(self, error: OutOfMemory) -> None:
        """Begin the step again in smaller pieces, as soon as the loop lets us."""
        self._recover = self._recover or error

    @property
    def has_failed(self) -> bool:
        """Whether this rank could not train on its part of the batch."""
        return self._recover is not None

    @property
    def rate(self) -> float:
        """The learning rate of the next step, of the first parameter group."""
        return float(self.optimizer.param_groups[0]["lr"]) * self.rate_scale

    def _update(self) -> None:
        if not agreeing.step(self):
            return
        is_good = recovery.gradients_are_good(self)
        if is_good:
            self.updating = True
            optim.step_scaled(self.optimizer, self.scaler, self.rate_scale)
            self.scaler.update()
            if self.ema is not None:
                self.ema.update()
            self.updating = False
            self.nan.in_row = 0
        else:
            recovery.leave_out(self)
        self.optimizer.zero_grad(set_to_none=True)
        if self._scheduler_by_step is not None:
            with nullcontext() if is_good else optim.without_order_warning():
                self._scheduler_by_step.step()
        self.global_step += 1
        self.steps_here += 1
        self.boundary.close()

    # ---- going back ------------------------------------------------------------------------

    def rewind(self) -> None:
        """Go back to the end of the last step, when a step was begun and not finished."""
        self.optimizer.zero_grad(set_to_none=True)
        self.nan.group_is_bad = False
        if self.boundary.is_open:
            self.batch, self.samples, self.loss.count, self.loss.total = self.boundary.rewind()

    def _recovered(self, error: DltoolError) -> None:
        self._recover = None
        self.close()
        if isinstance(error, Diverged):
            recovery.roll_back(self, error)
            return
        self.rewind()
        length = self.team.highest([memory.batch_length(self._piece.content)])[0]
        self._piece = memory.Piece(None, 1.0, True)
        recovery.divide(self, length, self._smallest, error)

    def close(self) -> None:
        """End the source of batches and its workers."""
        source, self._source = self._source, None
        if hasattr(source, "close"):
            source.close()

    # ---- the end of an epoch ---------------------------------------------------------------

    def report(self, values: Mapping[str, float]) -> bool:
        """End an epoch: log, remember the best weights, save when it is time.

        Args:
            values: what the evaluation measured, among it the monitored value.

        Returns:
            Whether this epoch is the best so far.

        Raises:
            Diverged: the training loss or a weight is not finite.
        """
        with self.watch.hold():
            self._reported, again, self._again = True, self._again, False
            if again:
                return False
            values, self.loss = self.team.of_first(dict(values)), self.team.total(self.loss)
            try:
                recovery.refuse_non_finite(self, values)
            except Diverged as error:
                if self.nan.kind != "rollback":
                    raise
                recovery.roll_back(self, error)
                return False
            is_best = endings.close_epoch(self, values)
            self.epoch, self.batch = self.epoch + 1, 0
            self.loss = Mean()
            self.streams = None
            agreeing.after_epoch(self)
        return is_best

    @property
    def samples_per_second(self) -> float:
        """Trained samples over the time spent training; evaluation and saving do not count."""
        return self.samples / max(self.stopwatch.seconds, 1e-9)

    @property
    def folder(self) -> Path:
        """Where the run's checkpoints are."""
        return self.run.home / "checkpoints"

    def save(self) -> None:
        """Write a checkpoint of this moment; a full disk is reported and training goes on."""
        position.save(self)


@contextmanager
def session(
    run: Run,
    model: nn.Module,
    optimizer: Optimizer,
    settings: Settings,
    *,
    scheduler: LRScheduler | ReduceLROnPlateau | None = None,
    console: Console,
    resume: bool = False,
) -> Iterator[Session]:
    """Open the mechanics around a training loop; save on the way out, also when interrupted.

    Raises:
        Interrupted: after Ctrl-C or SIGTERM, with the checkpoint written.
        Stopped: `max_time` has passed; the result that tells so is printed.
        Diverged: the loss or a weight is not finite; the last good checkpoint is kept.
        OutOfMemory: a single sample does not fit, or something beside the batch.
        DltoolError: E101, the disk is too full to begin; E103, another rank has ended.
    """
    team = teams.current()
    with (
        Watch(patient=not team.is_alone, silent=not team.is_first) as watch,
        norms.shared(model, team, settings.device),
    ):
        active = Session(run, model, optimizer, settings, scheduler, console, watch, team)
        try:
            position.begin(active, resume=resume)
            yield active
            agreeing.last_chance(active)
        except BaseException as error:
            active.close()
            end = endings.explained(active, error)
            if end is None:
                raise
            raise end from None
    if not team.is_alone:
        teams.leave()
    if not team.is_first:
        raise Stopped("the first rank goes on with the result")
