"""Train a detector.

    dltool detect train                                        made-up shapes, half a minute
    dltool detect train --data FOLDER|ZIP                      your own boxes, from scratch
    dltool detect train --data ... --model fasterrcnn-mobilenet --weights coco

AdamW along a one-cycle rate, averaged weights, augmentation that moves the boxes. The best epoch is
chosen by average precision on the validation split; the test split is used once, at the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dltool import checkpoint, files, optim, plots, resuming, runs, training
from dltool import device as devices
from dltool.console import Console
from dltool.guards.findings import Finding, act
from dltool.runs import Run
from dltool_detect import ap, beginning, feed, preflight
from dltool_detect.ap import Report
from dltool_detect.config import TrainConfig
from dltool_detect.data import DetectionSet, Splits
from dltool_detect.models.build import Detector, describe
from dltool_detect.train_pictures import draw_ap, draw_batch
from dltool_detect.transforms import Augmented, Batch

TOPIC = "detect"
MONITOR = "val_ap"


@dataclass(frozen=True)
class Pools:
    """The pictures of the three splits at the size of training; `test` may be missing."""

    train: feed.Pictures
    val: feed.Pictures
    test: feed.Pictures | None


@dataclass(frozen=True)
class Outcome:
    """What a training gave: the best epoch, and the last report on the split that it names."""

    split: str
    report: Report
    baseline: Report
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
        result = resuming.finished(resume, TOPIC, console)
        if result is not None:
            console.result(result, summary(result))
            console.hint(f"dltool detect evaluate {resume}")
            return
    device = devices.prepare(
        config.device,
        console,
        precision=config.precision,
        seed=config.seed,
        threads=config.threads,
        deterministic=config.deterministic,
    )
    splits = feed.load(config, console)
    classes = splits.train.classes
    detector = beginning.detector(config, classes, console, run=resume).to(device)
    pools = Pools(
        feed.pictures(splits.train, config.side, "train", console),
        feed.pictures(splits.val, config.side, "val", console),
        None if splits.test is None else feed.pictures(splits.test, config.side, "test", console),
    )
    source = batches(config, pools.train, device)
    optimizer = torch.optim.AdamW(
        optim.parameter_groups(detector, config.weight_decay), lr=config.learning_rate
    )
    findings = _preflight(config, detector, optimizer, splits, source, console)
    grade = devices.guarantee(device, deterministic=config.deterministic)
    name = f"{runs.short_name(config.data)}-{config.model}"
    with resuming.opened(
        TOPIC, name, config, origins, grade, out=out, resume=resume, console=console
    ) as run:
        resuming.check_data(run, feed.facts(splits, config.side), is_new=resume is None)
        _announce(config, detector, splits, device, run, console)
        files.write_json_atomic(run.folder / checkpoint.DESCRIPTION, describe(detector))
        draw_batch(next(iter(source.batches(0))), classes, run.folder / "train-batch.png")
        outcome = _loop(config, detector, optimizer, source, pools, run, console, resume)
        _finish(run, detector, outcome, findings, console)


def batches(config: TrainConfig, pictures: feed.Pictures, device: torch.device) -> Augmented:
    """Return the training's batches; they depend on seed, epoch and position alone."""
    return Augmented(
        samples=pictures,
        batch_size=config.batch_size,
        seed=config.seed,
        names=config.augmentations,
        epochs=config.epochs,
        mosaic_share=config.mosaic,
        device=device,
    )


def _loop(
    config: TrainConfig,
    detector: Detector,
    optimizer: torch.optim.Optimizer,
    source: Augmented,
    pools: Pools,
    run: Run,
    console: Console,
    resume: Path | None,
) -> Outcome:
    """Train, choose the best epoch by AP on validation data, test once."""
    steps_per_epoch = -(-len(source) // config.accumulate)
    scheduler = optim.schedule(optimizer, config.schedule, config.epochs * steps_per_epoch)
    settings = training.Settings.of(config, next(detector.parameters()).device, monitor=MONITOR)
    with training.session(
        run,
        detector,
        optimizer,
        settings,
        scheduler=scheduler,
        console=console,
        resume=resume is not None,
    ) as session:
        for epoch in session.epochs(config.epochs):
            label = f"epoch {epoch + 1}/{config.epochs}"
            for images, boxes, labels in session.batches(source, label=label):
                with session.attempt():
                    loss = detector(images, boxes, labels)  # (B, 3, S, S), (B, M, 4), (B, M)
                    session.step(loss, count=len(images))
            with session.averaged():
                report = ap.evaluate(pools.val.content, feed.found_on(detector, pools.val))
            session.report({MONITOR: report.ap or 0.0, "val_ap50": report.ap50 or 0.0})
        session.best.load_into(detector)
        split, asked = ("test", pools.test) if pools.test is not None else ("val", pools.val)
        found = feed.found_on(detector, asked)
        return Outcome(
            split=split,
            report=ap.evaluate(asked.content, found, interval=True),
            baseline=ap.evaluate(
                asked.content, feed.usual_boxes(pools.train.content, asked.content)
            ),
            best_epoch=session.best.epoch,
            best_value=session.best.value or 0.0,
            seconds=session.stopwatch.seconds,
            images_per_second=session.samples_per_second,
        )


def _preflight(
    config: TrainConfig,
    detector: Detector,
    optimizer: torch.optim.Optimizer,
    splits: Splits,
    source: Augmented,
    console: Console,
) -> list[Finding]:
    """Look at the data and at one batch before the first step; leave everything as it was."""
    if config.guards == "off":
        return []
    findings = preflight.check_data(splits, config.side)
    batch: Batch = next(iter(source.batches(0)))
    findings += preflight.check_batch(detector, optimizer, batch)
    return act(findings, console, mode=config.guards, without=config.without)


def _announce(
    config: TrainConfig,
    detector: Detector,
    splits: Splits,
    device: torch.device,
    run: Run,
    console: Console,
) -> None:
    console.note(
        f"{config.data}: {_told(splits.train)} to train on, {_told(splits.val)} to validate, "
        f"{_told(splits.test)} to test; classes {', '.join(splits.train.classes[:10])}"
    )
    count = count_parameters(detector)
    console.note(f"{config.model}: {count:,} parameters, {config.side}x{config.side} pixels")
    console.note(f"run folder {run.folder}")
    console.event("start", run=str(run.folder), epochs=config.epochs, device=str(device))


def _told(part: DetectionSet | None) -> str:
    return "nothing" if part is None else f"{len(part):,} pictures ({part.num_boxes:,} boxes)"


def count_parameters(detector: Detector) -> int:
    """Return the number of trainable parameters."""
    return sum(weight.numel() for weight in detector.parameters() if weight.requires_grad)


def _finish(
    run: Run, detector: Detector, outcome: Outcome, findings: Sequence[Finding], console: Console
) -> None:
    """Write the model folder, the pictures and the result."""
    report = outcome.report
    result: dict[str, Any] = {
        "run": str(run.folder),
        "model": str(run.folder / "model"),
        "split": outcome.split,
        "ap50": report.ap50,
        "ap": report.ap,
        "text": report.text(),
        outcome.split: report.as_dict(),
        "baseline_ap50": outcome.baseline.ap50,
        MONITOR: outcome.best_value,
        "best_epoch": outcome.best_epoch,
        "parameters": count_parameters(detector),
        "training_seconds": round(outcome.seconds, 3),
        "images_per_second": round(outcome.images_per_second, 1),
        "findings": [found.as_dict() for found in findings],
    }
    description = describe(detector)
    shown = ("split", "ap50", "ap", MONITOR, "best_epoch")
    description["results"] = {key: result[key] for key in shown}
    checkpoint.save_model(run.folder / "model", detector, description)
    records = run.records()
    title = f"detect: {run.folder.name}"
    plots.curves(records, run.folder / "curves.png", title, best_epoch=outcome.best_epoch)
    draw_ap(records, run.folder / "ap.png", title, best_epoch=outcome.best_epoch)
    run.finish(result)
    if outcome.split == "val":
        console.warn("the data has no test part: the figures are of the split that chose the model")
    console.result(result, summary(result))
    console.hint(f"dltool detect predict IMAGE --model {run.folder}")


def summary(result: Mapping[str, Any]) -> str:
    """Return the result of a training as text."""
    baseline = result["baseline_ap50"] or 0.0
    rows = [
        f"  {row['class']:<16} AP50 {ap.shown(row['ap50'])}  AP {ap.shown(row['ap'])}  "
        f"({row['boxes']:,} boxes)"
        for row in result[result["split"]]["per_class"]
    ]
    return "\n".join(
        [
            f"{result['split']} {result['text']}; usual boxes without looking {baseline:.3f}",
            *rows,
            f"best epoch {result['best_epoch']}, {result['training_seconds']:.1f} s of training, "
            f"{result['images_per_second']:,.1f} images/s",
            f"run   {result['run']}",
            f"model {result['model']}",
        ]
    )
