"""Guards that perturb one sample or one token and see what moves: G-P09 to G-P12, G-P14."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dltool.guards.batch_parts import Part, noise, replaced
from dltool.guards.findings import Clean, Finding, NotJudged, Verdict
from dltool.guards.subject import CannotJudge, Subject, moved, stream, tensor_of

SAMPLE_LIMIT = 1e-4
PREFIX_LIMIT = 1e-5
REPEAT_LIMIT = 1e-4

Traces = list[tuple[str, Tensor]]


@contextmanager
def traced(model: nn.Module) -> Iterator[Traces]:
    """Note each module's output in the order of the calls."""
    found: Traces = []

    def note(name: str, output: object) -> None:
        try:
            found.append((name, tensor_of(output).detach()))
        except CannotJudge:
            return

    hooks = [
        module.register_forward_hook(lambda _m, _i, output, name=name: note(name, output))
        for name, module in model.named_modules()
        if name
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def first_to_move(before: Traces, after: Traces, shape: tuple[int, ...], rest: Any) -> str:
    """Return the first module of those with the leading shape whose output moves at `rest`."""
    for (name, one), (other, two) in zip(before, after, strict=False):
        fits = name == other and one.shape == two.shape and one.shape[: len(shape)] == shape
        if fits and one.is_floating_point() and moved(one[rest], two[rest]) > SAMPLE_LIMIT:
            return name
    return ""


def between_samples(subject: Subject) -> Verdict:
    """G-P09: put noise into one sample; in evaluation mode no other output may move."""
    reason = _why_mixed(subject)
    if reason:
        return NotJudged("G-P09", reason)
    count = subject.size
    batch, changed_any = subject.batch, False
    for part in subject.role("content"):
        if part.tensor.dim() == 0 or len(part.tensor) != count:
            return NotJudged("G-P09", f"{part.name} has no axis of samples in front")
        changed = part.tensor.clone()
        changed[:1] = noise(part.tensor, stream(11), subject.facts.pad)[:1]
        changed_any |= not torch.equal(changed, part.tensor)
        batch = replaced(batch, part.path, changed)
    if not changed_any:
        return NotJudged("G-P09", "no other input than the present one is known")
    with traced(subject.model) as before:
        one = subject.outputs()
    with traced(subject.model) as after:
        two = subject.outputs(batch)
    if one.dim() == 0 or len(one) != count or one.shape != two.shape:
        return NotJudged("G-P09", f"outputs {tuple(one.shape)} for {count} samples")
    change = moved(one[1:], two[1:])
    # kernels that choose their way by the numbers may differ: the same batch twice is the measure
    if change <= SAMPLE_LIMIT or change <= 100 * moved(one, subject.outputs()):
        return Clean("G-P09", change)
    place = first_to_move(before, after, (count,), slice(1, None))
    return Finding(
        "G-P09",
        "fail",
        f"noise in one sample of a batch moves the outputs of others by {change:.2g} of their "
        f"scale (limit {SAMPLE_LIMIT:g})" + (f", first in {place}" if place else ""),
        "look for a layer that mixes the batch axis: a wrong reshape, batch_first, softmax(0)",
        measured=change,
        limit=SAMPLE_LIMIT,
        place=place,
    )


def _why_mixed(subject: Subject) -> str:
    if subject.facts.mixed:
        return "the facts say that samples are meant to influence one another"
    count = subject.size
    if count < 2:
        return "the batch holds one sample"
    tensors = [part.tensor for part in subject.parts if part.role != "target"]
    for module in subject.model.modules():
        held = [*module._buffers.values(), *vars(module).values()]
        tensors += [each for each in held if isinstance(each, Tensor)]
    for each in tensors:
        is_graph = each.dim() == 2 and (tuple(each.shape) == (count, count) or each.is_sparse)
        is_edges = not each.is_floating_point() and each.dim() == 2 and len(each) == 2 != count
        if is_graph or is_edges:
            return "a graph connects the samples"
    return ""


def repeats(subject: Subject) -> Verdict:
    """G-P14: do two evaluations of one batch agree, whatever random numbers are drawn?"""
    if subject.facts.stochastic:
        return NotJudged("G-P14", "the facts say that evaluation draws random numbers")
    with traced(subject.model) as before, _Drawn() as drawn:
        one = subject.outputs()
    with traced(subject.model) as after:
        two = subject.outputs(seed=1)
    change = moved(one, two) if one.shape == two.shape else math.inf
    if change <= REPEAT_LIMIT:
        return Clean("G-P14", change)
    if not drawn.has_masks:
        return NotJudged(
            "G-P14",
            f"evaluation draws random numbers, though not by dropout (outputs differ by "
            f"{change:.2g} of their scale); say stochastic=True if that is meant",
        )
    shape = tuple(one.shape[:1])
    place = first_to_move(before, after, shape, slice(None))
    return Finding(
        "G-P14",
        "fail",
        f"two evaluations of the same batch differ by {change:.2g} of the outputs' scale (limit "
        f"{REPEAT_LIMIT:g}): dropout stays on in evaluation mode"
        + (f", first in {place}" if place else ""),
        "use nn.Dropout, or F.dropout(x, p, training=self.training)",
        measured=change,
        limit=REPEAT_LIMIT,
        place=place,
    )


class _Drawn(TorchDispatchMode):
    """Notice when random masks are drawn: dropout, by whatever function."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.has_masks = False

    def __torch_dispatch__(  # type: ignore[no-untyped-def]
        self, func, types, args=(), kwargs=None
    ):
        if "bernoulli" in func.name() or "dropout" in func.name():
            self.has_masks = True
        return func(*args, **(kwargs or {}))


# ---- along the tokens ------------------------------------------------------------------------


def lag_of(tokens: Tensor, target: Tensor, ignore: int, lag: int) -> float:
    """Return how often the target is the token `lag` places on, where it is scored."""
    if lag >= 0:
        ahead, goal = tokens[:, lag:], target[:, : target.shape[1] - lag]
    else:
        ahead, goal = tokens[:, :lag], target[:, -lag:]
    scored = goal != ignore
    count = int(scored.sum())
    return float((ahead == goal)[scored].float().mean()) if count else 0.0


def token_part(subject: Subject) -> tuple[Part, int] | None:
    """Return the tokens that the target follows, and how many places it is ahead of them."""
    target = subject.target
    if not isinstance(target, Tensor) or target.dim() != 2 or target.is_floating_point():
        return None
    ignore = subject.facts.ignore_index
    if subject.facts.pad is not None and bool((target == subject.facts.pad).any()):
        ignore = subject.facts.pad
    for part in reversed(subject.role("content")):
        if part.is_tokens and part.tensor.shape == target.shape and target.shape[1] > 8:
            rates = {lag: lag_of(part.tensor, target, ignore, lag) for lag in (1, 0, 2, 3, -1)}
            lag = max(rates, key=lambda each: rates[each])
            if rates[lag] >= 0.95:
                return part, lag
    return None


def prefix(subject: Subject) -> list[Verdict]:
    """G-P10: change late tokens; earlier outputs may not move. And are targets one place ahead?"""
    facts = subject.facts
    if facts.causal is False or facts.task == "masked-lm":
        return [NotJudged("G-P10", "the model is meant to see the whole text")]
    known = token_part(subject)
    if known is None and not facts.causal:
        return [NotJudged("G-P10", "the targets are not the inputs moved by one place")]
    part = known[0] if known else _sequence(subject)
    if part is None:
        return [NotJudged("G-P10", "no input runs along the tokens")]
    found: list[Verdict] = []
    if known and known[1] != 1:
        shifted = _shifted(subject, known[1])
        if shifted is None and not facts.causal:
            return [NotJudged("G-P10", "the loss moves the targets itself")]
        found += [shifted] if shifted else []
    verdict = next(
        (
            each
            for training in (False, True)
            if isinstance(each := _later_tokens(subject, part, training=training), Finding)
        ),
        None,
    )
    return [*found, verdict] if verdict else found or [Clean("G-P10")]


def _sequence(subject: Subject) -> Part | None:
    longest = [each for each in subject.role("content") if each.tensor.dim() >= 2]
    return longest[-1] if longest else None


def _shifted(subject: Subject, lag: int) -> Finding | None:
    """Tell of targets that are not the next token, unless the loss moves them itself."""
    target = subject.tensor_target
    other = target.clone()
    other[:, 0] = noise(target, stream(3), subject.facts.pad)[:, 0]
    path_batch = subject.with_part(subject.role("target")[0], other)
    if lag == 0 and math.isclose(
        float(subject.loss_of(training=False)),
        float(subject.loss_of(path_batch, training=False)),
        rel_tol=1e-6,
    ):
        return None
    what = "equal the inputs" if lag == 0 else f"are the inputs moved by {lag} places"
    return Finding(
        "G-P10",
        "fail",
        f"the targets {what}, not by one: "
        + ("copying solves the task" if lag <= 0 else "another task than the next token"),
        "train on inputs[:, :-1] against inputs[:, 1:]",
        measured=float(lag),
        limit=1.0,
        place=subject.role("target")[0].name,
    )


def _later_tokens(subject: Subject, part: Part, *, training: bool) -> Verdict:
    length = part.tensor.shape[1]
    if training and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in _modules(subject)):
        return NotJudged("G-P10", "batch normalisation looks along the whole batch in training")
    other = noise(part.tensor, stream(7), subject.facts.pad)
    for place in (length - 1, length // 2):
        changed = part.tensor.clone()
        changed[:, place:] = other[:, place:]
        with traced(subject.model) as before:
            one = subject.outputs(training=training)
        with traced(subject.model) as after:
            two = subject.outputs(subject.with_part(part, changed), training=training)
        if one.dim() < 2 or one.shape[1] != length or one.shape != two.shape:
            return NotJudged("G-P10", f"outputs {tuple(one.shape)} do not run along the tokens")
        scored = _scored(subject, one, place)
        change = moved(one[:, :place][scored], two[:, :place][scored])
        if change <= PREFIX_LIMIT:
            continue
        name = first_to_move(before, after, tuple(one.shape[:2]), (slice(None), slice(0, place)))
        mode = "training" if training else "evaluation"
        return Finding(
            "G-P10",
            "fail",
            f"in {mode} mode the model sees the tokens that it is to predict: changing those from "
            f"place {place} on moves earlier outputs by {change:.2g} of their scale (limit "
            f"{PREFIX_LIMIT:g})" + (f", first in {name}" if name else ""),
            "mask attention causally in both modes (is_causal=True), use one direction of an RNN",
            measured=change,
            limit=PREFIX_LIMIT,
            place=name,
        )
    return Clean("G-P10")


def _modules(subject: Subject) -> Iterator[nn.Module]:
    return subject.model.modules()


def _scored(subject: Subject, outputs: Tensor, place: int) -> Tensor:
    """Return which earlier outputs count: a prefix that the loss leaves out may see itself."""
    target = subject.target
    is_like = isinstance(target, Tensor) and target.shape == outputs.shape[:2]
    if not is_like:
        return torch.ones(outputs.shape[0], place, dtype=torch.bool, device=outputs.device)
    scored: Tensor = target[:, :place] != subject.facts.ignore_index
    return scored


def order(subject: Subject) -> Verdict:
    """G-P12: exchange earlier tokens; the last output has to notice."""
    known = token_part(subject)
    part = known[0] if known else None
    looks = subject.facts.ordered or subject.facts.causal or known is not None
    looks = looks or _attends(subject)
    if part is None and looks:
        part = next((each for each in subject.role("content") if each.is_tokens), None)
    if part is None or not looks:
        return NotJudged("G-P12", "the order of the inputs need not matter")
    tokens = part.tensor
    last = _shortest(subject, tokens) - 1
    if last < 2:
        return NotJudged("G-P12", "the texts are too short to exchange tokens")
    changed = tokens.clone()
    changed[:, :last] = tokens[:, :last].flip(1)
    if torch.equal(changed, tokens):
        return NotJudged("G-P12", "the tokens read the same backwards")
    one, two = subject.outputs(), subject.outputs(subject.with_part(part, changed))
    if one.dim() >= 3 and one.shape[1] == tokens.shape[1]:
        one, two = one[:, last], two[:, last]
    change = moved(one, two)
    if change > PREFIX_LIMIT:
        return Clean("G-P12", change)
    return Finding(
        "G-P12",
        "warn",
        f"exchanging earlier tokens moves the last output by {change:.2g} of its scale (limit "
        f"{PREFIX_LIMIT:g}): to the model a text is a bag of words",
        "add a position embedding",
        measured=change,
        limit=PREFIX_LIMIT,
        place=part.name,
    )


def _shortest(subject: Subject, tokens: Tensor) -> int:
    """Return how many places are real in every text."""
    sizes = [tokens.shape[1]]
    sizes += [int(part.tensor.min()) for part in subject.role("lengths")]
    masks = [part.tensor for part in subject.role("mask") if part.tensor.shape == tokens.shape]
    sizes += [int((mask == mask[0, 0]).sum(1).min()) for mask in masks]
    if subject.facts.pad is not None:
        sizes.append(int((tokens != subject.facts.pad).sum(1).min()))
    return min(sizes)


def _attends(subject: Subject) -> bool:
    """Tell whether there is attention and tokens: then positions are meant to be there."""
    has_tokens = any(part.is_tokens for part in subject.role("content"))
    return has_tokens and any("ttention" in type(m).__name__ for m in _modules(subject))
