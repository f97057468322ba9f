"""The loop around gensim's engine: position, checkpoints, resume, signals, what is told."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dltool import durations, files, keeping, manifests, rehearsal
from dltool.console import Console, Progress
from dltool.errors import CheckpointError, Diverged, DltoolError, Interrupted, Stopped
from dltool.runs import Run
from dltool.signals import Watch
from dltool_word2vec import gensim_engine, store
from dltool_word2vec.config import TrainConfig
from dltool_word2vec.corpus import Corpus
from dltool_word2vec.gensim_engine import Trainer
from dltool_word2vec.loss import Loss
from dltool_word2vec.store import Array


@dataclass(frozen=True)
class Outcome:
    """What a training gave.

    Attributes:
        arrays: what the model folder keeps.
        loss: on the sample of windows, after the last step.
        seconds: spent training; reading the text and saving do not count.
        words: corpus words that were gone over, all epochs.
    """

    arrays: dict[str, Array]
    words: list[str]
    counts: list[int]
    loss: Loss
    seconds: float
    trained: int

    @property
    def words_per_second(self) -> float:
        """Corpus words a second, as gensim counts them: before rare and frequent ones are left."""
        return self.trained / max(self.seconds, 1e-9)


@dataclass
class Position:
    """Where a training is; a checkpoint keeps it."""

    epoch: int = 0
    part: int = 0
    step: int = 0
    seconds: float = 0.0
    trained: int = 0


class Loop:
    """Train part by part; between two parts the state is whole, and can be saved."""

    def __init__(
        self, config: TrainConfig, trainer: Trainer, corpus: Corpus, run: Run, console: Console
    ) -> None:
        self.config, self.trainer, self.corpus = config, trainer, corpus
        self.run, self.console = run, console
        self.at = Position()
        self.every = durations.parse_every("--save-every", config.save_every)
        self.deadline = console.started + durations.parse_duration("--max-time", config.max_time)
        self.saved_time, self.saved_step = time.monotonic(), -1
        self.given_up: set[Path] = set()

    @property
    def folder(self) -> Path:
        """Where the checkpoints are."""
        return self.run.folder / "checkpoints"

    def train(self, watch: Watch) -> Loss:
        """Go over the corpus as often as is left; save at the end.

        Raises:
            Interrupted: a signal came; the checkpoint is written.
            Stopped: `--max-time` has passed, likewise.
            Diverged: the loss is not finite; the last checkpoint stays.
        """
        total = self.corpus.words * self.config.epochs
        measured = self.trainer.loss()
        began = self.at.trained
        with self.console.progress(total, "training", "word") as bar:
            bar.advance(began)
            while self.at.epoch < self.config.epochs:
                try:
                    with watch.hold():
                        measured = self._step(bar)
                except Interrupted as error:
                    raise self._interrupted(error) from None
                is_over = self.at.epoch >= self.config.epochs
                if time.monotonic() >= self.deadline and not is_over:
                    raise self._out_of_time()
        with watch.hold():
            self.save()
        return measured

    def _step(self, bar: Progress) -> Loss:
        at, parts = self.at, self.corpus.parts
        before = sum(part.words for part in parts[: at.part])
        begun = time.monotonic()
        self.trainer.step(at.epoch, at.part, before)
        at.seconds += time.monotonic() - begun
        at.trained += parts[at.part].words
        at.step, at.part = at.step + 1, at.part + 1
        rehearsal.one_step(self.console, at.seconds, len(parts) * self.config.epochs)
        measured = self.trainer.loss()
        if not math.isfinite(measured.value):
            self.run.update(status="diverged", step=at.step)
            raise Diverged("E701", f"the loss became {measured.value} at step {at.step}")
        bar.advance(parts[at.part - 1].words, f"loss {measured.value:.4f}")
        self.console.event(
            "step", step=at.step, epoch=at.epoch, train_loss=measured.value, words=at.trained
        )
        if at.part == len(parts):
            at.epoch, at.part = at.epoch + 1, 0
            self._end_epoch(measured)
        now = time.monotonic()
        if self.every.is_due(now - self.saved_time, at.step - max(self.saved_step, 0)):
            self.save()
        return measured

    def _end_epoch(self, measured: Loss) -> None:
        at = self.at
        record = {
            "epoch": at.epoch,
            "step": at.step,
            "train_loss": measured.value,
            "train_loss_reach": measured.reach,
            "n": measured.n,
            "words_per_second": round(at.trained / max(at.seconds, 1e-9), 1),
            "lr": self.trainer.rate(at.epoch / self.config.epochs),
            "seconds": round(at.seconds, 3),
        }
        self.run.log(record)
        self.console.event("epoch", **record)
        self.console.note(
            f"epoch {at.epoch:>3}  loss {measured.value:.4f} ± {measured.reach:.4f}  "
            f"{record['words_per_second']:,.0f} words/s  {at.seconds:.1f} s"
        )

    def save(self) -> None:
        """Write a checkpoint; a full disk is reported and training goes on."""
        if self.saved_step == self.at.step:
            return
        target = self.folder / f"step-{self.at.step:08d}"
        try:
            self._write(target)
            self.run.save_failed = ""
        except Diverged:
            self.run.update(status="diverged", step=self.at.step)
            raise
        except DltoolError as error:
            if not self.run.save_failed:
                self.console.warn(f"{error.one_line()}; training goes on without a new checkpoint")
            self.run.save_failed = error.message
        self.saved_time, self.saved_step = time.monotonic(), self.at.step

    def _write(self, target: Path) -> None:
        with files.explained(target):
            aside = keeping.make_way(target, self.run.identity)
        if aside is not None:
            self.console.warn(f"{target} was not this run's checkpoint; it is now {aside}")
        at = self.at
        state = {
            "run": self.run.identity,
            "epoch": at.epoch,
            "batch": at.part,
            "step": at.step,
            "samples": at.trained,
            "stopwatch": at.seconds,
        }
        document = {"state": state, "tied": {}, "parts": {}}
        store.write_folder(
            target, gensim_engine.arrays(self.trainer.model), {manifests.STATE: document}
        )
        keeping.prune(self.folder, target, self.config.keep, self.run.identity, self.given_up)
        self.given_up = set()

    def restore(self) -> None:
        """Go back to the newest checkpoint that verifies; without one begin at the start."""
        for path in manifests.steps(self.folder):
            if keeping.owner(path) not in (None, self.run.identity):
                continue
            try:
                self._read(path)
            except DltoolError as error:
                self.console.warn(f"passed over {path.name}: {error.message}")
                continue
            at = self.at
            self.console.note(
                f"going on from {path.name}: epoch {at.epoch + 1}, part {at.part}, step {at.step}"
            )
            break
        else:
            self.console.note("there is no checkpoint yet: training begins at the start")
        self.given_up = keeping.later(self.folder, self.at.step, self.run.identity)
        self.saved_step = self.at.step if self.at.step else -1
        self.run.truncate_log(self.at.step)
        self.run.settle_changes(self.at.step)

    def _read(self, path: Path) -> None:
        manifests.verify(path)
        state = store.read_document(path, manifests.STATE)["state"]
        arrays = store.open_arrays(path / manifests.MODEL)
        for name, own in gensim_engine.arrays(self.trainer.model).items():
            if name not in arrays or arrays[name].shape != own.shape:
                raise CheckpointError("E513", f"{path} does not fit the model in {name}")
        gensim_engine.fill(self.trainer.model, arrays)
        self.at = Position(
            epoch=int(state["epoch"]),
            part=int(state["batch"]),
            step=int(state["step"]),
            seconds=float(state["stopwatch"]),
            trained=int(state["samples"]),
        )

    def _interrupted(self, error: Interrupted) -> Interrupted:
        self.save()
        self.run.update(status="interrupted", step=self.at.step)
        if self.run.save_failed:
            message = f"stopped at step {self.at.step}; saving failed: {self.run.save_failed}"
        else:
            message = f"stopped and saved at step {self.at.step} in {self.run.folder}"
        return Interrupted(error.exit_code - 128, message, cure=self.run.resume_command)

    def _out_of_time(self) -> Exception:
        self.save()
        self.run.update(status="stopped", step=self.at.step)
        if self.run.save_failed:
            return DltoolError(
                "E101", f"stopped at step {self.at.step}; saving failed: {self.run.save_failed}"
            )
        result = {
            "run": str(self.run.folder),
            "status": "stopped",
            "step": self.at.step,
            "epoch": self.at.epoch,
            "resume": self.run.resume_command,
        }
        text = f"stopped after --max-time {self.config.max_time} at step {self.at.step}, saved"
        self.console.result(result, f"{text}\nrun   {self.run.folder}")
        self.console.hint(self.run.resume_command)
        return Stopped(text)


def run_gensim(
    config: TrainConfig,
    corpus: Corpus,
    counts: Mapping[str, int],
    start: Mapping[str, Array],
    run: Run,
    console: Console,
    watch: Watch,
    *,
    resume: bool,
) -> Outcome:
    """Train with gensim and return the vectors.

    Args:
        start: arrays of the vectors to train further; empty for new ones.
    """
    model = gensim_engine.build(config, counts, corpus)
    gensim_engine.fill(model, start)
    words: Sequence[str] = model.wv.index_to_key
    numbers = [int(model.wv.get_vecattr(word, "count")) for word in words]
    trainer = Trainer(config, model, corpus, numbers)
    _require_space(run, model, config)
    loop = Loop(config, trainer, corpus, run, console)
    if resume:
        loop.restore()
    measured = loop.train(watch)
    gensim_engine.finish(model)
    arrays = {**gensim_engine.arrays(model), "vectors": model.wv.vectors}
    at = loop.at
    return Outcome(arrays, list(words), numbers, measured, at.seconds, at.trained)


def _require_space(run: Run, model: Any, config: TrainConfig) -> None:
    size = sum(array.nbytes for array in gensim_engine.arrays(model).values())
    # what is kept, one being written, and the model folder
    files.require_space(run.folder, (config.keep + 2) * size, "the checkpoints of these vectors")
