"""Fit a linear model.

    dltool linreg train                                          known weights, found again
    dltool linreg train --data FILE.csv --target COLUMN          your own table
    dltool linreg train --solver scratch --batch-size 10 --lr 0.03

`closed-form` solves the equations; `scratch` descends with every formula by hand and `nn` with
torch's layers, losses and optimizers. All three minimise the same objective (model.py), and the
result is printed beside its exact minimum. The test rows are used once, at the end.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dltool import checkpoint, files, optim, rehearsal, resuming, runs, training
from dltool import device as devices
from dltool.console import Console
from dltool.errors import DeviceError
from dltool.guards.findings import Finding, act
from dltool.runs import Run
from dltool_linreg import data as tables
from dltool_linreg import fit, solve
from dltool_linreg.config import TrainConfig
from dltool_linreg.data import Part, TableData
from dltool_linreg.model import ByHand, Descent, LinearModel, objective
from dltool_linreg.predict import DESCRIPTION, describe_model
from dltool_linreg.report import Fitted, result_of, summary

REPORTS = 20  # lines while training, at least


@dataclass
class RowBatches:
    """Batches of standardised rows whose content depends on (seed, pass) alone.

    Attributes:
        passes: passes over the rows in one epoch of the session, which reports once an epoch.
    """

    part: Part
    batch_size: int
    seed: int
    passes: int

    def __len__(self) -> int:
        return self.passes * self.batches_in_pass

    @property
    def batches_in_pass(self) -> int:
        """Steps in one pass over the rows; the last batch may be short."""
        return -(-len(self.part) // self.batch_size) if self.batch_size else 1

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield z (B, F) and y (B,) from batch `start` of the epoch on."""
        z, y = self.part.x, self.part.y
        order, ordered_for = torch.empty(0), -1
        for index in range(start, len(self)):
            if not self.batch_size:
                yield z, y
                continue
            number = epoch * self.passes + index // self.batches_in_pass
            if number != ordered_for:
                stream = devices.generator(self.seed, number, "order")
                order, ordered_for = torch.randperm(len(y), generator=stream), number
            place = index % self.batches_in_pass * self.batch_size
            rows = order[place : place + self.batch_size].to(z.device)
            yield z[rows], y[rows]


def train(
    config: TrainConfig,
    origins: Mapping[str, str],
    *,
    console: Console,
    out: Path | None = None,
    resume: Path | None = None,
) -> None:
    """Run or go on with one training, from the data to the tested model folder."""
    if resume is not None and not resuming.is_changed(origins):
        result = resuming.finished(resume, "linreg", console)
        if result is not None:
            console.result(result, summary(result))
            console.hint(f"dltool linreg evaluate {resume}")
            return
    device = _prepare(config, console)
    data = tables.load(config, console)
    mean = float(data.train.y.mean()) if not data.classes else 0.0
    folds = fit.cross_validate(config, data) if config.folds else None
    model = fit.build(config, data.train, len(data.classes))
    data.train = fit.standardise(model, data.train)
    solution = fit.reference(config, model, data.train)
    findings: list[Finding] = []
    if config.guards != "off":
        findings = fit.preflight(config, data, solution)
        findings = act(findings, console, mode=config.guards, without=config.without)
    grade = devices.guarantee(device, deterministic=False)
    name = f"{runs.short_name(config.data)}-{config.settled_solver}"
    with resuming.opened(
        "linreg", name, config, origins, grade, out=out, resume=resume, console=console
    ) as run:
        resuming.check_data(run, data.facts, is_new=resume is None)
        _announce(config, data, run, console)
        files.write_json_atomic(run.folder / DESCRIPTION, describe_model(config, data, mean))
        if config.settled_solver == "closed-form":
            fit.put(solution, model)
            rehearsal.one_step(console, time.monotonic() - console.started)
            seconds, steps = 0.0, 0
        else:
            seconds, steps = _loop(config, model, data, device, run, console, resume is not None)
        fitted = Fitted(config, model, data, solution, mean, seconds, steps, folds)
        _finish(run, fitted, findings, console)


def _loop(
    config: TrainConfig,
    model: LinearModel,
    data: TableData,
    device: torch.device,
    run: Run,
    console: Console,
    resume: bool,
) -> tuple[float, int]:
    """Descend; return seconds and steps. The model keeps the weights of the lowest objective."""
    model.to(device)
    part = Part(data.train.x.to(device), data.train.y.to(device))
    rows, task, ridge = len(part), config.task, config.ridge
    passes = passes_per_report(config.epochs)
    source = RowBatches(part, config.batch_size, config.seed, passes)
    optimizer = _optimizer(config, model, _rate(config, part, console))
    steps = config.epochs * source.batches_in_pass
    if passes > 1:
        console.note(f"{config.epochs} passes over the rows; a line for every {passes}")
    scheduler = optim.schedule(optimizer, config.schedule, steps)
    settings = training.Settings.of(config, device, monitor="objective_loss")
    with training.session(
        run, model, optimizer, settings, scheduler=scheduler, console=console, resume=resume
    ) as session:
        for epoch in session.epochs(config.epochs // passes):
            label = f"pass {(epoch + 1) * passes}/{config.epochs}"
            for z, y in session.batches(source, label=label):  # (B, F), (B,)
                if config.settled_solver == "scratch":
                    head = model.head
                    loss = ByHand.apply(head.weight, head.bias, z, y, task, ridge / rows)
                else:
                    loss = objective(model, z, y, task, ridge, rows)
                session.step(loss, count=len(y))
            with torch.no_grad():
                value = float(objective(model, part.x, part.y, task, ridge, rows))
            session.report({"objective_loss": value, "pass": (epoch + 1) * passes})
        session.best.load_into(model)
        model.to("cpu")
        return session.stopwatch.seconds, session.global_step


def passes_per_report(epochs: int) -> int:
    """Return how many passes lie between two reports: a divisor, for some twenty reports."""
    most = max(1, epochs // REPORTS)
    return next(count for count in range(most, 0, -1) if epochs % count == 0)


def _rate(config: TrainConfig, part: Part, console: Console) -> float:
    """Return the learning rate: as asked for, or the inverse of the largest curvature."""
    bend = solve.curvature(part.x, config.task, config.ridge, len(part))
    limit = 2 * (1 + config.momentum) / bend
    if config.learning_rate:
        if config.optimizer == "sgd" and config.learning_rate > limit and not config.batch_size:
            console.warn(
                f"--lr {config.learning_rate:g} is above {limit:.3g}, where gradient descent on "
                "these rows diverges"
            )
        return config.learning_rate
    if config.batch_size:
        # a batch may bend more than all rows together, at most as much as its own squares add up
        widest = float((part.x.square().sum(1) + 1).mean())
        bend = max(
            bend, widest * {"regression": 2.0, "logistic": 0.25, "softmax": 0.5}[config.task]
        )
    console.note(f"learning rate {1 / bend:.4g}: the inverse of the loss's largest curvature")
    return 1 / bend


def _optimizer(config: TrainConfig, model: LinearModel, rate: float) -> torch.optim.Optimizer:
    parameters = list(model.head.parameters())
    if config.settled_solver == "scratch":
        return Descent(parameters, rate, config.momentum)
    if config.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=rate)
    return torch.optim.SGD(parameters, lr=rate, momentum=config.momentum)


def _prepare(config: TrainConfig, console: Console) -> torch.device:
    choice = devices.choose(config.device)
    if choice.device.type == "mps" and config.device == "mps":
        raise DeviceError(
            "E302", "linreg calculates in float64, which Apple GPUs lack", cure="use --device cpu"
        )
    if choice.device.type == "mps":
        choice = devices.choose("cpu")
    console.note(f"device {choice.device} ({choice.reason}), precision fp64")
    if config.threads:
        torch.set_num_threads(config.threads)
    devices.seed_everything(config.seed)
    return choice.device


def _announce(config: TrainConfig, data: TableData, run: Run, console: Console) -> None:
    counts = data.facts["counts"]
    console.note(
        f"{config.data}: {counts['train']:,} training and {counts['test']:,} test rows, "
        f"{len(data.names)} features, target {data.target}"
        + (f", {len(data.classes)} classes" if data.classes else "")
    )
    console.note(f"run folder {run.folder}")
    console.event("start", run=str(run.folder), solver=config.settled_solver)


def _finish(run: Run, fitted: Fitted, findings: list[Finding], console: Console) -> None:
    """Measure once on the test rows, write the model folder and the result."""
    config, data = fitted.config, fitted.data
    measured = fit.measure(
        fitted.model,
        data.test,
        fitted.mean,
        num_classes=len(data.classes),
        log_target=config.log_target,
    )
    after = fit.check_spread(measured) if config.guards != "off" else []
    act(after, console)
    result = result_of(fitted, measured, run.folder, [*findings, *after])
    description = describe_model(config, data, fitted.mean)
    description["results"] = {key: result[key] for key in ("measured", "measured_on")}
    checkpoint.save_model(run.folder / "model", fitted.model, description)
    if fitted.steps:
        from dltool_linreg.pictures import loss_curve

        loss_curve(run.records(), run.folder / "curves.png", result["objective"]["minimum"])
    run.finish(result)
    console.result(result, summary(result))
    console.hint(f"dltool linreg predict {run.folder} FILE.csv")
