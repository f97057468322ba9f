"""Train an image classifier.

    dltool cnn train                                    digits: 0.98 and more in seconds
    dltool cnn train --data mnist --data-root FOLDER    0.99 within 15 s on two cores
    dltool cnn train --data FOLDER                      your own pictures, one subfolder a class

AdamW (Loshchilov and Hutter, 2019) along a one-cycle learning rate (Smith and Topin, 2018), label
smoothing (Szegedy et al., 2016), unless told otherwise. The best epoch is chosen on validation
data; the test data is used once, at the end.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer

from dltool import checkpoint, files, metrics, optim, resuming, runs, training
from dltool import device as devices
from dltool.calibration import error_of
from dltool.console import Console
from dltool.guards.classifier import check_classifier
from dltool.guards.findings import Finding, act
from dltool.runs import Run
from dltool_cnn import compiling, find_lr, lora, pictures, transfer
from dltool_cnn import data as image_data
from dltool_cnn.config import TrainConfig
from dltool_cnn.data import ImageData
from dltool_cnn.evaluate import evaluate
from dltool_cnn.mistakes import Answers
from dltool_cnn.model import Classifier, Spec, build, count_parameters
from dltool_cnn.predict import DESCRIPTION, describe_model


@dataclass(frozen=True)
class Outcome:
    """What a training gave: what was said of the test images, and the facts of the best epoch."""

    matrix: Tensor
    answers: Answers
    test_loss: float
    best_epoch: int
    best_value: float
    seconds: float
    images_per_second: float


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
        result = resuming.finished(resume, "cnn", console)
        if result is not None:
            console.result(result, _summary(result))
            console.hint(f"dltool cnn evaluate {resume}")
            return
    device = devices.prepare(
        config.device,
        console,
        precision=config.precision,
        seed=config.seed,
        threads=config.threads,
        deterministic=config.deterministic,
    )
    data = image_data.load(config, device, console)
    spec = _spec(config, data)
    model, low_rank = _model(config, spec, data, device, console, is_new=resume is None)
    tested = None
    if config.find_lr and resume is None:
        tested, config, origins = _range_tested(config, origins, model, data, console)
    optimizer = _optimizer(config, model, console)
    findings = _preflight(config, model, optimizer, data, console)
    description = describe_model(
        spec, data.classes, data.form, *model.normalisation(), low_rank=low_rank
    )
    grade = devices.guarantee(device, deterministic=config.deterministic)
    name = f"{runs.short_name(config.data)}-{config.model}"
    with resuming.opened(
        "cnn", name, config, origins, grade, out=out, resume=resume, console=console
    ) as run:
        resuming.check_data(run, data.facts, is_new=resume is None)
        _announce(config, model, data, device, run, console)
        if not (run.folder / DESCRIPTION).exists():
            files.write_json_atomic(run.folder / DESCRIPTION, description)
        if tested is not None:
            find_lr.draw(tested, config.learning_rate, run.folder / "pictures" / "lr-range.png")
        outcome = _loop(config, model, optimizer, data, run, console, resume=resume is not None)
        _finish(run, model, spec, data, outcome, findings, console)


def _model(
    config: TrainConfig,
    spec: Spec,
    data: ImageData,
    device: torch.device,
    console: Console,
    *,
    is_new: bool,
) -> tuple[Classifier, dict[str, Any]]:
    """Build the network, fresh or from weights, with what is frozen; tell its parameter groups.

    A resumed run takes every weight and the normalisation from its checkpoint.
    """
    torch.manual_seed(devices.derive_seed(config.seed, "weights"))
    source = transfer.read(config, console) if is_new else None
    mean, std = data.mean, data.std
    if source is not None and source.mean:
        mean, std = source.mean, source.std
        console.note(f"normalisation of the weights: mean {_rounded(mean)}, std {_rounded(std)}")
    model = build(spec, mean, std)
    if source is not None:
        transfer.fill(model, spec, source, console)
    transfer.freeze(model, config)
    low_rank = {}
    if config.lora_rank:
        low_rank = {
            "rank": config.lora_rank,
            "alpha": config.lora_scale,
            "targets": list(config.lora_modules),
        }
    return model.to(device), low_rank


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 4) for value in values]


def _optimizer(config: TrainConfig, model: Classifier, console: Console) -> Optimizer:
    groups = transfer.groups(model, config)
    if config.pretrained or config.weights or config.head_lr or config.backbone_lr:
        transfer.tell(model, groups, console)
    return optim.build(config.optimizer, groups, config.learning_rate)


def _range_tested(
    config: TrainConfig,
    origins: Mapping[str, str],
    model: Classifier,
    data: ImageData,
    console: Console,
) -> tuple[find_lr.RangeTest, TrainConfig, Mapping[str, str]]:
    """Test learning rates; where the user gave none, take the one that is suggested."""
    device = next(model.parameters()).device

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        with devices.autocast(device, config.precision):
            return F.cross_entropy(model(images), labels, label_smoothing=config.label_smoothing)

    optimizer = optim.build(config.optimizer, transfer.groups(model, config), config.learning_rate)
    found = find_lr.range_test(model, optimizer, loss, data.train)
    console.note(f"learning-rate range test: {found.suggested:g} suggested")
    if origins["learning_rate"] in ("default", "recipe"):
        config = dataclasses.replace(config, learning_rate=found.suggested)
        origins = {**origins, "learning_rate": "range test"}
    return found, config, origins


def _loop(
    config: TrainConfig,
    model: Classifier,
    optimizer: Optimizer,
    data: ImageData,
    run: Run,
    console: Console,
    *,
    resume: bool,
) -> Outcome:
    """Train, choose the best epoch on validation data, test once."""
    steps_per_epoch = -(-len(data.train) // config.accumulate)
    scheduler = optim.schedule(optimizer, config.schedule, config.epochs * steps_per_epoch)
    num_classes = len(data.classes)
    chance = math.log(num_classes)
    settings = training.Settings.of(config, next(model.parameters()).device, chance=chance)
    forward: compiling.Forward = model
    if config.compile:
        images, _ = next(iter(data.train.batches(0)))
        forward = compiling.compiled(model, images, config.precision, console)
    with training.session(
        run, model, optimizer, settings, scheduler=scheduler, console=console, resume=resume
    ) as session:
        for epoch in session.epochs(config.epochs):
            label = f"epoch {epoch + 1}/{config.epochs}"
            # (B, C, H, W) and labels (B,), or their shares (B, classes) after mixing
            for images, labels in session.batches(data.train, label=label):
                with session.attempt():
                    loss = F.cross_entropy(
                        forward(images), labels, label_smoothing=config.label_smoothing
                    )
                    session.step(loss, count=len(labels))
            with session.averaged():
                matrix, val_loss = evaluate(model, data.val, num_classes)
            accuracy = metrics.accuracy_score(matrix).value
            session.report({"val_loss": val_loss, "val_accuracy": accuracy})
        session.best.load_into(model)
        answers = Answers(data.names["test"])
        matrix, test_loss = evaluate(model, data.test, num_classes, answers)
        return Outcome(
            matrix=matrix,
            answers=answers,
            test_loss=test_loss,
            best_epoch=session.best.epoch,
            best_value=session.best.value or 0.0,
            seconds=session.stopwatch.seconds,
            images_per_second=session.samples_per_second,
        )


def _spec(config: TrainConfig, data: ImageData) -> Spec:
    return Spec(
        name=config.model,
        channels=data.form.channels,
        height=data.form.height,
        width=data.form.width,
        num_classes=len(data.classes),
        hidden=config.hidden_widths,
        dropout=config.dropout,
        base_width=config.width,
        side=data.side,
    )


def _preflight(
    config: TrainConfig,
    model: Classifier,
    optimizer: Optimizer,
    data: ImageData,
    console: Console,
) -> list[Finding]:
    """Look at the data and at one batch before the first step; leave everything as it was."""
    if config.guards == "off":
        return []
    images, labels = next(iter(data.train.batches(0)))

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(logits, target, label_smoothing=config.label_smoothing)

    findings = list(data.findings)
    findings += check_classifier(
        model,
        optimizer,
        loss,
        images[:64],
        labels[:64],
        len(data.classes),
        full=config.guards.endswith("full"),
    )
    return act(findings, console, mode=config.guards, without=config.without)


def _announce(
    config: TrainConfig,
    model: Classifier,
    data: ImageData,
    device: torch.device,
    run: Run,
    console: Console,
) -> None:
    counts = data.facts["counts"]
    form = data.form
    console.note(
        f"{config.data}: {counts['train']:,} training, {counts['val']:,} validation and "
        f"{counts['test']:,} test images, {len(data.classes)} classes, "
        f"{form.mode} {form.height}x{form.width}"
    )
    total = sum(parameter.numel() for parameter in model.parameters())
    console.note(f"{config.model}: {total:,} parameters")
    console.note(f"run folder {run.folder}")
    console.event("start", run=str(run.folder), epochs=config.epochs, device=str(device))


def _finish(
    run: Run,
    model: Classifier,
    spec: Spec,
    data: ImageData,
    outcome: Outcome,
    findings: list[Finding],
    console: Console,
) -> None:
    """Write the model folder, the pictures and the result."""
    image_data.warn_of_streamed(data, console)
    score = metrics.accuracy_score(outcome.matrix)
    result = {
        "run": str(run.folder),
        "model": str(run.folder / "model"),
        "test_accuracy": {**score.as_dict(), "text": score.text()},
        "test_loss": outcome.test_loss,
        "calibration_error": error_of(outcome.answers.reliability()),
        "val_accuracy": outcome.best_value,
        "best_epoch": outcome.best_epoch,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "trained_parameters": count_parameters(model),
        "training_seconds": round(outcome.seconds, 3),
        "images_per_second": round(outcome.images_per_second, 1),
        "findings": [found.as_dict() for found in findings],
    }
    lora.merge(model.network)
    description = describe_model(spec, data.classes, data.form, *model.normalisation())
    shown = ("test_accuracy", "val_accuracy", "best_epoch")
    description["results"] = {key: result[key] for key in shown}
    checkpoint.save_model(run.folder / "model", model, description)
    title, size = f"cnn: {run.folder.name}", (data.form.height, data.form.width)
    pictures.draw_training(run.folder, run.records(), title, outcome.best_epoch)
    pictures.draw_confusions(run.folder, "test", outcome.matrix, data.classes)
    pictures.draw_answers(run.folder, "test", outcome.answers, data.classes, model, size)
    run.finish(result)
    console.result(result, _summary(result))
    console.hint(f"dltool cnn predict {run.folder} IMAGE...")


def _summary(result: Mapping[str, Any]) -> str:
    return (
        f"test accuracy {result['test_accuracy']['text']}\n"
        f"best epoch {result['best_epoch']}, {result['training_seconds']:.1f} s of training, "
        f"{result['images_per_second']:,.0f} images/s\n"
        f"run   {result['run']}\nmodel {result['model']}"
    )
