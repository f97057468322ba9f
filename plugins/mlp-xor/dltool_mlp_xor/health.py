"""Guards on hidden units (dead, saturated, all alike) and on networks that learned too little."""

from __future__ import annotations

import torch

from dltool.guards.findings import Finding
from dltool_mlp_xor.data import Split
from dltool_mlp_xor.line import best_line
from dltool_mlp_xor.model import Mlp

DEAD = "G-X01"
LIMIT = 0.5  # share of a layer that may be dead, or of a layer's outputs that may be saturated
SATURATED = 0.99  # of the way to the end of tanh or sigmoid
MOST_POINTS = 10_000
MOST_FOR_LINE = 2000
LEAST_SPREAD = 0.01  # of the outputs, in deviations of the labels -1 and 1
CURE = "try another --seed, a wider --hidden, another --lr, or --activation tanh"


@torch.no_grad()
def dead_units(network: Mlp, split: Split) -> list[int]:
    """Count in each hidden layer the units that give 0 on every point: no gradient passes them.

    Only ReLU has them; other networks get an empty list.
    """
    if network.spec.activation != "relu":
        return []
    units = network.hidden_units(split.points)
    return [int((values == 0).all(0).sum()) for values in units]


def check_dead(counts: list[int], widths: tuple[int, ...]) -> list[Finding]:
    """Judge the counts of `dead_units`."""
    return [
        Finding(
            DEAD,
            "warn",
            f"{dead} of {width} ReLU units of hidden layer {number} are dead: 0 on every training "
            f"point, so nothing trains them (limit {LIMIT:.0%})",
            CURE,
        )
        for number, (dead, width) in enumerate(zip(counts, widths, strict=False), start=1)
        if dead >= LIMIT * width
    ]


@torch.no_grad()
def check_start(network: Mlp, split: Split) -> list[Finding]:
    """Look at the hidden units of fresh weights."""
    points = split.points[:MOST_POINTS]
    found = check_dead(dead_units(network, Split(points, split.labels)), network.spec.hidden)
    for number, values in enumerate(network.hidden_units(points), start=1):
        if values.shape[1] > 1 and bool((values == values[:, :1]).all()):
            found.append(
                Finding(
                    "G-X03",
                    "warn",
                    f"all {values.shape[1]} units of hidden layer {number} are alike and get the "
                    "same gradient: they stay one unit for ever",
                    "draw the weights at random: --init auto",
                )
            )
        share = _saturated(values, network.spec.activation)
        if share > LIMIT:
            found.append(
                Finding(
                    "G-X02",
                    "warn",
                    f"{share:.0%} of the outputs of hidden layer {number} are saturated before "
                    f"training (limit {LIMIT:.0%}): hardly a gradient passes them",
                    "use smaller weights: --init auto",
                )
            )
    return found


def _saturated(values: torch.Tensor, activation: str) -> float:
    if activation not in ("tanh", "sigmoid"):
        return 0.0
    signed = 2 * values - 1 if activation == "sigmoid" else values
    return float((signed.abs() > SATURATED).float().mean())


@torch.no_grad()
def check_end(network: Mlp, split: Split) -> list[Finding]:
    """Look at a trained network: dead layers, one answer for every point, a straight line's."""
    found = check_dead(dead_units(network, split), network.spec.hidden)
    if not network.spec.hidden:
        return found
    sample = Split(split.points[:MOST_FOR_LINE], split.labels[:MOST_FOR_LINE])
    output = network(sample.points)
    spread = float(output.std(correction=0))
    accuracy = float(((output > 0).long() == sample.labels).float().mean())
    line = best_line(sample)
    if spread < LEAST_SPREAD:
        found.append(
            Finding(
                "G-X04",
                "warn",
                f"the model answers every point alike: its outputs spread by {spread:.2g} "
                f"(limit {LEAST_SPREAD}), the labels by 1",
                CURE,
            )
        )
    elif accuracy <= line < 1:
        found.append(
            Finding(
                "G-X05",
                "warn",
                f"with all its hidden units the network gets {accuracy:.4f} of the training "
                f"points, no more than the best straight line ({line:.4f}): it is stuck",
                CURE,
            )
        )
    return found
