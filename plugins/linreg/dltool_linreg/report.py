"""What a fit found: weights beside the truth and the exact minimum, noise floor, figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dltool.console import table
from dltool.guards.findings import Finding
from dltool_linreg import scores
from dltool_linreg.config import TrainConfig
from dltool_linreg.data import TableData
from dltool_linreg.fit import put
from dltool_linreg.model import LinearModel, objective
from dltool_linreg.solve import Solution

AGREE = 1e-4
SHOWN = 20
FORMULAS = {
    "regression": "mean (prediction - target)² + ridge/N ‖w‖², features and target standardised",
    "logistic": "mean -ln p(class) + ridge/2N ‖w‖², features standardised",
    "softmax": "mean -ln p(class) + ridge/2N ‖W‖², features standardised",
}


@dataclass(frozen=True)
class Fitted:
    """A model that was fitted, with what it is judged by; `data.train` is standardised.

    Attributes:
        solution: the exact minimum of the same objective.
        mean: of the training targets.
    """

    config: TrainConfig
    model: LinearModel
    data: TableData
    solution: Solution
    mean: float
    seconds: float
    steps: int
    folds: dict[str, Any] | None


def result_of(
    fitted: Fitted, measured: dict[str, Any], folder: Path, findings: Sequence[Finding]
) -> dict[str, Any]:
    """Return the result of a training as plain values."""
    config, data = fitted.config, fitted.data
    formula = FORMULAS[config.task]
    if config.lasso:
        formula = "‖target - prediction‖²/2N + lasso ‖w‖₁ + ridge/2N ‖w‖², features standardised"
    return {
        "run": str(folder),
        "model": str(folder / "model"),
        "task": config.task,
        "solver": config.settled_solver,
        "target": f"ln({data.target})" if config.log_target else data.target,
        "formula": formula if config.standardise else formula.replace("standardised", "as given"),
        "measured": measured,
        "measured_on": "training rows" if data.on_train else "test rows",
        "weights": weights(fitted),
        "floor": noise_floor(fitted),
        "objective": _objective(fitted),
        "folds": fitted.folds,
        "steps": fitted.steps,
        "training_seconds": round(fitted.seconds, 3),
        "findings": [found.as_dict() for found in findings],
    }


def weights(fitted: Fitted) -> list[dict[str, Any]]:
    """Return one row a weight: its own units, standardised, and the reference beside it."""
    model, data, config = fitted.model, fitted.data, fitted.config
    raw, bias = model.raw()
    exact = _exact(fitted)
    exact_raw, exact_bias = exact.raw()
    truth = data.truth if config.task == "regression" and not config.log_target else None
    rows: list[dict[str, Any]] = []
    outputs = data.classes if config.task == "softmax" else ("",)
    for output, label in enumerate(outputs):
        names = [*data.names, "(bias)"]
        own = [*raw[output].tolist(), float(bias[output])]
        other = [*exact_raw[output].tolist(), float(exact_bias[output])]
        known = [*truth.weights, truth.bias] if truth else [None] * len(own)
        scaled = [*(model.head.weight[output] * model.target_scale).tolist(), None]
        for name, value, minimum, true, effect in zip(
            names, own, other, known, scaled, strict=True
        ):
            rows.append(
                {
                    "class": label or None,
                    "feature": name,
                    "weight": value,
                    "standardised": effect,
                    "exact": minimum,
                    "true": true,
                }
            )
    return rows


def _exact(fitted: Fitted) -> LinearModel:
    """Return the model with the weights of the exact minimum."""
    exact = LinearModel(fitted.model.head.in_features, fitted.model.head.out_features)
    exact.load_state_dict(fitted.model.state_dict())
    put(fitted.solution, exact)
    return exact


def noise_floor(fitted: Fitted) -> dict[str, Any] | None:
    """Return the RMSE that no model of these features can beat: known, or estimated.

    The estimate is √(Σ error² / (N − p)) of the least squares on the training rows, p weights with
    the bias; it is the noise only when the relation is linear.
    """
    config, data = fitted.config, fitted.data
    if config.task != "regression":
        return None
    if data.truth is not None and not config.log_target:
        return {"rmse": data.truth.noise, "known": True}
    free = len(data.train) - len(data.names) - 1
    if free <= 0 or config.ridge or config.lasso:
        return None
    exact = _exact(fitted)
    with torch.no_grad():
        loss = float(objective(exact, data.train.x, data.train.y, config.task, 0.0, 1))
    scale = float(exact.target_scale)
    return {"rmse": scale * math.sqrt(loss * len(data.train) / free), "known": False}


def _objective(fitted: Fitted) -> dict[str, Any]:
    """Compare the model with the exact minimum of its objective."""
    config, data, solution = fitted.config, fitted.data, fitted.solution
    head, rows = fitted.model.head, len(data.train)
    head.zero_grad()
    value = objective(fitted.model, data.train.x, data.train.y, config.task, config.ridge, rows)
    value.backward()
    assert head.weight.grad is not None
    with torch.no_grad():
        minimum = objective(
            _exact(fitted), data.train.x, data.train.y, config.task, config.ridge, rows
        )
    gap = (head.weight.detach() - solution.weight).abs().max()
    size = max(float(solution.weight.abs().max()), 1e-12)
    difference = float(gap) / size
    found = {
        "value": float(value.detach()),
        "minimum": float(minimum),
        "method": solution.method,
        "condition": solution.condition if math.isfinite(solution.condition) else None,
        "gradient": float(head.weight.grad.norm()),
        "largest_relative_difference": difference,
        "converged": difference <= AGREE and solution.converged,
    }
    head.zero_grad()
    return found


def summary(result: Mapping[str, Any]) -> str:
    """Return a result as text for people."""
    lines = [_weight_table(result), ""]
    floor = result["floor"]
    if floor:
        kind = "known" if floor["known"] else "estimated from the training rows"
        lines.append(f"noise floor  RMSE {floor['rmse']:.6g} ({kind})")
    lines += [f"on {result['measured_on']}, {result['target']}:"]
    lines.append(scores.text(result["measured"]))
    in_units = result["measured"].get("mae_in_target_units")
    if in_units is not None:
        lines.append(f"MAE   {in_units:.6g} in the target's own units")
    lines += [*_fold_lines(result["folds"]), f"loss  {result['formula']}", _verdict(result)]
    lines += [f"run   {result['run']}", f"model {result['model']}"]
    return "\n".join(lines)


def _weight_table(result: Mapping[str, Any]) -> str:
    rows = result["weights"]
    biases = [row for row in rows if row["feature"] == "(bias)"]
    others = [row for row in rows if row["feature"] != "(bias)"]
    others.sort(key=lambda row: -abs(row["standardised"]))
    shown = [*others[:SHOWN], *biases]
    is_exact = result["solver"] == "closed-form"
    has_truth = any(row["true"] is not None for row in rows)
    header = ["feature", "weight", "per deviation"]
    header += ([] if is_exact else ["exact minimum"]) + (["true", "error"] if has_truth else [])
    cells = []
    for row in shown:
        name = f"{row['class']}: {row['feature']}" if row["class"] else row["feature"]
        effect = "" if row["standardised"] is None else f"{row['standardised']:.5g}"
        line = [name, f"{row['weight']:.6g}", effect]
        line += [] if is_exact else [f"{row['exact']:.6g}"]
        if has_truth:
            line += [f"{row['true']:.6g}", f"{row['weight'] - row['true']:+.2g}"]
        cells.append(line)
    text = table(cells, header)
    if len(others) > SHOWN:
        text += f"\n({len(others) - SHOWN} smaller weights: dltool linreg info {result['run']})"
    return text


def _fold_lines(folds: Mapping[str, Any] | None) -> list[str]:
    if not folds:
        return []
    parts = [
        f"{name} {found['mean']:.5g} ± {found['sd']:.2g}"
        for name, found in folds.items()
        if isinstance(found, Mapping)
    ]
    return [f"{folds['folds']} folds of the training rows, mean ± sd: {', '.join(parts)}"]


def _verdict(result: Mapping[str, Any]) -> str:
    found = result["objective"]
    condition = "infinite" if found["condition"] is None else f"{found['condition']:.3g}"
    if result["solver"] == "closed-form":
        state = "solved" if found["converged"] else "NOT solved to the last digit"
        return f"{state} by {found['method']}, condition number {condition}"
    state = "converged" if found["converged"] else "NOT converged"
    cure = "" if found["converged"] else "; try more --epochs, another --lr, or --ridge 1"
    return (
        f"{state}: weights within {found['largest_relative_difference']:.1e} of the minimum by "
        f"{found['method']} (limit {AGREE:g}), gradient {found['gradient']:.1e}, condition number "
        f"{condition}{cure}"
    )
