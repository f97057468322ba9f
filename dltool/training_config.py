"""What every training run can be told; a topic's config inherits it and adds its own.

@dataclass(frozen=True)
class TrainConfig(TrainingConfig):
    epochs: int = 12            # a default of its own
    width: int = 16             # a field of its own

    def __post_init__(self) -> None:
        super().__post_init__()
        ranges.at_least("--width", self.width, 1)
"""

from __future__ import annotations

from dataclasses import dataclass

from dltool import durations, nonfinite, ranges, tracking
from dltool.guards import findings

GUARDS = ("preflight", "full", "strict", "only", "only-full", "off")


@dataclass(frozen=True)
class RunConfig:
    """The settings of every training run, whatever it trains.

    Attributes:
        threads: CPU threads; 0 leaves torch's choice.
        save_every: interval between checkpoints, as `10m`, `30s` or `500steps`.
        keep: checkpoints to keep beside the best.
        max_time: when to stop and save, as `2h`; empty: never.
        nproc: ranks to train in on this machine; torchrun's number comes before it.
        on_nan: what to do about NaN and infinity, see `dltool.nonfinite`.
        guards: which checks run before the training, see `dltool.guards.findings`.
        track: a board of another program that gets the metrics too, see `dltool.tracking`.
        without: guards that are left out, each as `CODE` or `CODE: reason`.
    """

    epochs: int = 10
    device: str = "auto"
    seed: int = 0
    threads: int = 0
    save_every: str = "60s"
    keep: int = 2
    max_time: str = ""
    on_nan: str = "stop"
    nproc: int = 1
    track: str = ""
    guards: str = "preflight"
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        ranges.at_least("--epochs", self.epochs, 1)
        ranges.inside("--seed", self.seed, 0, 2**63 - 1)
        ranges.at_least("--threads", self.threads, 0)
        ranges.at_least("--keep", self.keep, 2)
        ranges.at_least("--nproc", self.nproc, 1)
        ranges.one_of("--on-nan", self.on_nan, nonfinite.KINDS)
        ranges.one_of("--track", self.track, tracking.KINDS)
        ranges.one_of("--guards", self.guards, GUARDS)
        findings.reasons(self.without)
        durations.parse_every("--save-every", self.save_every)
        durations.parse_duration("--max-time", self.max_time)


@dataclass(frozen=True)
class TrainingConfig(RunConfig):
    """The settings of every network that learns in batches by gradients.

    Attributes:
        learning_rate: peak of the schedule.
        weight_decay: of matrices and kernels; biases and norms have none.
        accumulate: batches whose gradients make one step.
        clip: largest gradient norm; 0: off.
        ema: decay of the averaged weights that are evaluated and kept; 0: off.
        patience: epochs without a better one after which to stop; 0: never.
        deterministic: use only bitwise repeatable kernels on a GPU.
    """

    batch_size: int = 128
    learning_rate: float = 0.01
    weight_decay: float = 0.01
    accumulate: int = 1
    clip: float = 0.0
    ema: float = 0.0
    patience: int = 0
    precision: str = "fp32"
    deterministic: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        ranges.at_least("--batch-size", self.batch_size, 1)
        ranges.at_least("--accumulate", self.accumulate, 1)
        ranges.at_least("--patience", self.patience, 0)
        ranges.inside("--lr", self.learning_rate, 0.0, 100.0, open_low=True)
        ranges.inside("--weight-decay", self.weight_decay, 0.0, 10.0)
        ranges.inside("--clip", self.clip, 0.0, 1e6)
        ranges.inside("--ema", self.ema, 0.0, 0.999999)
