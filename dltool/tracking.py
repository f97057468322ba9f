"""`--track tensorboard|mlflow`: what `metrics.jsonl` gets, written for other programs' boards too.

TensorBoard's events lie in the run folder (`tensorboard --logdir runs`). MLflow's run lies in a
store of files, `mlruns` in the working folder, or wherever MLFLOW_TRACKING_URI leads; the run
folder's `track.json` remembers where, so that a resumed run goes on with the same one. Neither
needs a server, and neither can stop a training: what it refuses is told once.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dltool import files, runs
from dltool.console import Console
from dltool.errors import Interrupted, MissingExtra, Stopped
from dltool.history import values

if TYPE_CHECKING:
    from dltool.runs import Run

KINDS = ("", "tensorboard", "mlflow")
FILE = "track.json"
LONGEST = 500  # letters of a setting


class Board(Protocol):
    """Where a track goes."""

    def write(self, numbers: Mapping[str, float], step: int) -> None:
        """Add numbers at an optimizer step."""
        ...

    def forget(self, step: int) -> None:
        """Drop what was written after a step: the training goes on from there."""
        ...

    def close(self, status: str) -> None:
        """End with FINISHED, KILLED or FAILED."""
        ...


def require(kind: str) -> None:
    """Refuse to begin with a track whose package is not there.

    Raises:
        MissingExtra: E303, exit code 3.
    """
    if not kind:
        return
    found = importlib.util.find_spec(kind)
    if found is None or found.origin is None:  # a mere folder of that name is no package
        raise MissingExtra(kind, kind)


class Track:
    """One run's track; what its board raises is a warning, and the last that is written."""

    def __init__(self, kind: str, board: Board, console: Console) -> None:
        self.kind, self.console = kind, console
        self.board: Board | None = board
        self.step = 0

    def write(self, record: Mapping[str, Any]) -> None:
        """Write the numbers of one logged line at its step."""
        self.step = int(record.get("step", record.get("epoch", 0)))
        with self._told() as board:
            board.write(_numbers(record), self.step)

    def result(self, result: Mapping[str, Any]) -> None:
        """Write the numbers of the run's result at its last step."""
        found = {f"result/{name}": score.value for name, score in values.flat(result).items()}
        with self._told() as board:
            board.write(found, self.step)

    def forget(self, step: int) -> None:
        """Drop what was written after a step."""
        with self._told() as board:
            board.forget(step)

    def close(self, status: str) -> None:
        """End the track."""
        with self._told() as board:
            board.close(status)

    @contextmanager
    def _told(self) -> Iterator[Board]:
        if self.board is None:
            self.board = _Silent()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # theirs to each other
                yield self.board
        except Exception as error:
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            self.console.warn(f"--track {self.kind} ended, metrics.jsonl goes on ({said})")
            self.board = _Silent()


class _Silent:
    """A board that is gone."""

    def write(self, numbers: Mapping[str, float], step: int) -> None:
        """Write nothing."""

    def forget(self, step: int) -> None:
        """Nothing is there."""

    def close(self, status: str) -> None:
        """Nothing is open."""


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in record.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name != "step"
    }


class TensorBoard:
    """Scalars in `RUN/tensorboard`; a resumed run adds a file that hides what it repeats."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder, self.settings = folder / "tensorboard", settings
        self.writer: Any = None
        self.first: int | None = None  # steps from here on in older files are no longer true

    def write(self, numbers: Mapping[str, float], step: int) -> None:
        """Add numbers at a step, to be read at once."""
        if self.writer is None:
            self.writer = self._open()
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def _open(self) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        is_new = not self.folder.exists()
        create: Any = SummaryWriter
        writer = create(str(self.folder), purge_step=self.first)
        if is_new:
            rows = [f"| {name} | {value} |" for name, value in self.settings.items()]
            writer.add_text("settings", "\n".join(["| setting | value |", "| - | - |", *rows]))
        return writer

    def forget(self, step: int) -> None:
        """Let the next file hide what was written after a step."""
        self.close("")
        self.first = step + 1

    def close(self, status: str) -> None:
        """Close the file."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None


class Mlflow:
    """A run of MLflow, in the experiment of the topic's name."""

    def __init__(self, run: Run, settings: Mapping[str, Any]) -> None:
        self.run, self.settings = run, settings
        self.client: Any = None
        self.run_id = ""
        self.seen = -1  # steps that an earlier process wrote

    def write(self, numbers: Mapping[str, float], step: int) -> None:
        """Add numbers at a step; those of a step that is there already are the same."""
        if self.client is None:
            self._open()
        from mlflow.entities import Metric

        if step <= self.seen and not any(name.startswith("result/") for name in numbers):
            return
        now = int(1000 * time.time())
        metrics = [Metric(_key(name), value, now, step) for name, value in numbers.items()]
        self.client.log_batch(self.run_id, metrics=metrics)

    def _open(self) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        # the only store that needs neither a server nor a database
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        from mlflow.tracking import MlflowClient

        path = self.run.folder / FILE
        known = runs.read_json(self.run.folder, FILE) if path.exists() else {}
        default = os.environ.get("MLFLOW_TRACKING_URI") or Path("mlruns").resolve().as_uri()
        address = str(known.get("uri", default))
        self.client = MlflowClient(tracking_uri=address)
        if known:
            self._go_on(str(known["run_id"]))
            return
        self.run_id = self._create()
        files.write_json_atomic(path, {"kind": "mlflow", "uri": address, "run_id": self.run_id})

    def _go_on(self, run_id: str) -> None:
        self.run_id = run_id
        self.client.update_run(run_id, status="RUNNING")
        self.seen = max(
            (
                each.step
                for name in self.client.get_run(run_id).data.metrics
                for each in self.client.get_metric_history(run_id, name)
            ),
            default=-1,
        )

    def _create(self) -> str:
        experiment = self.client.get_experiment_by_name(self.run.topic)
        place = experiment and experiment.experiment_id
        from mlflow.entities import Param

        place = place or self.client.create_experiment(self.run.topic)
        tags = {"dltool.run": str(self.run.folder.resolve()), "dltool.topic": self.run.topic}
        made = self.client.create_run(place, run_name=self.run.folder.name, tags=tags)
        params = [Param(_key(name), str(value)[:LONGEST]) for name, value in self.settings.items()]
        self.client.log_batch(made.info.run_id, params=params)
        return str(made.info.run_id)

    def forget(self, step: int) -> None:
        """Leave what is there: an exact resume gives the same numbers again."""

    def close(self, status: str) -> None:
        """Tell how the run ended."""
        if self.client is not None:
            self.client.set_terminated(self.run_id, status=status)


def _key(name: str) -> str:
    return re.sub(r"[^\w./ -]", "_", name)


@contextmanager
def followed(run: Run, settings: Mapping[str, Any], console: Console) -> Iterator[None]:
    """Let a run's log go to the board that its settings name, if any, while the block runs."""
    kind = str(settings.get("track", ""))
    if not kind or console.dry_run:  # a rehearsal leaves nothing on a board
        yield
        return
    require(kind)
    board: Board = (
        TensorBoard(run.folder, settings) if kind == "tensorboard" else Mlflow(run, settings)
    )
    run.track = track = Track(kind, board, console)
    try:
        yield
    except BaseException as error:
        is_asked_for = isinstance(error, Interrupted | Stopped | KeyboardInterrupt)
        track.close("KILLED" if is_asked_for else "FAILED")
        raise
    track.close("FINISHED")
