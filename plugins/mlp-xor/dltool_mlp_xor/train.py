"""Train a small network on points in the plane.

    dltool mlp-xor train                     the four points of exclusive or, in a second
    dltool mlp-xor train --task sign         2-9-5-1 on 100,000 points: 0.99 and more within 20 s
    dltool mlp-xor train --hidden none       what a linear model cannot do (Minsky and Papert, 1969)

Adam (Kingma and Ba, 2015) along a one-cycle learning rate (Smith and Topin, 2018). The best epoch
is the one with the lowest validation loss; the test points are used once, at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from dltool import checkpoint, files, optim, plots, resuming, training
from dltool import device as devices
from dltool.console import Console
from dltool.guards.classifier import check_classifier
from dltool.guards.findings import Finding, act
from dltool.guards.labels import check_split
from dltool.runs import Run
from dltool_mlp_xor import data as point_data
from dltool_mlp_xor import health, pictures, snapshots
from dltool_mlp_xor.config import TrainConfig
from dltool_mlp_xor.data import Batches, PointData
from dltool_mlp_xor.evaluate import Measured, as_result, as_text, evaluate
from dltool_mlp_xor.line import best_line
from dltool_mlp_xor.model import Mlp, Spec, TwoLogits, build, count_parameters, loss_of
from dltool_mlp_xor.predict import DESCRIPTION, describe_model


@dataclass(frozen=True)
class Outcome:
    """What a training gave: the test's figures and the facts of the best epoch."""

    test: Measured
    best_epoch: int
    best_loss: float
    seconds: float
    steps: int


def train(
    config: TrainConfig,
    origins: Mapping[str, str],
    *,
    console: Console,
    out: Path | None = None,
    resume: Path | None = None,
) -> None:
    """Run or go on with one training, from the points to the tested model folder."""
    if resume is not None and not resuming.is_changed(origins):
        result = resuming.finished(resume, "mlp-xor", console)
        if result is not None:
            console.result(result, _summary(result))
            return
    device = devices.prepare(
        config.device,
        console,
        precision=config.precision,
        seed=config.seed,
        threads=config.threads,
        deterministic=config.deterministic,
    )
    data = point_data.load(config, device)
    spec = Spec(config.hidden_widths, config.activation, config.loss)
    stream = devices.generator(config.seed, "weights")
    network = build(spec, config.init, stream, data.train.points).to(device)
    optimizer = _optimizer(config, network)
    findings = _preflight(config, network, optimizer, data, console)
    grade = devices.guarantee(device, deterministic=config.deterministic)
    name = f"{config.task}-{spec.name}"
    with resuming.opened(
        "mlp-xor", name, config, origins, grade, out=out, resume=resume, console=console
    ) as run:
        _announce(config, network, data, run, console)
        description = describe_model(config, network, data.classes)
        files.write_json_atomic(run.folder / DESCRIPTION, description)
        resumed = resume is not None
        outcome = _loop(
            config, network, optimizer, data, run, console, findings=findings, resume=resumed
        )
        if config.guards != "off":
            _tell(health.check_end(network, data.train), findings, console)
        _finish(config, run, network, data, outcome, findings, console)


def _loop(
    config: TrainConfig,
    network: Mlp,
    optimizer: Optimizer,
    data: PointData,
    run: Run,
    console: Console,
    *,
    findings: list[Finding],
    resume: bool,
) -> Outcome:
    """Train, choose the best epoch on validation points, test once."""
    split = data.train
    batches = Batches(split.points, split.labels, config.batch_size, config.seed, config.passes)
    steps = config.epochs * -(-len(batches) // config.accumulate)
    scheduler = optim.schedule(optimizer, config.schedule, steps)
    settings = training.Settings.of(config, split.points.device, monitor="val_loss")
    kept = snapshots.moments(config.epochs, config.snapshots)
    if 0 in kept and not resume:
        snapshots.write(run.folder, 0, network)
    with training.session(
        run, network, optimizer, settings, scheduler=scheduler, console=console, resume=resume
    ) as session:
        for epoch in session.epochs(config.epochs):
            label = f"epoch {epoch + 1}/{config.epochs}"
            for points, labels in session.batches(batches, label=label):  # (B, 2), (B,)
                with session.attempt():
                    loss = loss_of(config.loss, network(points), labels)
                    session.step(loss, count=len(labels))
            if epoch + 1 in kept:
                snapshots.write(run.folder, epoch + 1, network)
            dead = health.dead_units(network, data.train)
            if config.guards != "off" and not any(found.code == health.DEAD for found in findings):
                _tell(health.check_dead(dead, network.spec.hidden), findings, console)
            with session.averaged():
                values = _validated(config, network, data, dead)
            session.report(values)
        session.best.load_into(network)
        return Outcome(
            test=evaluate(network, data.test, config.tolerance),
            best_epoch=session.best.epoch,
            best_loss=session.best.value or 0.0,
            seconds=session.stopwatch.seconds,
            steps=session.global_step,
        )


def _validated(
    config: TrainConfig, network: Mlp, data: PointData, dead: list[int]
) -> dict[str, float]:
    measured = evaluate(network, data.val, config.tolerance)
    values: dict[str, float] = {
        "val_loss": measured.loss,
        "val_accuracy": measured.accuracy.value,
    }
    if config.task == "sign":
        values["val_tolerance_accuracy"] = measured.tolerance_accuracy.value
    if dead:
        values["dead_units"] = sum(dead)
    return values


def _tell(new: list[Finding], findings: list[Finding], console: Console) -> None:
    """Warn of what was not said before, and remember it."""
    unsaid = [found for found in new if found not in findings]
    act(unsaid, console)
    findings += unsaid


def _optimizer(config: TrainConfig, network: Mlp) -> Optimizer:
    groups = optim.parameter_groups(network, config.weight_decay)
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate)
    # fused: one kernel for all these small tensors
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


def _preflight(
    config: TrainConfig, network: Mlp, optimizer: Optimizer, data: PointData, console: Console
) -> list[Finding]:
    """Look at the labels, the fresh weights and one batch; leave everything as it was."""
    if config.guards == "off":
        return []

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return loss_of(config.loss, logits[:, 1] - logits[:, 0], labels)

    named = {"train": data.train, "val": data.val, "test": data.test}
    findings = [
        found for name, split in named.items() for found in check_split(split.labels, 2, name)
    ]
    points, labels = data.train.points[:64], data.train.labels[:64]
    findings += check_classifier(TwoLogits(network), optimizer, loss, points, labels, 2)
    findings += health.check_start(network, data.train)
    return act(findings, console, mode=config.guards, without=config.without)


def _announce(
    config: TrainConfig, network: Mlp, data: PointData, run: Run, console: Console
) -> None:
    sizes = [len(split.points) for split in (data.train, data.val, data.test)]
    if data.is_whole:
        console.note("table: the four points are all there is; they train, validate and test")
    else:
        text = "{:,} training, {:,} validation and {:,} test points".format(*sizes)
        console.note(f"{config.task}: {text}, noise {config.noise:g}")
    kind = config.activation if network.spec.hidden else "linear"
    console.note(f"network {network.spec.name} {kind}, {count_parameters(network):,} parameters")
    console.note(f"run folder {run.folder}")
    console.event("start", run=str(run.folder), epochs=config.epochs)


def _finish(
    config: TrainConfig,
    run: Run,
    network: Mlp,
    data: PointData,
    outcome: Outcome,
    findings: list[Finding],
    console: Console,
) -> None:
    """Write the model folder, the pictures and the result."""
    measured = as_result(outcome.test, config.task, config.tolerance)
    result = {
        "run": str(run.folder),
        "model": str(run.folder / "model"),
        "task": config.task,
        "network": network.spec.name,
        "parameters": count_parameters(network),
        "measured_on": "the training points" if data.is_whole else "test points",
        **measured,
        "best_line": None if network.spec.hidden else best_line(data.test),
        "best_epoch": outcome.best_epoch,
        "val_loss": outcome.best_loss,
        "dead_units": health.dead_units(network, data.train),
        "steps": outcome.steps,
        "training_seconds": round(outcome.seconds, 3),
        "findings": [found.as_dict() for found in findings],
        "picture": str(run.folder / "boundary.png"),
    }
    description = describe_model(config, network, data.classes)
    checkpoint.save_model(run.folder / "model", network, {**description, "results": measured})
    title = f"mlp-xor: {run.folder.name}"
    plots.curves(
        run.records(), run.folder / "curves.png", title, best_epoch=float(outcome.best_epoch)
    )
    panel = pictures.Panel(f"{config.task}, {network.spec.name}", network, data.test)
    pictures.boundaries([panel], run.folder / "boundary.png", data.classes)
    run.finish(result)
    console.result(result, _summary(result))
    console.hint(f"dltool mlp-xor plot {run.folder}")


def _summary(result: Mapping[str, Any]) -> str:
    where = "test" if result["measured_on"] == "test points" else "the four points:"
    lines = [f"{where} {as_text(dict(result))}"]
    if result["best_line"] is not None:
        lines.append(
            "a model without a hidden layer draws one straight line; the best line that was found "
            f"(360 directions) gets {result['best_line']:.4f} of these points"
        )
    if any(result["dead_units"]):
        lines.append(f"dead ReLU units by layer: {result['dead_units']}")
    lines += [
        f"network {result['network']}, {result['parameters']:,} parameters; best epoch "
        f"{result['best_epoch']}; {result['steps']:,} steps in {result['training_seconds']:.1f} s",
        f"run     {result['run']}",
        f"model   {result['model']}",
        f"picture {result['picture']}",
    ]
    return "\n".join(lines)
