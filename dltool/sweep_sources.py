"""Where a sweep's runs come from: the whole grid, or a search that learns from what has ended."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dltool.errors import ConfigError, MissingExtra
from dltool.seeds import derive_seed
from dltool.sweep_processes import Outcome
from dltool.sweeps import Member, Settings, Sweep, named
from dltool.tree import Parameter

STORAGE = "study.log"


class Grid:
    """Every combination of the axes' values, with every seed."""

    def __init__(self, sweep: Sweep) -> None:
        self.settings = sweep.settings()
        self.waiting = deque(
            member for settings in self.settings for member in sweep.members(settings)
        )
        self.total = len(self.waiting)

    def next(self) -> Member | None:
        """Return the next run of the grid."""
        return self.waiting.popleft() if self.waiting else None

    def ended(self, outcome: Outcome) -> None:
        """Nothing is learnt from it."""


@dataclass(frozen=True)
class Span:
    """A range of one setting that a search draws from, evenly or evenly on a logarithmic scale."""

    parameter: Parameter
    low: float
    high: float
    log: bool

    @property
    def is_whole(self) -> bool:
        """Whether only whole numbers are drawn."""
        return self.parameter.kind is int


def span(text: str, parameters: Sequence[Parameter]) -> Span:
    """Read `lr=1e-4..1e-1:log`.

    Raises:
        ConfigError: E201, it is written otherwise; E202, the bounds are no range of numbers.
    """
    match = re.fullmatch(r"([\w-]+)=([^:]+?)\.\.([^:]+?)(:log)?", text.strip())
    if match is None:
        raise ConfigError(
            "E201", "--range is not understood", received=text, expected="as lr=1e-4..1e-1:log"
        )
    parameter = named(match[1], parameters)
    try:
        low, high = float(match[2]), float(match[3])
    except ValueError:
        low = high = math.nan
    is_log = match[4] is not None
    if not (math.isfinite(low) and math.isfinite(high) and low < high and (low > 0 or not is_log)):
        expected = "two numbers, the lower first" + (", above 0 with :log" if is_log else "")
        raise ConfigError("E202", "--range is no range", received=text, expected=expected)
    if parameter.kind not in (int, float):
        raise ConfigError(
            "E202", f"{match[1]} is no number", received=text, cure=f"use --set {match[1]}=A,B"
        )
    found = Span(parameter, low, high, is_log)
    if found.is_whole and not (low.is_integer() and high.is_integer()):
        raise ConfigError("E202", f"{match[1]} is a whole number", received=text)
    return found


@dataclass
class _Trial:
    number: int
    settings: Settings
    waiting: deque[Member]
    left: int
    values: list[float] = field(default_factory=list)


class Search:
    """Trials that optuna proposes (TPE: Bergstra et al., 2011), each with every seed.

    The study lies in the sweep's folder as a journal of JSON lines; a later call goes on with it.
    """

    def __init__(
        self,
        sweep: Sweep,
        spans: Sequence[Span],
        trials: int,
        score: Callable[[Path], float | None],
        *,
        higher: bool,
    ) -> None:
        self.sweep, self.spans, self.score = sweep, spans, score
        self.optuna = _optuna()
        self.study = self._study(higher)
        self.names = [each.parameter.name for each in spans] + list(sweep.axes)
        self.open: list[_Trial] = []
        self.busy: set[str] = set()
        self.settings: list[Settings] = []
        self.total = trials * max(1, len(sweep.seeds))
        running = self.optuna.trial.TrialState.RUNNING
        before = self.study.get_trials(deepcopy=False)
        ended = [each for each in before if each.state != running]
        for each in ended:
            self._remember(each.params)
        # a call that was stopped leaves trials that have begun and not ended
        self.begun = deque(each for each in before if each.state == running)
        self.left = trials - len(ended)

    def _study(self, higher: bool) -> Any:
        journal = self.optuna.storages.journal
        path = str(self.sweep.folder / STORAGE)
        storage = self.optuna.storages.JournalStorage(journal.JournalFileBackend(path))
        study = self.optuna.create_study(
            storage=storage,
            study_name="sweep",
            direction="maximize" if higher else "minimize",
            load_if_exists=True,
        )
        # other numbers than those of the calls before
        seed = derive_seed(0, "search", len(study.get_trials(deepcopy=False)))
        study.sampler = self.optuna.samplers.TPESampler(seed=seed % 2**32)
        return study

    def next(self) -> Member | None:
        """Return a run of a trial that has begun, or of a new one."""
        while True:
            for trial in self.open:
                # two trials may draw the same settings: the second finds the first's runs done
                if trial.waiting and trial.waiting[0].name not in self.busy:
                    self.busy.add(trial.waiting[0].name)
                    return trial.waiting.popleft()
            if self.left <= 0 or any(trial.waiting for trial in self.open):
                return None
            self._begin()

    def _begin(self) -> None:
        if self.begun:
            old = self.begun.popleft()
            if set(old.params) != set(self.names):  # stopped before it had drawn everything
                self.study.tell(old.number, state=self.optuna.trial.TrialState.FAIL)
                self.left -= 1
                return
            number, drawn = old.number, old.params
        else:
            new = self.study.ask()
            number, drawn = new.number, self._draw(new)
        self.left -= 1
        settings = self._remember(drawn)
        members = self.sweep.members(settings)
        self.open.append(_Trial(number, settings, deque(members), len(members)))

    def _remember(self, drawn: Mapping[str, Any]) -> Settings:
        settings: Settings = tuple((name, _text(drawn.get(name, ""))) for name in self.names)
        if settings not in self.settings and len(drawn) == len(self.names):
            self.settings.append(settings)
        return settings

    def _draw(self, trial: Any) -> dict[str, Any]:
        drawn: dict[str, Any] = {}
        for each in self.spans:
            name = each.parameter.name
            if each.is_whole:
                drawn[name] = trial.suggest_int(name, int(each.low), int(each.high), log=each.log)
            else:
                drawn[name] = trial.suggest_float(name, each.low, each.high, log=each.log)
        for name, values in self.sweep.axes.items():
            drawn[name] = trial.suggest_categorical(name, list(values))
        return drawn

    def ended(self, outcome: Outcome) -> None:
        """Tell the study a trial's mean over its seeds, once all have ended."""
        self.busy.discard(outcome.member.name)
        settings = outcome.member.settings
        trial = next(each for each in self.open if each.settings == settings)
        trial.left -= 1
        value = self.score(outcome.member.folder) if outcome.code == 0 else None
        trial.values += [] if value is None else [value]
        if trial.left:
            return
        self.open.remove(trial)
        if trial.values:
            self.study.tell(trial.number, sum(trial.values) / len(trial.values))
        else:
            self.study.tell(trial.number, state=self.optuna.trial.TrialState.FAIL)


def _text(value: Any) -> str:
    # four digits are as good as seventeen, and a person can type them
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MissingExtra("optuna", "sweep") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
