"""Guards on gradients and on what the optimizer holds: G-P06, G-P07, G-P16."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dltool.guards.findings import Clean, Finding, NotJudged, Verdict
from dltool.guards.slopes import MATRICES, Slope, Slopes
from dltool.guards.subject import CannotJudge, Subject

SHOWN = 3
FEW_LIVE, HALF_LIVE = 0.05, 0.5
VANISHED = 1e-6
GROWTH = 1e3
FEWEST_SAMPLES = 8
FEWEST_UNITS = 8  # a narrow layer may lose all of them by chance


def names(found: Sequence[str]) -> str:
    """Return the first of some names, and how many more there are."""
    more = len(found) - SHOWN
    return ", ".join(found[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def coverage(slopes: Slopes) -> list[Verdict]:
    """G-P06: does every weight that is to be trained get a gradient?"""
    if not slopes.needs_grad:
        return [
            Finding(
                "G-P06",
                "fail",
                "the loss does not depend on any trainable parameter",
                "look for detach, no_grad or numpy between model and loss",
            )
        ]
    found = [each for each in (_broken(slopes), _without(slopes), _zero(slopes)) if each]
    return [*found] or [Clean("G-P06")]


def _broken(slopes: Slopes) -> Finding | None:
    bad = [each.name for each in slopes.own.values() if not each.is_finite]
    if not bad and math.isfinite(slopes.loss):
        return None
    what = f"the gradient of {bad[0]}" if bad else "the first loss"
    return Finding(
        "G-P06",
        "fail",
        f"{what} is not finite",
        "look for NaN in the data, and for log, sqrt or division of 0 in the model",
        place=bad[0] if bad else "",
    )


def _without(slopes: Slopes) -> Finding | None:
    missing = [
        name
        for name, each in slopes.own.items()
        if each.size is None and all(other[name].size is None for other in slopes.shaken)
    ]
    if not missing:
        return None
    used = [name for name in missing if name.rpartition(".")[0] in slopes.called]
    shown = used or missing
    why = "take part in forward but" if used else "belong to layers that forward does not call and"
    return Finding(
        "G-P06",
        "fail",
        f"{len(missing)} of {len(slopes.own)} trainable parameters {why} get no gradient: "
        f"{names(shown)}",
        "look for detach, .data or numpy on the way to the loss"
        if used
        else "use these layers in forward, or freeze them",
        measured=float(len(missing)),
        limit=0.0,
        place=shown[0],
    )


def _zero(slopes: Slopes) -> Finding | None:
    if not slopes.shaken:
        return None
    zero = [
        name
        for name, each in slopes.own.items()
        if each.is_zero and all(not other[name].size for other in slopes.shaken)
    ]
    # a bias in front of a normalisation, or of attention keys, moves nothing by construction
    alone = [
        name
        for name in zero
        if not name.endswith("bias") or name.removesuffix("bias") + "weight" in zero
    ]
    if not alone:
        return None
    return Finding(
        "G-P06",
        "warn",
        f"the gradient of {len(alone)} of {len(slopes.own)} trainable parameters is exactly 0, "
        f"also with other weights and seeds: {names(alone)}",
        "look for dead units, a multiplication by 0, or attention to a single key",
        measured=0.0,
        limit=0.0,
        place=alone[0],
    )


def holdings(subject: Subject, slopes: Slopes | None) -> Verdict:
    """G-P07: does the optimizer hold every weight that is to be trained, once?"""
    if not subject.optimizers:
        return NotJudged("G-P07", "no optimizer was given")
    groups = [group for each in subject.optimizers for group in each.param_groups]
    held = [id(weight) for group in groups for weight in group["params"]]
    missing = [name for name, weight in subject.trained if id(weight) not in held]
    twice = [name for name, weight in subject.trained if held.count(id(weight)) > 1]
    strangers = slopes.strangers if slopes is not None else ()
    if missing:
        problem = f"{len(missing)} trainable parameters are in no group ({names(missing)})"
        cure = "build the optimizer after the model is complete"
    elif strangers:
        problem = (
            f"{len(strangers)} weights take part in the loss, but stand in a plain list or "
            f"attribute, where nobody finds them (shapes {names(strangers)})"
        )
        cure = "keep layers in nn.ModuleList or nn.ModuleDict, tensors in nn.Parameter"
    elif twice and len(subject.optimizers) == 1:
        problem, cure = f"{names(twice)} occur twice", "give every parameter to one group"
    else:
        return Clean("G-P07", float(len(held)))
    return Finding(
        "G-P07",
        "fail",
        f"the optimizer does not hold the model's parameters: {problem}",
        cure,
        measured=float(len(missing or strangers or twice)),
        limit=0.0,
        place=next(iter(missing or twice), ""),
    )


def signal(subject: Subject, slopes: Slopes) -> list[Verdict]:
    """G-P16: do the units live, does the gradient reach the first layer, does the signal grow?"""
    found = [
        each
        for each in (_dead(subject, slopes), _vanished(slopes), _growth(subject))
        if each is not None
    ]
    return [*found] or [Clean("G-P16")]


def _dead(subject: Subject, slopes: Slopes) -> Finding | None:
    if subject.size < FEWEST_SAMPLES:
        return None
    live: dict[str, float] = {}
    for name, each in slopes.own.items():
        shares = [each.dead, *(other[name].dead for other in slopes.shaken)]
        if each.dead is not None and slopes.shaken:
            live[name] = 1 - min(share for share in shares if share is not None)
    if not live:
        return None
    worst = min(live, key=lambda name: live[name])
    share = live[worst]
    if share >= HALF_LIVE:
        return None
    return Finding(
        "G-P16",
        "fail" if share < FEW_LIVE and slopes.own[worst].units >= FEWEST_UNITS else "warn",
        f"{1 - share:.0%} of the units of {worst.removesuffix('.weight')} are dead: no sample of "
        f"the batch gives them a gradient (limits {1 - HALF_LIVE:.0%} and {1 - FEW_LIVE:.0%})",
        "use default initialisation, a smaller rate, or another activation than ReLU",
        measured=1 - share,
        limit=1 - HALF_LIVE,
        place=worst.removesuffix(".weight"),
    )


def _vanished(slopes: Slopes) -> Finding | None:
    layers = [each for each in slopes.own.values() if each.dead is not None and each.per_weight]
    if len(layers) < 3:
        return None
    first, last = layers[0], layers[-1]
    ratio = first.per_weight / last.per_weight
    if ratio >= VANISHED or not math.isfinite(ratio):
        return None
    return Finding(
        "G-P16",
        "fail",
        f"the gradient vanishes: per weight it is {ratio:.1g} times as large at {_layer(first)} as "
        f"at {_layer(last)} (limit {VANISHED:g})",
        "use ReLU in place of sigmoid or tanh, normalisation layers, or fewer layers",
        measured=ratio,
        limit=VANISHED,
        place=_layer(first),
    )


def _layer(slope: Slope) -> str:
    return slope.name.removesuffix(".weight")


def spreads(subject: Subject) -> dict[str, float]:
    """Return the deviation of each layer's output on the batch, in the order of the calls."""
    found: dict[str, float] = {}

    def note(name: str, output: object) -> None:
        if isinstance(output, Tensor) and output.is_floating_point() and output.numel() > 1:
            found.setdefault(name, float(output.detach().float().std()))

    hooks = [
        module.register_forward_hook(lambda _m, _i, output, name=name: note(name, output))
        for name, module in subject.model.named_modules()
        if isinstance(module, MATRICES)
    ]
    try:
        subject.outputs()
    except (RuntimeError, ValueError) as error:
        raise CannotJudge(f"the model does not run in evaluation mode: {error}") from error
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _growth(subject: Subject) -> Finding | None:
    with torch.no_grad():
        found = spreads(subject)
    if len(found) < 3:
        return None
    first = next(iter(found.values()))
    place, largest = max(found.items(), key=lambda item: item[1])
    if not first or largest / first <= GROWTH:
        return None
    return Finding(
        "G-P16",
        "warn",
        f"the signal explodes: the outputs of {place} spread {largest / first:.2g} times as far as "
        f"those of the first layer (limit {GROWTH:g})",
        "use the layers' default initialisation, or normalisation layers",
        measured=largest / first,
        limit=GROWTH,
        place=place,
    )
