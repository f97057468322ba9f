"""What an `mlp-xor` run can be told, and the recipes that fill what it is not told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dltool import ranges
from dltool.errors import ConfigError
from dltool.training_config import TrainingConfig

TASKS = {
    "table": "the four points of exclusive or; with --noise, a cloud around each",
    "sign": "100,000 normal points: do both coordinates have the same sign?",
    "spirals": "two spirals wound into one another",
    "circles": "a ring around a ring",
    "moons": "two half moons that reach into one another",
}
ACTIVATIONS = ("relu", "tanh", "sigmoid", "gelu")
INITS = {
    "auto": "kaiming for relu and gelu, xavier for tanh and sigmoid",
    "xavier": "variance 2 / (fan in + fan out) (Glorot and Bengio, 2010)",
    "kaiming": "variance 2 / fan in (He et al., 2015)",
    "normal": "variance 1",
    "small": "deviation 0.01",
    "constant": "every weight 0.5: all units of a layer stay alike",
}
LOSSES = ("cross-entropy", "mse")
OPTIMIZERS = ("adam", "sgd")
SCHEDULES = ("one-cycle", "cosine", "constant")


@dataclass(frozen=True)
class TrainConfig(TrainingConfig):
    """Everything that shapes an `mlp-xor` training run.

    Attributes:
        points: training points; validation and test points are drawn beside them.
        noise: deviation of the Gaussian that moves every point after it was labelled.
        hidden: widths of the hidden layers, comma-separated; `none` is a linear model.
        loss: `cross-entropy` on a logit, or `mse` between the plain output and the labels -1, 1.
        passes: how often an epoch goes over the points.
        tolerance: how near an output must be to -1 or 1 to count in the tolerance accuracy.
        snapshots: moments of the training to keep for `plot --animate`.
    """

    task: str = "table"
    points: int = 4
    noise: float = 0.0
    hidden: str = "4"
    activation: str = "tanh"
    init: str = "auto"
    loss: str = "cross-entropy"
    optimizer: str = "adam"
    passes: int = 50
    batch_size: int = 1000
    learning_rate: float = 0.05
    schedule: str = "one-cycle"
    weight_decay: float = 0.0
    tolerance: float = 0.15
    snapshots: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        ranges.one_of("--task", self.task, tuple(TASKS))
        ranges.one_of("--activation", self.activation, ACTIVATIONS)
        ranges.one_of("--init", self.init, tuple(INITS))
        ranges.one_of("--loss", self.loss, LOSSES)
        ranges.one_of("--optimizer", self.optimizer, OPTIMIZERS)
        ranges.one_of("--schedule", self.schedule, SCHEDULES)
        ranges.inside("--points", self.points, 4, 10_000_000)
        ranges.inside("--noise", self.noise, 0.0, 10.0)
        ranges.inside("--passes", self.passes, 1, 1_000_000)
        ranges.inside("--tolerance", self.tolerance, 0.0, 1.0, open_low=True)
        ranges.inside("--snapshots", self.snapshots, 0, 500)
        _ = self.hidden_widths
        if self.task == "table" and self.noise == 0 and self.points != 4:
            raise ConfigError(
                "E205",
                f"--task table has four points, not {self.points}, as long as --noise is 0",
                cure="add --noise 0.1, or leave --points out",
            )

    @property
    def hidden_widths(self) -> tuple[int, ...]:
        """The numbers in `hidden`; none for a linear model."""
        if self.hidden.strip() == "none":
            return ()
        try:
            widths = tuple(int(width) for width in self.hidden.split(","))
        except ValueError:
            widths = ()
        if not widths or not all(0 < width <= 4096 for width in widths):
            raise ConfigError(
                "E202",
                "--hidden is not understood",
                received=self.hidden,
                expected="widths from 1 to 4096 with commas between them, or none",
                cure="use --hidden 9,5",
            )
        return widths


# What a task wants; flags and --config come before it.
RECIPES: dict[str, dict[str, Any]] = {
    "table": {},
    # 2-9-5-1 with sigmoids, as in the source documents; an output within 0.15 of -1 or 1 needs
    # steep walls along both axes, which a high rate builds quickly
    "sign": {
        "points": 100_000,
        "hidden": "9,5",
        "activation": "sigmoid",
        "learning_rate": 0.3,
        "epochs": 40,
        "passes": 1,
    },
    "spirals": {
        "points": 1000,
        "noise": 0.02,
        "hidden": "16,16",
        "batch_size": 100,
        "learning_rate": 0.03,
        "epochs": 20,
        "passes": 10,
    },
    "circles": {"points": 1000, "noise": 0.08, "hidden": "8", "batch_size": 100, "passes": 5},
    "moons": {"points": 1000, "noise": 0.15, "hidden": "8,8", "batch_size": 100, "passes": 20},
}
CLOUDS: dict[str, Any] = {"points": 400, "batch_size": 100, "passes": 5}


def recipe(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that suit what was chosen already, by flag or file.

    Args:
        chosen: field names of `TrainConfig` with their values.
    """
    task = chosen.get("task", TrainConfig.task)
    settings = dict(RECIPES.get(task, {}))
    if task == "table" and chosen.get("noise", 0.0) > 0:
        settings = dict(CLOUDS)
    settings["threads"] = 1  # layers this small are slower on several
    if task == "sign" and chosen.get("activation", "sigmoid") != "sigmoid":
        settings["learning_rate"] = 0.1
    if chosen.get("loss") == "mse":
        settings["learning_rate"] = 0.02
    if chosen.get("optimizer") == "sgd":
        settings["learning_rate"] = 0.5 if chosen.get("loss") != "mse" else 0.1
    return settings
