"""Predict where the memory of a training step goes, and what would save some of it."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

from dltool.console import Console
from dltool.device import PRECISIONS
from dltool.errors import ConfigError, DltoolError
from dltool.memory import is_out_of_memory, release
from dltool.ranges import one_of
from dltool_gpu import live, targets
from dltool_gpu.models import Source
from dltool_gpu.recompute import checkpoint_blocks

GIB = 1 << 30
CARDS = (8, 12, 16, 24, 40, 80)
CONTEXT_BYTES = 600 << 20  # what CUDA itself takes of a GPU before the first tensor
USABLE = 0.95  # the rest goes to the gaps between tensors
PARTS = 4  # of a batch, for the effect of accumulation
RULE_OF_USE = 1.2  # memory to use a model by the size of its file


@dataclass(frozen=True)
class Plan:
    """The step that is asked about."""

    batch: int
    precision: str = "fp32"
    optimizer: str = "adamw"
    checkpointing: bool = False


@dataclass(frozen=True)
class Prediction:
    """Bytes of a training step, once the optimizer's state exists.

    Attributes:
        parameters: numbers that are trained.
        activations: what is kept at the end of the forward pass for the backward pass, casts of
            weights included.
        peak: the most at one moment. Less than the sum: activations go while gradients come.
    """

    batch: int
    parameters: int
    weights: int
    buffers: int
    gradients: int
    optimizer: int
    inputs: int
    activations: int
    peak: int


def check(precision: str) -> None:
    """Raise ConfigError E206 for an unknown precision; any GPU may be asked about."""
    one_of("--precision", precision, list(PRECISIONS))


def blueprint(source: Source) -> Source:
    """Return the model's structure without memory for its weights, made once.

    Models are built on the device `meta`; those that look at values while they are built, or keep
    tensors that are neither parameters nor buffers, are built for real and then emptied.

    Raises:
        ConfigError: E202, it cannot be built.
    """
    assert source.build is not None
    build = source.build
    try:
        with torch.device("meta"):
            structure = build()
        is_whole = not any(_loose_meta(module) for module in structure.modules())
    except Exception:  # whatever a stranger's model raises; built for real it may work
        is_whole = False
    if not is_whole:
        with explained(source):
            structure = live.emptied(build(), "meta")
    # a copy each time, since checkpointing changes it
    return replace(source, build=lambda: copy.deepcopy(structure))


def _loose_meta(module: nn.Module) -> bool:
    return any(isinstance(value, Tensor) and value.is_meta for value in vars(module).values())


def predict(source: Source, plan: Plan) -> Prediction:
    """Run one step on tensors without content and count.

    Args:
        source: its `build` gives the structure; see `blueprint`.

    Raises:
        ConfigError: E202, the model cannot be run so.
    """
    assert source.build is not None
    structure = source.build()
    if plan.checkpointing:
        checkpoint_blocks(structure)
    with live.counting() as count, explained(source):
        model = live.emptied(structure, "cpu").train()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = make_optimizer(trained, plan.optimizer)
        for parameter in trained:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        optimizer.zero_grad()
        inputs = [item.batch(plan.batch) for item in source.inputs]
        before = count.peak = count.now
        with _autocast("cpu", plan.precision):
            loss = loss_of(model(*inputs))
        held = count.now - before
        loss.backward()
        gradients = size_of(parameter.grad for parameter in trained)
        optimizer.step()
        return Prediction(
            batch=plan.batch,
            parameters=sum(parameter.numel() for parameter in trained),
            weights=size_of(model.parameters()),
            buffers=size_of(model.buffers()),
            gradients=gradients,
            optimizer=size_of(tree_leaves(optimizer.state_dict()["state"])),
            inputs=size_of(inputs),
            activations=held,
            peak=count.peak,
        )


def predict_use(source: Source, plan: Plan) -> int:
    """Return the peak of a forward pass that keeps nothing for a backward pass."""
    assert source.build is not None
    structure = source.build()
    with live.counting() as count, explained(source):
        model = live.emptied(structure, "cpu").eval()
        inputs = [item.batch(plan.batch) for item in source.inputs]
        count.peak = count.now
        with torch.inference_mode(), _autocast("cpu", plan.precision):
            model(*inputs)
        return count.peak


@contextmanager
def explained(source: Source) -> Iterator[None]:
    """Turn what a stranger's model raises into one error."""
    try:
        yield
    except DltoolError:
        raise
    except Exception as error:
        shapes = ", ".join("x".join(map(str, item.shape)) for item in source.inputs)
        first = (str(error).strip().splitlines() or [""])[0]
        raise ConfigError(
            "E202",
            f"{source.name} cannot be trained on an input of {shapes} without looking at values: "
            f"{type(error).__name__}: {first}",
            cure="correct --input, or take a part of the model that does not depend on values",
        ) from error


def _autocast(kind: str, precision: str) -> AbstractContextManager[object]:
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(kind, dtype=PRECISIONS[precision])


def make_optimizer(parameters: Sequence[nn.Parameter], name: str) -> torch.optim.Optimizer:
    """Return the optimizer as it is on a GPU by default: over all parameters at once."""
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=1e-3, foreach=True)
    momentum = 0.9 if name == "momentum" else 0.0
    return torch.optim.SGD(parameters, lr=1e-3, momentum=momentum, foreach=True)


def loss_of(outputs: object) -> Tensor:
    """Return a usual loss of whatever a model gives: cross-entropy over its classes.

    Classes are the second axis of (B, C) and (B, C, H, W), and the last of (B, L, C).

    Raises:
        TypeError: it gives no tensor of real numbers.
    """
    losses = []
    for leaf in tree_leaves(outputs):
        if not isinstance(leaf, Tensor) or not leaf.is_floating_point():
            continue
        logits = leaf.flatten(0, 1) if leaf.ndim == 3 else leaf
        if logits.ndim < 2:
            losses.append(logits.float().mean())
            continue
        shape = (logits.shape[0], *logits.shape[2:])
        wanted = torch.zeros(shape, dtype=torch.int64, device=logits.device)
        losses.append(F.cross_entropy(logits.float(), wanted))
    if not losses:
        raise TypeError("the model returned no tensor of real numbers")
    return torch.stack(losses).sum()


def size_of(tensors: Any) -> int:
    """Return the bytes of tensors, those that share memory once."""
    storages = {
        tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes()
        for tensor in tensors
        if isinstance(tensor, Tensor)
    }
    return sum(storages.values())


# The whole answer


def answer(
    source: Source, plan: Plan, device: torch.device, given: int | None, console: Console
) -> dict[str, Any]:
    """Predict, measure where there is a GPU, and try what would save memory."""
    usable, where = usable_memory(device, given)
    real, source = source, blueprint(source)
    with console.progress(None, "budget", "step") as bar:

        def tried(other: Plan) -> Prediction:
            found = predict(source, other)
            bar.advance()
            return found

        now = tried(plan)
        twice = tried(replace(plan, batch=2 * plan.batch))
        slope = (twice.peak - now.peak) / plan.batch
        fixed = now.peak - slope * plan.batch
        saving = [{**row, "saves": now.peak - row["peak"]} for row in _savings(source, plan, tried)]
        measured = measure(real, plan, device) if device.type == "cuda" else None
        largest = None
        if usable is not None:
            largest = largest_batch(
                usable, fixed, slope, lambda size: tried(replace(plan, batch=size)).peak
            )
    return {
        "model": source.name,
        "input": [asdict(item) for item in source.inputs],
        **asdict(plan),
        "predicted": asdict(now),
        "measured": measured,
        "use": predict_use(source, plan),
        "usable": usable,
        "usable_of": where,
        "largest_batch": largest,
        "cards": {
            f"{size} GiB": max(0, math.floor((usable_of(size * GIB) - fixed) / slope))
            for size in CARDS
        },
        "savings": saving,
        "device": targets.described(device),
    }


def _savings(source: Source, plan: Plan, tried: Any) -> Iterator[dict[str, Any]]:
    assert source.build is not None
    can_forget = checkpoint_blocks(source.build()) > 0
    variants = []
    if plan.precision == "fp32":
        variants.append(("AMP, --precision bf16", replace(plan, precision="bf16")))
    if can_forget:
        variants.append(("checkpointing", replace(plan, checkpointing=True)))
    if can_forget and plan.precision == "fp32":
        both = replace(plan, precision="bf16", checkpointing=True)
        variants.append(("AMP and checkpointing", both))
    if plan.batch >= 2 * PARTS:
        smaller = replace(plan, batch=math.ceil(plan.batch / PARTS))
        variants.append((f"--accumulate {PARTS}, batches of {smaller.batch}", smaller))
    for name, other in variants:
        yield {"name": name, "peak": tried(other).peak}


def usable_of(total: int) -> int:
    """Return what is left of a card's memory for tensors."""
    return int((total - CONTEXT_BYTES) * USABLE)


def usable_memory(device: torch.device, given: int | None) -> tuple[int | None, str]:
    """Return the bytes that tensors may take, and where the number is from.

    Raises:
        ConfigError: E202, a given size leaves nothing.
    """
    if given is not None:
        if usable_of(given) <= 0:
            raise ConfigError(
                "E202",
                "--device-memory leaves nothing: CUDA itself takes 0.6 GiB",
                received=given,
                cure="give at least 1GiB",
            )
        return usable_of(given), "given"
    if device.type == "cuda":
        return int(targets.free_memory(device) * USABLE), "free on the GPU"
    return None, ""


def largest_batch(usable: int, fixed: float, slope: float, peak_of: Any) -> int:
    """Return the largest batch whose predicted peak fits; 0 when not one sample does.

    The peak grows with the batch in a straight line but for small batches, so a line through two
    of them leads close; the prediction itself then decides.
    """
    guess = math.floor((usable - fixed) / slope)
    for _ in range(4):
        if guess < 1:
            return 0
        over = peak_of(guess) - usable
        if over <= 0:
            return guess
        guess -= max(1, math.ceil(over / slope))
    return max(guess, 0)


def measure(source: Source, plan: Plan, device: torch.device) -> dict[str, Any]:
    """Run two real steps on a GPU and return the peak that torch counted, or that it did not fit.

    The second step is the usual one: the optimizer's state exists.
    """
    assert source.build is not None
    release(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    try:
        with explained(source):
            _real_steps(source, plan, device)
    except (ConfigError, RuntimeError) as error:
        cause = error.__cause__ or error
        if not is_out_of_memory(cause):
            raise
        return {"fits": False, "peak": None}
    finally:
        release(device)
    return {"fits": True, "peak": torch.cuda.max_memory_allocated(device) - before}


def _real_steps(source: Source, plan: Plan, device: torch.device) -> None:
    assert source.build is not None
    model = source.build().to(device).train()
    optimizer = make_optimizer(list(model.parameters()), plan.optimizer)
    inputs = [item.batch(plan.batch, device) for item in source.inputs]
    for _ in range(2):
        with _autocast("cuda", plan.precision):
            loss = loss_of(model(*inputs))
        loss.backward()
        del loss
        optimizer.step()
        optimizer.zero_grad()


def of_weights(source: Source, plan: Plan) -> dict[str, Any]:
    """Answer for stored weights: what training and use need without the activations.

    Trained weights are held in float32, with gradients and the optimizer's numbers likewise.
    """
    numbers = sum(count for _, count, _ in source.weights)
    stored = sum(size for _, _, size in source.weights)
    kept = {"sgd": 0, "momentum": 1, "adamw": 2}[plan.optimizer]
    return {
        "model": source.name,
        "input": None,
        **asdict(plan),
        "batch": None,
        "formats": {dtype: count for dtype, count, _ in source.weights},
        "predicted": {
            "parameters": numbers,
            "stored": stored,
            "weights": 4 * numbers,
            "gradients": 4 * numbers,
            "optimizer": 4 * kept * numbers,
            "activations": None,
            "peak": None,
        },
        "use": round(RULE_OF_USE * stored),
    }
