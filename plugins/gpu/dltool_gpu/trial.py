"""Train the MNIST-sized network 784-1024-10 on every device and compare what they learn.

The images are drawn at random in MNIST's shape (ten classes, 28 × 28 grey values), so that the
test needs no download: each class has a pattern, each image is its class's pattern under noise.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dltool.device import generator
from dltool.timing import Stopwatch, synchronize
from dltool_gpu import targets

CLASSES, EDGE, HIDDEN = 10, 28, 1024
WARMUP_STEPS = 5
REFERENCE_STEPS = 20
NOISE = 4.0  # of the pattern's own deviation 1
TEST_IMAGES = 2000


@dataclass(frozen=True)
class Plan:
    """What every device does alike.

    Attributes:
        batch_size: images of a step, over all devices together.
    """

    images: int = 12_800
    batch_size: int = 128
    epochs: int = 4
    learning_rate: float = 0.02
    seed: int = 0

    @property
    def steps(self) -> int:
        """Steps of an epoch; a last batch that is not full is left out."""
        return self.images // self.batch_size


class Data(NamedTuple):
    """Images (N, 784) with mean 0 and deviation about 1, and their classes (N,)."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Outcome:
    """What one device made of it.

    Attributes:
        losses: of every step.
        accuracy: on images that it was not trained on.
        seconds: of training, without warm-up and evaluation.
        images_per_second: trained images by those seconds.
    """

    device: str
    name: str
    losses: list[float]
    accuracy: float
    seconds: float
    images_per_second: float


def network() -> nn.Sequential:
    """784 → 1024 → 10, the logits as they are: the loss takes their softmax (814,090 numbers)."""
    return nn.Sequential(nn.Linear(EDGE * EDGE, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))


def initial_weights(seed: int) -> dict[str, Tensor]:
    """Draw the weights on the CPU, so that every device starts from the same bits."""
    stream = generator(seed, "weights")
    model = network()
    for parameter in model.parameters():
        bound = (parameter.shape[1] if parameter.ndim > 1 else 100) ** -0.5
        nn.init.uniform_(parameter, -bound, bound, generator=stream)
    return model.state_dict()


@functools.lru_cache(maxsize=1)
def make_data(plan: Plan) -> tuple[Data, Data]:
    """Draw training and test images on the CPU, the same ones for every device."""
    stream = generator(plan.seed, "patterns")
    patterns = torch.randn(CLASSES, EDGE * EDGE, generator=stream)
    sets = []
    for name, count in (("train", plan.images), ("test", TEST_IMAGES)):
        stream = generator(plan.seed, "images", name)
        labels = torch.randint(CLASSES, (count,), generator=stream)
        noise = torch.randn(count, EDGE * EDGE, generator=stream)
        images = (patterns[labels] + NOISE * noise) / (1 + NOISE**2) ** 0.5
        sets.append(Data(images, labels))
    return sets[0], sets[1]


def order(plan: Plan, epoch: int) -> Tensor:
    """Return the epoch's order of the images, (steps, batch_size)."""
    stream = generator(plan.seed, "order", epoch)
    taken = plan.steps * plan.batch_size
    return torch.randperm(plan.images, generator=stream)[:taken].view(plan.steps, plan.batch_size)


def train(
    device: torch.device,
    plan: Plan,
    *,
    on_step: Callable[[int], None] = lambda step: None,
    sync: Callable[[nn.Module], None] = lambda model: None,
    part: slice = slice(None),
    dtype: torch.dtype = torch.float32,
    most_steps: int | None = None,
) -> tuple[nn.Module, list[float], float]:
    """Train on one device with the data in its memory; float32 is without TF32.

    Args:
        on_step: hears of every finished step.
        sync: makes the gradients those of all devices.
        part: this device's share of every batch.
        most_steps: end after so many.

    Returns:
        The model, the loss of every step, and the seconds without the warm-up.
    """
    model = network().to(device, dtype)
    model.load_state_dict(initial_weights(plan.seed))
    data = make_data(plan)[0]
    data = Data(data.images.to(device, dtype), data.labels.to(device))
    optimizer = torch.optim.SGD(model.parameters(), lr=plan.learning_rate)
    losses: list[Tensor] = []
    watch = Stopwatch(device)

    def step(rows: Tensor) -> None:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(data.images[rows]), data.labels[rows])
        loss.backward()
        sync(model)
        optimizer.step()
        losses.append(loss.detach())

    model.train()
    with targets.tf32(False):
        for _ in range(WARMUP_STEPS):  # kernels load, clocks rise
            model(data.images[: plan.batch_size]).sum().backward()
        for epoch in range(plan.epochs):
            rows = order(plan, epoch)[:, part].to(device)
            if most_steps is not None and len(losses) >= most_steps:
                break
            with watch.lap():
                for number in range(plan.steps)[:most_steps]:
                    step(rows[number])
                    on_step(epoch * plan.steps + number + 1)
    return model, torch.stack(losses).tolist(), watch.seconds


def run(
    device: torch.device, plan: Plan, on_step: Callable[[int], None] = lambda step: None
) -> Outcome:
    """Train and evaluate on one device."""
    model, losses, seconds = train(device, plan, on_step=on_step)
    return Outcome(
        device=str(device),
        name=targets.title_of(device),
        losses=losses,
        accuracy=accuracy(model, make_data(plan)[1], device),
        seconds=seconds,
        images_per_second=len(losses) * plan.batch_size / seconds,
    )


def reference(plan: Plan) -> list[float]:
    """Return the losses of the first steps in float64 on the CPU: what all devices should find."""
    _, losses, _ = train(torch.device("cpu"), plan, dtype=torch.float64, most_steps=REFERENCE_STEPS)
    return losses


def accuracy(model: nn.Module, data: Data, device: torch.device) -> float:
    """Return the share of images whose class the model names."""
    model.eval()
    with torch.no_grad(), targets.tf32(False):
        named = model(data.images.to(device)).argmax(1).cpu()
    return float((named == data.labels).float().mean())


def step_seconds(device: torch.device, plan: Plan, batch_size: int, steps: int = 30) -> float:
    """Return the time of a step with another batch size, on one device alone."""
    model = network().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=plan.learning_rate)
    images = torch.randn(batch_size, EDGE * EDGE, device=device)
    labels = torch.zeros(batch_size, dtype=torch.int64, device=device)
    started = 0.0
    with targets.tf32(False):
        for number in range(WARMUP_STEPS + steps):
            if number == WARMUP_STEPS:
                synchronize(device)
                started = time.perf_counter()
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
    synchronize(device)
    return (time.perf_counter() - started) / steps
