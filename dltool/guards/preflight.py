"""Look at a model, a batch, a loss and an optimizer before the first step: `check`."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from torch.optim import Optimizer

from dltool.guards import (
    axes,
    batch_parts,
    bottom,
    gradients,
    inputs,
    outputs,
    padding,
    slopes,
    state,
    steps,
)
from dltool.guards.facts import Facts
from dltool.guards.findings import Clean, Finding, NotJudged, Verdict
from dltool.guards.losses import Seen, see
from dltool.guards.report import Report, report_of
from dltool.guards.slopes import Slopes
from dltool.guards.subject import CannotJudge, Forward, Loss, Step, Subject, shake
from dltool.guards.untouched import device_of, untouched

SAMPLES = 64
SECONDS = 10.0
FEWEST_STEPS = 5
SHAKE = 0.1

Verdicts = Verdict | Sequence[Verdict]


@dataclass(frozen=True)
class Look:
    """What the checks share: the subject, the first look at it, the gradients, the clock.

    Attributes:
        modes: the training flag of every module as the model came.
        step_seconds: what one forward and backward pass takes.
        ends: when the time for checks is over.
    """

    subject: Subject
    seen: Seen | None
    slopes: Slopes | None
    modes: Mapping[str, bool]
    step_seconds: float
    ends: float
    why: str

    def need_outputs(self) -> Seen:
        """Return the first look at the outputs, or say why there is none."""
        if self.seen is None:
            raise CannotJudge(self.why)
        return self.seen

    def need_slopes(self) -> Slopes:
        """Return the gradients, or say why there are none."""
        if self.slopes is None:
            raise CannotJudge(self.why)
        return self.slopes

    def affordable(self, most: int) -> int:
        """Return how many steps the time allows, at most `most`.

        Raises:
            CannotJudge: fewer than would tell something.
        """
        count = int((self.ends - time.monotonic()) / max(self.step_seconds, 1e-6))
        if count < FEWEST_STEPS:
            raise CannotJudge("it would take longer than the time for checks")
        return min(most, count)


def check(
    model: nn.Module,
    batch: Any,
    *,
    loss: Loss | None = None,
    optimizer: Optimizer | Sequence[Optimizer] | None = None,
    step: Step | None = None,
    forward: Forward | None = None,
    build: Callable[[], nn.Module] | None = None,
    facts: Facts | None = None,
    full: bool = False,
    without: Iterable[str] = (),
    seconds: float = SECONDS,
) -> Report:
    """Find silent mistakes in a model and its training step, on one batch.

    Everything that is touched is put back bit for bit: weights, buffers, gradients, the optimizer's
    state, modes and random streams.

    Args:
        batch: (inputs, target), (input, input, …, target), a mapping with `labels` among its keys,
            or a tensor that is its own target. 16 to 64 samples tell most.
        loss: takes the model's output and the target, returns the scalar that is trained on.
        optimizer: as the training will use it; several for several.
        step: takes the batch and returns the loss, for a model whose output and loss are not apart
            (Lightning's `training_step`). Some checks then cannot judge.
        forward: takes the batch and returns the output, where the model does not take its inputs.
        build: makes a second model of the same shape, to test the round trip through weights.
        facts: what the batch does not show, see `Facts`.
        full: also learn the batch by heart, which takes seconds.
        without: codes of guards that are not to count.
        seconds: time for the checks; those that would take longer are not judged.
    """
    optimizers = (
        ()
        if optimizer is None
        else (optimizer,)
        if isinstance(optimizer, Optimizer)
        else tuple(optimizer)
    )
    small = batch_parts.cut(batch_parts.on_device(batch, device_of(model)), SAMPLES)
    subject = Subject(model, small, facts or Facts(), loss, step, forward, optimizers, build)
    modes = {name: module.training for name, module in model.named_modules()}
    with untouched(model, optimizers), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        verdicts = _run(subject, modes, time.monotonic() + seconds, full=full)
    return report_of(verdicts, without)


def _run(subject: Subject, modes: Mapping[str, bool], ends: float, *, full: bool) -> list[Verdict]:
    first = _guarded("G-D01", lambda: inputs.finite(subject))
    look = _first_look(subject, modes, ends)
    found = [*first]
    for code, judge in (*EXACT, *(BY_HEART if full else ())):
        found += _guarded(code, lambda judge=judge: judge(look))  # type: ignore[misc]
    # branches that start at 0 hide what stands behind them: noise on every weight opens them
    with untouched(subject.model):
        shake(subject.model, size=SHAKE)
        for code, judge in SHAKEN:
            found += _guarded(code, lambda judge=judge: judge(look))  # type: ignore[misc]
    return found


def _first_look(subject: Subject, modes: Mapping[str, bool], ends: float) -> Look:
    seen, slope, why = None, None, ""
    started = time.monotonic()
    with untouched(subject.model):
        try:
            seen = see(subject)
        except Exception as error:
            why = _told(error)
    if seen is not None and not subject.facts.task:
        subject = replace(subject, facts=replace(subject.facts, task=seen.task))
    with untouched(subject.model):
        started = time.monotonic()
        try:
            slope = slopes.look(subject)
        except Exception as error:
            why = why or _told(error)
    passes = 1 + len(slope.shaken) if slope is not None else 1
    seconds = (time.monotonic() - started) / passes
    return Look(subject, seen, slope, modes, 1.3 * seconds, ends, why)


def _told(error: Exception) -> str:
    if isinstance(error, CannotJudge):
        return str(error)
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def _guarded(code: str, judge: Callable[[], Verdicts]) -> list[Verdict]:
    """Run a check; one that cannot be run has judged nothing."""
    try:
        found = judge()
    except Exception as error:
        return [NotJudged(code, _told(error))]
    return [found] if isinstance(found, Finding | Clean | NotJudged) else [*found]


def _steps(look: Look) -> list[Verdict]:
    return steps.step_size(look.subject, look.affordable(steps.STEPS))


def _own(check: Callable[[Subject], Verdicts]) -> Callable[[Look], Verdicts]:
    def judge(look: Look) -> Verdicts:
        with untouched(look.subject.model):
            return check(look.subject)

    return judge


def _with_outputs(check: Callable[[Subject, Seen], Verdict]) -> Callable[[Look], Verdicts]:
    def judge(look: Look) -> Verdicts:
        seen = look.need_outputs()
        with untouched(look.subject.model):
            return check(look.subject, seen)

    return judge


def _frozen(look: Look) -> list[Verdict]:
    with untouched(look.subject.model):
        return state.frozen(look.subject, dict(look.modes))


EXACT: tuple[tuple[str, Callable[[Look], Verdicts]], ...] = (
    ("G-D02", _own(inputs.scale)),
    ("G-P01", _with_outputs(outputs.probabilities)),
    ("G-P02", _with_outputs(outputs.expressible)),
    ("G-P03", _with_outputs(outputs.broadcast)),
    ("G-P04", _with_outputs(outputs.prefers_right)),
    ("G-P04", _with_outputs(bottom.bottom)),
    ("G-P05", _with_outputs(outputs.first_loss)),
    ("G-P06", lambda look: gradients.coverage(look.need_slopes())),
    ("G-P07", lambda look: gradients.holdings(look.subject, look.slopes)),
    ("G-P08", _frozen),
    ("G-P15", _own(steps.alike)),
    ("G-P16", lambda look: gradients.signal(look.subject, look.need_slopes())),
    ("G-P18", _steps),
    ("G-P19", _own(state.round_trip)),
)
SHAKEN: tuple[tuple[str, Callable[[Look], Verdicts]], ...] = (
    ("G-P09", _own(axes.between_samples)),
    ("G-P10", _own(axes.prefix)),
    ("G-P11", _own(padding.padding)),
    ("G-P12", _own(axes.order)),
    ("G-P13", _own(inputs.used)),
    ("G-P14", _own(axes.repeats)),
)
BY_HEART: tuple[tuple[str, Callable[[Look], Verdicts]], ...] = (
    ("G-P17", lambda look: steps.by_heart(look.subject, look.affordable(200))),
)
