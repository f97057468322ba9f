"""The catalogue of planted mistakes: where each is planted, and which guard has to name it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dltool.guards.planted import worlds
from dltool.guards.planted.models import Picture, Stack
from dltool.guards.planted.worlds import World

Plant = Callable[[int], World]


@dataclass(frozen=True)
class Mistake:
    """One mistake in one world.

    Attributes:
        code: the guard that has to name it; others may count too, in `also`.
        stage: where it is found: `model`, `data`, `training` or `result`.
        healthy: the same world without the mistake.
    """

    name: str
    code: str
    stage: str
    title: str
    plant: Plant
    healthy: Plant
    also: tuple[str, ...] = ()


def _flaw(world: Callable[..., World], flaw: str, **others: str) -> Plant:
    return lambda seed: world(seed, flaw, **others)


def _picture(name: str, code: str, title: str, *also: str, flaw: str = "") -> Mistake:
    plant = _flaw(worlds.pictures, flaw or name.replace("-", " "))
    return Mistake(name, code, "model", title, plant, worlds.pictures, also)


def _text(name: str, code: str, title: str, flaw: str, kind: str = "encoder") -> Mistake:
    healthy = _flaw(worlds.texts, "", kind=kind)
    return Mistake(name, code, "model", title, _flaw(worlds.texts, flaw, kind=kind), healthy)


def _stream(name: str, code: str, title: str, flaw: str) -> Mistake:
    return Mistake(name, code, "model", title, _flaw(worlds.stream, flaw), worlds.stream)


def _changed(
    name: str,
    code: str,
    title: str,
    change: Callable[[World], None],
    *,
    world: Plant = worlds.pictures,
    stage: str = "model",
    also: tuple[str, ...] = (),
) -> Mistake:
    def plant(seed: int) -> World:
        made = world(seed)
        change(made)
        return made

    return Mistake(name, code, stage, title, plant, world, also)


# ---- what is changed in a healthy world ------------------------------------------------------


def _head_forgotten(world: World) -> None:
    kept = [each for name, each in world.model.named_parameters() if "head" not in name]
    world.optimizer = torch.optim.Adam(kept, lr=3e-3)


def _head_replaced(world: World) -> None:
    assert isinstance(world.model, Picture)
    world.model.head = nn.Linear(512, 10)


def _negated(world: World) -> None:
    world.loss = lambda outputs, target: -F.cross_entropy(outputs, target)


def _softmax_in_loss(world: World) -> None:
    world.loss = lambda outputs, target: F.cross_entropy(outputs.softmax(1), target)


def _nll_of_logits(world: World) -> None:
    world.loss = F.nll_loss


def _rate(rate: float, decay: float = 0.0) -> Callable[[World], None]:
    def change(world: World) -> None:
        world.optimizer = torch.optim.SGD(
            world.model.parameters(), lr=rate, momentum=0.9, weight_decay=decay
        )

    return change


def _inverted_rates(world: World) -> None:
    head = [each for name, each in world.model.named_parameters() if "head" in name]
    rest = [each for name, each in world.model.named_parameters() if "head" not in name]
    groups = [{"params": rest, "lr": 1e-2}, {"params": head, "lr": 1e-4}]
    world.optimizer = torch.optim.Adam(groups)
    world.facts = replace(world.facts, pretrained=True)


def _norm_in_eval(world: World) -> None:
    assert isinstance(world.model, Picture)
    world.model.norm.eval()


def _raw_bytes(world: World) -> None:
    world.train = ((world.train[0] * 255).round(), world.train[1])
    world.val = ((world.val[0] * 255).round(), world.val[1])


def _broken_numbers(world: World) -> None:
    world.train[0][3, 0, 2, 2] = float("nan")


def _stack(depth: int, activation: Callable[[], nn.Module]) -> Callable[[World], None]:
    def change(world: World) -> None:
        world.model = Stack(depth, activation())
        world.optimizer = worlds.adam(world.model)
        world.build = None

    return change


def _healthy_stack(seed: int) -> World:
    world = worlds.pictures(seed)
    torch.manual_seed(seed)
    _stack(3, nn.ReLU)(world)
    return world


def _pads_in_loss(seed: int, ignore: int = -100) -> World:
    world = worlds.stream(seed)
    for rows in (world.train, world.val):
        sizes = 8 + torch.arange(len(rows[0])) % 17
        later = torch.arange(24)[None] >= sizes[:, None]
        rows[0][later], rows[1][later] = 0, 0

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=ignore)

    world.loss, world.facts = loss, replace(world.facts, pad=0, causal=True)
    return world


def _beyond(world: World) -> None:
    world.train = (world.train[0], 2 * world.train[1] - 1)


def _class_ignored(world: World) -> None:
    world.loss = nn.CrossEntropyLoss(ignore_index=3)


def _decay(world: World) -> None:
    world.optimizer = torch.optim.AdamW(world.model.parameters(), lr=0.1, weight_decay=1.0)


def _betas(world: World) -> None:
    world.optimizer = torch.optim.Adam(world.model.parameters(), lr=3e-3, betas=(0.999, 0.9))


MODEL = (
    _picture("softmax", "G-P01", "softmax in front of cross-entropy"),
    _changed("softmax-in-loss", "G-P01", "the loss takes the softmax twice", _softmax_in_loss),
    _changed("nll-of-logits", "G-P01", "logits where log-probabilities belong", _nll_of_logits),
    Mistake(
        "sigmoid",
        "G-P01",
        "model",
        "sigmoid in front of a loss that takes one",
        _flaw(worlds.tags, "sigmoid"),
        worlds.tags,
    ),
    _picture("relu-logits", "G-P02", "ReLU behind the last layer", flaw="relu"),
    _picture("sigmoid-classes", "G-P02", "sigmoid in front of cross-entropy", flaw="sigmoid"),
    _picture("tanh-logits", "G-P02", "tanh behind the last layer", flaw="tanh"),
    Mistake(
        "tanh-targets",
        "G-P02",
        "model",
        "outputs between -1 and 1, targets beyond",
        _flaw(worlds.rows, "tanh"),
        worlds.rows,
    ),
    Mistake(
        "broadcast",
        "G-P03",
        "model",
        "(N, 1) against (N,)",
        _flaw(worlds.rows, "broadcast"),
        worlds.rows,
    ),
    _changed("negated", "G-P04", "the loss has its sign flipped", _negated),
    _changed(
        "targets-beyond", "G-P04", "-1 and 1 for a loss of shares", _beyond, world=worlds.tags
    ),
    _changed("class-ignored", "G-P04", "ignore_index is a class", _class_ignored),
    _picture("unit-weights", "G-P05", "weights of deviation 1", "G-P16", "G-P18"),
    _picture("detach", "G-P06", "the first layers are cut off by detach"),
    _picture("unused-layer", "G-P06", "a layer that forward does not use"),
    _text("data-positions", "G-P06", "positions used through .data", "data positions"),
    _changed("head-forgotten", "G-P07", "the optimizer lacks the last layer", _head_forgotten),
    _changed("head-replaced", "G-P07", "a layer is exchanged after the optimizer", _head_replaced),
    _picture("plain-list", "G-P07", "layers in a plain list"),
    _changed("norm-in-eval", "G-P08", "fresh batch normalisation in eval mode", _norm_in_eval),
    _picture("plain-attribute", "G-P08", "a running mean that is not saved", "G-P19"),
    _picture("view", "G-P09", "a reshape that mixes the samples"),
    _picture("batch-softmax", "G-P09", "softmax over the samples"),
    _text("batch-axis", "G-P09", "attention over the samples", "batch axis"),
    _text("batch-first", "G-P09", "an LSTM that runs along the samples", "batch first", "lstm"),
    _stream("no-mask", "G-P10", "no causal mask", "no mask"),
    _stream("weak-mask", "G-P10", "a mask of -1e-6", "weak mask"),
    _stream("mask-in-training", "G-P10", "a causal mask in training alone", "mask in training"),
    _stream("unshifted", "G-P10", "targets that equal the inputs", "unshifted"),
    _text("mask-ignored", "G-P11", "a padding mask that is not used", "mask ignored"),
    _text("mean-of-pads", "G-P11", "a mean over the padding", "mean of pads"),
    _text("last-pad", "G-P11", "the state after the padding", "last pad", "lstm"),
    Mistake(
        "pads-in-loss",
        "G-P11",
        "model",
        "padding counted in the loss",
        _pads_in_loss,
        lambda seed: _pads_in_loss(seed, 0),
    ),
    _text("no-positions", "G-P12", "attention without positions", "no positions"),
    _picture("wrong-slice", "G-P13", "half of the picture is cut away"),
    _picture("dropout-always", "G-P14", "dropout that stays on in evaluation"),
    _picture("constant-init", "G-P15", "all weights of a layer alike"),
    _changed(
        "no-activation",
        "G-P15",
        "no activation between the layers",
        _stack(3, nn.Identity),
        world=_healthy_stack,
    ),
    _picture("dead-units", "G-P16", "ReLU units that no sample wakes", "G-P06"),
    _changed(
        "sigmoids",
        "G-P16",
        "twenty sigmoid layers",
        _stack(20, nn.Sigmoid),
        world=_healthy_stack,
    ),
    _changed("rate-zero", "G-P18", "learning rate 0", _rate(0.0)),
    _changed("rate-huge", "G-P18", "learning rate 10", _rate(10.0)),
    _changed("rate-decay", "G-P18", "rate and weight decay swapped", _rate(0.0, 0.01)),
    _changed("decay-huge", "G-P18", "a weight decay that eats the weights", _decay),
    _changed("betas-swapped", "G-P18", "the two moments of Adam swapped", _betas),
    _changed("rates-inverted", "G-P18", "the head slower than the backbone", _inverted_rates),
    _changed("raw-bytes", "G-D02", "bytes 0 to 255 as they are", _raw_bytes),
    _changed("nan-inputs", "G-D01", "NaN among the inputs", _broken_numbers),
)
