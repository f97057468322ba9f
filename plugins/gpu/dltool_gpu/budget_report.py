"""Write what `dltool gpu budget` found as text for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dltool.console import table
from dltool_gpu.report import size

ROWS = {
    "weights": "parameters",
    "buffers": "buffers",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "inputs": "inputs",
    "activations": "activations, kept for the backward pass",
    "peak": "peak of a training step",
}


def report(answer: Mapping[str, Any]) -> str:
    """Return the budget as lines of text."""
    predicted = answer["predicted"]
    lines = [_heading(answer)]
    rows = []
    for key, label in ROWS.items():
        if predicted.get(key) is not None:
            note = ""
            if key == "weights":
                note = f"{predicted['parameters']:,} numbers"
            if key == "optimizer":
                note = answer["optimizer"]
            rows.append([label, size(predicted[key]), note])
    rows.append(["peak of using it, without gradients", size(answer["use"]), ""])
    lines.append(table(rows, ["", "predicted", ""]))
    if predicted["activations"] is None:
        lines.append(
            "activations are not known from weights alone; name the model of torchvision or "
            "MODULE:FUNCTION. Using it: 1.2 times its file"
        )
        return "\n".join(lines)
    return "\n".join([*lines, *_measured(answer), *_savings(answer), *_largest(answer)])


def _heading(answer: Mapping[str, Any]) -> str:
    if answer["batch"] is None:
        formats = ", ".join(f"{count:,} {dtype}" for dtype, count in answer["formats"].items())
        return f"{answer['model']}: {formats}"
    shapes = ", ".join("×".join(map(str, item["shape"])) for item in answer["input"])
    return (
        f"{answer['model']}, batch of {answer['batch']} × {shapes}, {answer['precision']}, "
        f"{answer['optimizer']}"
    )


def _measured(answer: Mapping[str, Any]) -> list[str]:
    measured = answer["measured"]
    if measured is None:
        return ["measured: only on an NVIDIA or AMD GPU; the CPU keeps no count"]
    if not measured["fits"]:
        return ["measured: it does not fit into this GPU"]
    ratio = answer["predicted"]["peak"] / measured["peak"]
    return [f"measured: peak {size(measured['peak'])} (predicted {ratio:.0%} of it)"]


def _savings(answer: Mapping[str, Any]) -> list[str]:
    peak = answer["predicted"]["peak"]
    rows = [
        [row["name"], size(row["peak"]), f"{-row['saves'] / peak:+.0%}"]
        for row in answer["savings"]
    ]
    return ["", table(rows, ["what would save", "peak", "change"])]


def _largest(answer: Mapping[str, Any]) -> list[str]:
    lines = [""]
    if answer["usable"] is not None:
        lines.append(
            f"largest batch that fits into {size(answer['usable'])} ({answer['usable_of']}, less "
            f"what CUDA and gaps take): {answer['largest_batch']}"
        )
    cards = ", ".join(f"{card}: {count}" for card, count in answer["cards"].items())
    return [*lines, f"largest batch by card: {cards}"]
