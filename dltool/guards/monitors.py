"""Guards while training: `Watch` hangs on the optimizer's step and reads what is there anyway.

    watch = guards.Watch(model, optimizer)
    for inputs, labels in loader:
        optimizer.zero_grad()
        loss = criterion(model(inputs), labels)
        loss.backward()
        optimizer.step()
        watch.loss(loss)
    print(watch.report().text())

It changes nothing: a training with it ends with the same weights as one without.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dltool.guards.curves import diverged, plateau
from dltool.guards.findings import Clean, Finding, NotJudged, Verdict
from dltool.guards.report import Report, report_of

EVERY = 50
FEWEST = 16
KEPT, STALE_STEPS, EVAL_STEPS, LOOKS = 4000, 3, 20, 3
TORN, STILL = 0.2, 1e-6
COLLAPSED = 0.1
MODAL = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)
Horizon = (1 / 1.1, 1.1)


class Watch:
    """Watch one model and its optimizer while they train.

    Args:
        every: steps between looks at gradients and updates.
        scheduler: whose horizon is compared with the steps taken.
        chance: the loss of guessing, as ln C; 0 where it is not known.
        classes: number of classes, for the floor of a doubled softmax.
        zeroes: the loop clears gradients for sure, so that nobody has to look.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        every: int = EVERY,
        scheduler: Any = None,
        chance: float = 0.0,
        classes: int = 0,
        zeroes: bool = False,
    ) -> None:
        self.model, self.optimizer, self.scheduler = model, optimizer, scheduler
        self.every, self.chance, self.classes = every, chance, classes
        self.steps = 0
        self.losses: deque[float] = deque(maxlen=KEPT)
        self.found: dict[str, Finding] = {}
        self._stale = self._evaluating = self._torn = self._idle = 0
        self._fresh_backward = False
        self._zero: dict[str, int] = {}
        self._collapsed = 0
        self._before: list[Tensor] = []
        self._named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        # a handful of numbers may well double in a step
        self._measured = [p for _, p in self._named if p.dim() > 1 and p.numel() >= FEWEST]
        self._modal = [
            (name, module)
            for name, module in model.named_modules()
            # a model that comes in evaluation mode whole was not put there on purpose
            if isinstance(module, MODAL) and (module.training or not model.training)
        ]
        self._hooks: list[Any] = [
            optimizer.register_step_pre_hook(lambda *_: self._before_step()),
            optimizer.register_step_post_hook(lambda *_: self._after_step()),
        ]
        if self._named and not zeroes:
            name, first = self._named[-1]
            self._hooks.append(first.register_hook(lambda _: self._backward(name, first)))

    def close(self) -> None:
        """Take the hooks off."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def loss(self, value: Tensor | float) -> None:
        """Note the loss of a step; reading it from an accelerator waits for it."""
        number = float(value)
        self.losses.append(number)
        if not math.isfinite(number):
            self._add("G-M01", "fail", f"the loss is {number} at step {self.steps}", number)

    def evaluated(self, predicted: Tensor, labels: Tensor) -> None:
        """G-M06: note what an evaluation predicted, as class ids or as counts of each class.

        Args:
            predicted, labels: (N,) class ids; or (C,) counts as floating-point numbers.
        """
        shares = [_shares(each) for each in (predicted, labels)]
        given, wanted = (_entropy(each) for each in shares)
        self._collapsed = self._collapsed + 1 if given < COLLAPSED * wanted else 0
        if self._collapsed >= 2:
            top = float(shares[0].max())
            self._add(
                "G-M06",
                "fail",
                f"{top:.1%} of the predictions are one class, at two evaluations in a row (entropy "
                f"{given:.3f}, of the labels {wanted:.3f}; limit {COLLAPSED:.0%} of it)",
                given,
                COLLAPSED * wanted,
            )

    def report(self) -> Report:
        """Return what was found so far."""
        return report_of([*self.verdicts()])

    def verdicts(self) -> list[Verdict]:
        """Return a verdict of each monitor."""
        losses = list(self.losses)
        found: list[Verdict] = [
            *self.found.values(),
            plateau(losses, self.chance, self.classes),
            diverged(losses),
            self._horizon(),
        ]
        known = {each.code for each in found}
        seen = ("G-M01", "G-M02", "G-M03", "G-M07")
        if self.steps >= EVAL_STEPS:
            found += [Clean(code) for code in seen if code not in known]
        else:
            why = f"{self.steps} steps are too few"
            found += [NotJudged(code, why) for code in seen if code not in known]
        return found

    # ---- at every step: a few flags --------------------------------------------------------

    def _backward(self, name: str, weight: nn.Parameter) -> None:
        """Look, before the first gradient after a step is added, whether an old one is there."""
        if self._fresh_backward:
            return
        self._fresh_backward = True
        old = weight.grad is not None and bool(weight.grad.any())
        self._stale = self._stale + 1 if old and self.steps else 0
        if self._stale >= STALE_STEPS:
            self._add(
                "G-M02",
                "fail",
                f"the gradients of earlier steps are still there at {self._stale} steps in a row "
                f"({name}): each is added to all before it",
                self._stale,
                STALE_STEPS,
                "call optimizer.zero_grad() before backward",
                name,
            )

    def _before_step(self) -> None:
        asleep = [name for name, module in self._modal if not module.training]
        self._evaluating = self._evaluating + 1 if asleep else 0
        if self._evaluating == EVAL_STEPS:
            self._add(
                "G-M03",
                "fail",
                f"{EVAL_STEPS} steps in a row were taken with {len(asleep)} dropout or batch "
                f"normalisation layers in evaluation mode ({asleep[0]})",
                EVAL_STEPS,
                EVAL_STEPS,
                "call model.train() after each evaluation",
                asleep[0],
            )
        if self.steps % self.every == self.every - 1:
            self._look()
            self._before = [each.detach().clone() for each in self._measured]

    def _after_step(self) -> None:
        self.steps += 1
        self._fresh_backward = False
        if self._before:
            self._measure_update()
            self._before = []

    # ---- at every fiftieth: norms ----------------------------------------------------------

    def _look(self) -> None:
        """G-M01 and G-M07: are gradients finite, and does every weight get one?"""
        held = [(name, each.grad) for name, each in self._named if each.grad is not None]
        dense = [(name, gradient) for name, gradient in held if not gradient.is_sparse]
        if not dense:
            return
        sizes = torch.stack(torch._foreach_norm([gradient for _, gradient in dense])).tolist()
        for (name, _), size in zip(dense, sizes, strict=True):
            if not math.isfinite(size):
                said = f"the gradient of {name} is not finite at step {self.steps + 1}"
                self._add("G-M01", "fail", said, size, place=name)
            self._zero[name] = self._zero.get(name, 0) + 1 if size == 0 else 0
            if self._zero[name] == LOOKS and not name.endswith("bias"):
                self._add(
                    "G-M07",
                    "warn",
                    f"the gradient of {name} is exactly 0 at {LOOKS} looks, {self.every} steps "
                    "apart: it is not trained",
                    0.0,
                    0.0,
                    "look for dead units, or freeze it",
                    name,
                )

    def _measure_update(self) -> None:
        now = [each.detach() for each in self._measured]
        change = torch._foreach_norm(torch._foreach_sub(now, self._before))
        size = torch._foreach_norm(self._before)
        pairs = torch.stack([torch.stack(change), torch.stack(size)]).tolist()
        ratios = [c / s for c, s in zip(*pairs, strict=True) if s > 1e-3]
        if not ratios:
            return
        rate = max(float(group["lr"]) for group in self.optimizer.param_groups)
        self._torn = self._torn + 1 if max(ratios) > TORN else 0
        # near the end of a schedule small steps are meant
        still = max(ratios) < STILL and rate >= 0.5 * self._peak()
        self._idle = self._idle + 1 if still else 0
        if self._torn == LOOKS or self._idle == LOOKS:
            size_of = "more" if self._torn == LOOKS else "less"
            limit = TORN if self._torn == LOOKS else STILL
            which = "a weight" if self._torn == LOOKS else "every weight"
            said = f"a step changes {which} by {size_of} than {limit:g} of its size "
            said += f"({max(ratios):.2g}), at {LOOKS} looks in a row"
            self._add("G-M07", "warn", said, max(ratios), limit, "change --lr")

    def _peak(self) -> float:
        groups = self.optimizer.param_groups
        return max(float(group.get("initial_lr", group["lr"])) for group in groups)

    def _horizon(self) -> Verdict:
        """G-M04: did the schedule take as many steps as it was made for?"""
        horizon = getattr(self.scheduler, "T_max", None) or getattr(
            self.scheduler, "total_steps", None
        )
        if not horizon or self.steps < EVAL_STEPS:
            return NotJudged("G-M04", "no schedule with a horizon was given")
        taken = int(self.scheduler.last_epoch)
        share = taken / int(horizon)
        if Horizon[0] <= share <= Horizon[1]:
            return Clean("G-M04", share)
        return Finding(
            "G-M04",
            "warn",
            f"the schedule took {taken:,} of the {int(horizon):,} steps that it was made for, in "
            f"{self.steps:,} steps of the optimizer",
            "count the horizon in the unit in which scheduler.step() is called",
            measured=share,
            limit=Horizon[1],
        )

    def _add(
        self,
        code: str,
        severity: str,
        message: str,
        measured: float,
        limit: float = 0.0,
        cure: str = "lower the rate, or look for the cause at the named place",
        place: str = "",
    ) -> None:
        if code not in self.found:
            self.found[code] = Finding(
                code, severity, message, cure, measured=measured, limit=limit, place=place
            )


def _shares(values: Tensor) -> Tensor:
    counts = values if values.is_floating_point() else torch.bincount(values.cpu())
    return counts.double() / counts.sum().clamp_min(1)


def _entropy(shares: Tensor) -> float:
    known = shares[shares > 0]
    return float(-(known * known.log()).sum())
