"""What a `linreg` run can be told, and the recipes that fill what it is not told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dltool import ranges, ranks
from dltool.errors import ConfigError
from dltool.training_config import RunConfig

BUILT_IN = {
    "synthetic": "normal features, known weights (--true-w, --true-b), normal noise",
    "polynomial": "y = (x + 1)² with noise; features x, x², … x^degree (--degree)",
    "diabetes": "442 patients, 10 measurements, disease progression (scikit-learn)",
    "iris": "150 flowers of 3 species, 4 lengths, for --task softmax (scikit-learn)",
    "breast-cancer": "569 tumours, 30 measurements, for --task logistic (scikit-learn)",
    "hours": "3 students: hours of study, and whether they passed, for --task logistic",
}
TASKS = ("regression", "logistic", "softmax")
SOLVERS = ("auto", "closed-form", "scratch", "nn")
OPTIMIZERS = ("sgd", "adam")
SCHEDULES = ("constant", "cosine", "one-cycle")


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """Everything that shapes a `linreg` training run.

    Attributes:
        data: a built-in set or a CSV file.
        target: the column to predict; empty for a built-in set.
        features: comma-separated columns; empty for all that can be used.
        categories: comma-separated columns that are texts, also when they look like numbers.
        delimiter, encoding, decimal: how the CSV file is written; see `dltool.data.tables.Format`.
        log_target: fit the logarithm of the target.
        standardise: bring features and target to mean 0 and deviation 1, by the training rows.
        solver: `auto` is closed-form for regression and nn for the other tasks.
        ridge: alpha in ‖y − Xw‖² + alpha ‖w‖², on standardised features.
        lasso: alpha in ‖y − Xw‖² / 2N + alpha ‖w‖₁, on standardised features.
        batch_size: rows a step; 0 takes all training rows.
        learning_rate: 0 takes the inverse of the loss's largest curvature.
        folds: parts of the training rows for cross-validation; 0 leaves it out.
        true_w, true_b, samples, noise, feature_std: the synthetic set.
        degree: the highest power of the polynomial set.
    """

    data: str = "synthetic"
    target: str = ""
    features: str = ""
    categories: str = ""
    delimiter: str = ""
    encoding: str = "utf-8"
    decimal: str = "."
    log_target: bool = False
    standardise: bool = True
    test_fraction: float = 0.2
    folds: int = 0
    task: str = "regression"
    solver: str = "auto"
    ridge: float = 0.0
    lasso: float = 0.0
    optimizer: str = "sgd"
    epochs: int = 1000
    batch_size: int = 0
    learning_rate: float = 0.0
    momentum: float = 0.9
    schedule: str = "constant"
    true_w: str = "2,-3.4"
    true_b: float = 4.2
    samples: int = 1000
    noise: float = 0.01
    feature_std: float = 1.0
    degree: int = 2
    device: str = "cpu"
    patience: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        ranges.one_of("--task", self.task, TASKS)
        ranges.one_of("--solver", self.solver, SOLVERS)
        ranges.one_of("--optimizer", self.optimizer, OPTIMIZERS)
        ranges.one_of("--schedule", self.schedule, SCHEDULES)
        ranges.at_least("--batch-size", self.batch_size, 0)
        ranges.at_least("--samples", self.samples, 3)
        ranges.inside("--test-fraction", self.test_fraction, 0.0, 0.9)
        ranges.inside("--momentum", self.momentum, 0.0, 0.9999)
        ranges.inside("--degree", self.degree, 1, 30)
        for option, value in (("--ridge", self.ridge), ("--lasso", self.lasso)):
            ranges.inside(option, value, 0.0, 1e12)
        ranges.inside("--lr", self.learning_rate, 0.0, 1e6)
        ranges.inside("--noise", self.noise, 0.0, 1e6)
        ranges.inside("--feature-std", self.feature_std, 1e-9, 1e9)
        if self.folds == 1 or self.folds < 0:
            ranges.at_least("--folds", self.folds, 2)
        _ = self.true_weights
        self._check_pairs()
        if self.settled_solver == "closed-form":
            ranks.refuse_several("--solver closed-form", self.nproc)

    def _check_pairs(self) -> None:
        classifies = self.task != "regression"
        unfit = {
            "--log-target needs --task regression": self.log_target and classifies,
            "--solver closed-form needs --task regression: the other tasks have no closed form": (
                self.solver == "closed-form" and classifies
            ),
            "--lasso needs --task regression and --solver closed-form": (
                self.lasso > 0 and self.settled_solver != "closed-form"
            ),
            "--target is missing: a CSV file needs it": not self.is_built_in and not self.target,
            "--target, --features and --categories belong to a CSV file": self.is_built_in
            and any((self.target, self.features, self.categories)),
            f"--data {self.data} needs --task {self._set_task}": (
                self._set_task not in ("", self.task)
            ),
        }
        for message, is_so in unfit.items():
            if is_so:
                cure = "dltool linreg train --help"
                if "--target is missing" in message:
                    cure = f"add --target COLUMN (--data can also be {', '.join(BUILT_IN)})"
                raise ConfigError("E205", message, cure=cure)

    @property
    def _set_task(self) -> str:
        """The one task that a built-in set is for, or an empty text."""
        tasks = {"diabetes": "regression", "polynomial": "regression", "iris": "softmax"}
        tasks |= {"breast-cancer": "logistic", "hours": "logistic"}
        return tasks.get(self.data, "")

    @property
    def is_built_in(self) -> bool:
        """Whether `data` names a set that ships with dltool."""
        return self.data in BUILT_IN

    @property
    def settled_solver(self) -> str:
        """The solver, with `auto` decided."""
        if self.solver != "auto":
            return self.solver
        return "closed-form" if self.task == "regression" else "nn"

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The columns in `features`."""
        return _names(self.features)

    @property
    def category_names(self) -> tuple[str, ...]:
        """The columns in `categories`."""
        return _names(self.categories)

    @property
    def true_weights(self) -> tuple[float, ...]:
        """The numbers in `true_w`."""
        try:
            weights = tuple(float(word) for word in self.true_w.split(",") if word.strip())
        except ValueError:
            weights = ()
        if not weights:
            raise ConfigError(
                "E202", "--true-w is not understood", received=self.true_w, expected="2,-3.4"
            )
        return weights


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def recipe(chosen: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that suit what was chosen by flag or file."""
    settings: dict[str, Any] = {}
    if chosen.get("data") == "hours":
        settings |= {"test_fraction": 0.0, "task": "logistic"}
    if chosen.get("data") == "iris":
        settings |= {"task": "softmax"}
    if chosen.get("data") == "breast-cancer":
        settings |= {"task": "logistic"}
    if chosen.get("data") == "polynomial":
        settings |= {"noise": 0.5, "samples": 60}
    if chosen.get("batch_size"):
        # with noise in the gradient the rate has to fall, and momentum would add to the noise
        settings |= {"momentum": 0.0, "schedule": "cosine", "epochs": 30}
    if chosen.get("optimizer") == "adam":
        settings |= {"learning_rate": 0.05, "schedule": "cosine"}
    return settings
