"""Small healthy worlds, a model with data, loss and optimizer each, that train in seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from dltool.device import generator
from dltool.guards.facts import Facts
from dltool.guards.planted.models import Encoder, Gpt, Picture, Recurrent

Rows = tuple[Tensor, ...]
PAD = 0


@dataclass
class World:
    """Everything that a training needs.

    Attributes:
        train, val: tensors with the samples on the first axis; the last is the target.
        zero_grad, train_mode, shuffle: whether the loop does as it should.
        chance: the score of guessing.
    """

    model: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]
    optimizer: Optimizer
    train: Rows
    val: Rows
    facts: Facts = field(default_factory=Facts)
    zero_grad: bool = True
    train_mode: bool = True
    shuffle: bool = True
    accumulate: int = 1
    batch_size: int = 64
    chance: float = 0.0
    scheduler: Any = None
    build: Callable[[], nn.Module] | None = None

    def batch(self, count: int = 64) -> Rows:
        """Return the first samples."""
        return tuple(part[:count] for part in self.train)


def adam(model: nn.Module, rate: float = 3e-3) -> Optimizer:
    """Return the usual optimizer of these worlds."""
    return torch.optim.Adam(model.parameters(), lr=rate)


def digits(seed: int) -> tuple[Rows, Rows]:
    """Return scikit-learn's handwritten digits, (N, 1, 8, 8) in 0 to 1, split at random."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    return _halves((images, torch.tensor(labels)), 1300, seed)


def _halves(rows: Rows, count: int, seed: int) -> tuple[Rows, Rows]:
    order = torch.randperm(len(rows[0]), generator=generator(seed, "split"))
    shuffled = tuple(part[order] for part in rows)
    return tuple(part[:count] for part in shuffled), tuple(part[count:] for part in shuffled)


def pictures(seed: int = 0, flaw: str = "") -> World:
    """Classify digits with convolutions and batch normalisation."""
    torch.manual_seed(seed)
    model = Picture(flaw)
    train, val = digits(seed)
    return World(
        model,
        F.cross_entropy,
        adam(model),
        train,
        val,
        chance=0.1,
        build=lambda: Picture(flaw),
    )


def rows(seed: int = 0, flaw: str = "") -> World:
    """Meet a smooth function of ten columns, (N, 10) to (N,)."""
    draw = generator(seed, "rows")
    x = torch.randn(1200, 10, generator=draw)
    y = torch.sin(x[:, 0]) + x[:, 1] * x[:, 2] + 0.1 * torch.randn(1200, generator=draw)
    torch.manual_seed(seed)
    layers: list[nn.Module] = [nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU()]
    layers += [nn.Linear(32, 1)]
    if flaw != "broadcast":
        layers.append(nn.Flatten(0))
    if flaw == "tanh":
        layers.insert(-1, nn.Tanh())
    model = nn.Sequential(*layers)
    train, val = _halves((x, y), 900, seed)
    return World(model, F.mse_loss, adam(model), train, val)


def tags(seed: int = 0, flaw: str = "") -> World:
    """Tell which of five properties hold, several at once."""
    draw = generator(seed, "tags")
    x = torch.randn(1000, 12, generator=draw)
    y = (x @ torch.randn(12, 5, generator=draw) > 0).float()
    torch.manual_seed(seed)
    layers: list[nn.Module] = [nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 5)]
    if flaw == "sigmoid":
        layers.append(nn.Sigmoid())
    model = nn.Sequential(*layers)
    train, val = _halves((x, y), 800, seed)
    return World(model, F.binary_cross_entropy_with_logits, adam(model), train, val, chance=0.5)


def texts(seed: int = 0, flaw: str = "", kind: str = "encoder") -> World:
    """Tell whether a padded text holds more words of one half of the vocabulary than of the other.

    Tokens (N, 20) and their number (N,); id 0 is the padding.
    """
    draw = generator(seed, "texts")
    count, longest = 1200, 20
    tokens = torch.randint(2, 40, (count, longest), generator=draw)
    sizes = torch.randint(4, longest + 1, (count,), generator=draw)
    real = torch.arange(longest)[None] < sizes[:, None]
    high = ((tokens >= 21) & real).sum(1)
    labels = (2 * high > sizes).long()
    tokens = torch.where(real, tokens, PAD)
    torch.manual_seed(seed)
    model: nn.Module = Encoder(40, flaw) if kind == "encoder" else Recurrent(40, flaw)
    train, val = _halves((tokens, sizes, labels), 900, seed)
    facts = Facts(pad=PAD)
    return World(model, F.cross_entropy, adam(model), train, val, facts=facts, chance=0.5)


def stream(seed: int = 0, flaw: str = "") -> World:
    """Predict the next of sixteen symbols of a chain where each has three followers."""
    draw = generator(seed, "stream")
    follow = torch.randint(0, 16, (16, 3), generator=draw)
    tokens = torch.zeros(600, 25, dtype=torch.int64)
    tokens[:, 0] = torch.randint(0, 16, (600,), generator=draw)
    for place in range(1, 25):
        choice = torch.randint(0, 3, (600,), generator=draw)
        tokens[:, place] = follow[tokens[:, place - 1], choice]
    inputs, targets = tokens[:, :-1].clone(), tokens[:, 1:].clone()
    if flaw == "unshifted":
        targets = inputs.clone()
    torch.manual_seed(seed)
    model = Gpt(16, 24, flaw)
    train, val = _halves((inputs, targets), 480, seed)
    return World(model, next_token, adam(model), train, val, chance=1 / 16)


def next_token(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy over all places: (B, T, V) against (B, T)."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def fit(world: World, steps: int, watch: Callable[[float], None] | None = None) -> list[float]:
    """Train as a usual loop does, with the world's own mistakes; return the losses."""
    losses = []
    world.model.train(world.train_mode)
    size, count = world.batch_size, len(world.train[0])
    order = torch.arange(count)
    for step in range(steps):
        place = step * size % count
        if place < size and world.shuffle:
            order = torch.randperm(count, generator=generator(step, "order"))
        index = order[place : place + size]
        batch = tuple(part[index] for part in world.train)
        if world.zero_grad and step % world.accumulate == 0:
            world.optimizer.zero_grad()
        loss = world.loss(world.model(*batch[:-1]), batch[-1])
        loss.backward()
        if (step + 1) % world.accumulate == 0:
            world.optimizer.step()
            if world.scheduler is not None:
                world.scheduler.step()
        losses.append(float(loss.detach()))
        if watch is not None:
            watch(losses[-1])
    return losses


@torch.no_grad()
def score(world: World) -> float:
    """Return accuracy, or for numbers the share of the variance that is met, on `val`."""
    was_training = world.model.training
    world.model.eval()
    outputs, target = world.model(*world.val[:-1]), world.val[-1]
    world.model.train(was_training)
    if not target.is_floating_point():
        return float((outputs.argmax(-1) == target).float().mean())
    if bool(((target == 0) | (target == 1)).all()):
        return float(((outputs > 0) == (target > 0.5)).float().mean())
    rest = (outputs.reshape(target.shape) - target).square().mean() / target.var()
    return 1 - float(rest)
