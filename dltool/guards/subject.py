"""What the checks of one batch look at: a model, a batch, a loss, and how to run them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dltool.guards import batch_parts
from dltool.guards.batch_parts import Part
from dltool.guards.facts import Facts
from dltool.guards.untouched import device_of

Loss = Callable[[Any, Any], Tensor]
Step = Callable[[Any], Tensor]
Forward = Callable[[Any], Any]

SEED = 7919


class CannotJudge(Exception):
    """A check cannot say; the text tells why."""


@dataclass(frozen=True)
class Subject:
    """A model with all that is needed to run it on a batch; see `dltool.guards.check`.

    Attributes:
        loss: takes the model's output and the target, returns the scalar that is trained on.
        step: takes the batch and returns that scalar, where output and loss are not apart.
        forward: takes the batch and returns the output; by default the model gets the inputs.
        build: makes another model of the same shape, for the round trip through a file.
    """

    model: nn.Module
    batch: Any
    facts: Facts
    loss: Loss | None = None
    step: Step | None = None
    forward: Forward | None = None
    optimizers: tuple[Optimizer, ...] = ()
    build: Callable[[], nn.Module] | None = None

    # ---- the batch ---------------------------------------------------------------------------

    @property
    def parts(self) -> list[Part]:
        """Every tensor of the batch."""
        return batch_parts.parts(self.batch)

    def role(self, role: str) -> list[Part]:
        """Return the tensors of one role."""
        return [each for each in self.parts if each.role == role]

    @property
    def target(self) -> Any:
        """What the output is compared with; the input itself where there is no target."""
        path = batch_parts.target_path(self.batch)
        if path is None:
            found = self.parts
            return found[0].tensor if len(found) == 1 else None
        return batch_parts.at(self.batch, path)

    @property
    def tensor_target(self) -> Tensor:
        """The target, where it is one tensor.

        Raises:
            CannotJudge: it is not.
        """
        if not isinstance(self.target, Tensor):
            raise CannotJudge("the target is not one tensor")
        return self.target

    @property
    def size(self) -> int:
        """Samples in the batch."""
        found = self.role("content") or self.parts
        if not found or not found[0].tensor.dim():
            raise CannotJudge("the batch holds no tensor")
        return int(found[0].tensor.shape[0])

    def with_part(self, part: Part, value: Tensor) -> Any:
        """Return the batch with another tensor in a part's place."""
        return batch_parts.replaced(self.batch, part.path, value)

    # ---- the model ---------------------------------------------------------------------------

    def raw(self, batch: Any) -> Any:
        """Return what the model gives for a batch, as it gives it."""
        if self.forward is not None:
            return self.forward(batch)
        if isinstance(batch, Tensor):
            return self.model(batch)
        path = batch_parts.target_path(batch)
        if isinstance(batch, Mapping):
            own = {key: value for key, value in batch.items() if path is None or key != path[0]}
            return self.model(**own)
        if not isinstance(batch, Sequence):
            raise CannotJudge(f"a batch of {type(batch).__name__} needs forward=")
        inputs = list(batch) if path is None else list(batch[:-1])
        if len(inputs) == 1 and isinstance(inputs[0], Mapping):
            return self.model(**inputs[0])
        return self.model(*inputs)

    def outputs(self, batch: Any = None, *, training: bool = False, seed: int = SEED) -> Tensor:
        """Return the model's output in full precision, without a graph; dropout draws from `seed`.

        Raises:
            CannotJudge: the model does not give a tensor.
        """
        self.model.train(training)
        torch.manual_seed(seed)
        with torch.no_grad():
            found = self.raw(self.batch if batch is None else batch)
        return tensor_of(found).float()

    def loss_of(self, batch: Any = None, *, training: bool = True, seed: int = SEED) -> Tensor:
        """Return the loss of a batch with its graph; gradients of before are gone.

        Raises:
            CannotJudge: there is no loss to run.
        """
        batch = self.batch if batch is None else batch
        self.model.train(training)
        self.model.zero_grad(set_to_none=True)
        torch.manual_seed(seed)
        value: Any
        if self.step is not None:
            value = self.step(batch)
        elif self.loss is not None:
            path = batch_parts.target_path(batch)
            target = self.target if path is None else batch_parts.at(batch, path)
            value = self.loss(plain(self.raw(batch)), target)
        else:
            raise CannotJudge("no loss was given")
        if not isinstance(value, Tensor):
            value = getattr(value, "loss", value["loss"] if isinstance(value, Mapping) else value)
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise CannotJudge("the loss is not one number")
        return value.reshape(())

    def loss_at(self, outputs: Tensor, target: Any = None) -> float:
        """Return the loss of outputs that need not be the model's.

        Raises:
            CannotJudge: the loss does not take outputs and target.
        """
        if self.loss is None:
            raise CannotJudge("output and loss are not apart: give loss=")
        try:
            return float(self.loss(outputs, self.target if target is None else target).detach())
        except (RuntimeError, ValueError, IndexError, TypeError, AttributeError) as error:
            raise CannotJudge(f"the loss refuses made-up outputs: {error}") from error

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return device_of(self.model)

    @property
    def trained(self) -> list[tuple[str, nn.Parameter]]:
        """The weights that are to be trained, by name."""
        return [(name, each) for name, each in self.model.named_parameters() if each.requires_grad]


def plain(found: Any) -> Any:
    """Return what a loss takes of a model's answer: the logits of an answer that has a name."""
    logits = getattr(found, "logits", None)
    return logits if isinstance(logits, Tensor) else found


def tensor_of(found: Any) -> Tensor:
    """Return the tensor that a model's answer is about: itself, its logits, or its first part."""
    if isinstance(found, Tensor):
        return found
    for name in ("logits", "prediction", "output"):
        value = found.get(name) if isinstance(found, Mapping) else getattr(found, name, None)
        if isinstance(value, Tensor):
            return value
    values = list(found.values()) if isinstance(found, Mapping) else found
    if isinstance(values, Sequence):
        for value in values:
            if isinstance(value, Tensor) and value.is_floating_point():
                return value
    raise CannotJudge(f"the model gives {type(found).__name__}, which holds no tensor")


def moved(before: Tensor, after: Tensor) -> float:
    """Return the largest change as a share of the largest value."""
    if before.numel() == 0:
        return 0.0
    scale = max(float(before.abs().max()), 1e-12)
    change = float((before - after).abs().max()) / scale
    return change if change == change else float("inf")


def stream(number: int = 0) -> torch.Generator:
    """Return a random stream of the checks' own, on the CPU."""
    return torch.Generator().manual_seed(SEED + number)


@torch.no_grad()
def shake(model: nn.Module, number: int = 0, size: float = 0.5) -> None:
    """Add noise to every weight: what holds for any weights holds afterwards too.

    What starts at zero (residual branches, heads) is no longer zero; the row of an embedding that
    stands for padding stays.
    """
    draw = stream(number)
    pads = [
        (module, module.weight[module.padding_idx].clone())
        for module in model.modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.padding_idx is not None
    ]
    for each in model.parameters():
        if each.is_floating_point():
            spread = max(float(each.std()) if each.numel() > 1 else 0.0, 0.05)
            change = torch.randn(each.shape, generator=draw) * (spread * size)
            each.add_(change.to(each))
    for module, row in pads:
        module.weight[module.padding_idx] = row
