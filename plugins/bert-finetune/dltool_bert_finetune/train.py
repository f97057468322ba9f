"""Fine-tune a text encoder.

    dltool bert-finetune train                                   a small BERT, made-up reviews
    dltool bert-finetune train --model FOLDER --data FILE.csv    yours

AdamW with warm-up (Devlin et al., 2018) on batches of texts of one length. The best epoch is chosen
on validation data; the test data is used once, at the end.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dltool import device as devices
from dltool import plots, resuming, runs, training
from dltool.console import Console
from dltool.guards.findings import Finding, act
from dltool.runs import Run
from dltool_bert_finetune import batches as text_batches
from dltool_bert_finetune import data as text_data
from dltool_bert_finetune import folder as model_folder
from dltool_bert_finetune import frozen, library, model, outputs, preflight, tasks
from dltool_bert_finetune.config import MONITORS, TrainConfig
from dltool_bert_finetune.dataset import TextData
from dltool_bert_finetune.frozen import FeatureBatches, Features
from dltool_bert_finetune.prepare import Prepared, prepare
from dltool_bert_finetune.targets import Targets


@dataclass(frozen=True)
class Outcome:
    """What a training gave: the measures of the test and the facts of the best epoch."""

    test: dict[str, Any]
    best_epoch: int
    best_value: float
    seconds: float
    texts_per_second: float
    fill: float
    feature_seconds: float = 0.0


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
        result = resuming.finished(resume, model_folder.TOPIC, console)
        if result is not None:
            console.result(result, _summary(result))
            console.hint(f"dltool {model_folder.TOPIC} evaluate {resume}")
            return
    library.load("transformers")
    device = devices.prepare(
        config.device,
        console,
        precision=config.precision,
        seed=config.seed,
        threads=config.threads,
        deterministic=config.deterministic,
    )
    data = text_data.load(config, console)
    text_data.announce(data, console)
    tasks.refuse_idle_options(config, data.targets)
    prepared = prepare(config, data, device, resume, console)
    optimizer = torch.optim.AdamW(
        model.parameter_groups(prepared.network, config),
        lr=config.learning_rate,
        fused=device.type in ("cpu", "cuda"),  # one pass over the weights in place of a dozen
    )
    if config.gradual:
        model.unfreeze_for(prepared.network, 0)
    findings = _preflight(config, prepared, optimizer, data, device, console)
    grade = devices.guarantee(device, deterministic=config.deterministic)
    name = f"{runs.short_name(config.data)}-{runs.short_name(config.model)}"
    with resuming.opened(
        model_folder.TOPIC, name, config, origins, grade, out=out, resume=resume, console=console
    ) as run:
        resuming.check_data(run, data.facts, is_new=resume is None)
        description = model_folder.describe(
            data.targets,
            paired=data.paired,
            tokeniser=prepared.tokeniser,
            source=prepared.source,
            rank=config.lora_rank,
            stride=config.stride,
        )
        description["groups"] = model.count_by_group(prepared.network)
        if resume is None and run.writes:
            model_folder.write_start(
                run.folder, _plain(prepared.network), prepared.tokeniser, description
            )
        console.note(f"run folder {run.folder}")
        console.event("start", run=str(run.folder), epochs=config.epochs, device=str(device))
        outcome = _loop(config, prepared, optimizer, data, run, console, resume=resume is not None)
        _finish(run, prepared, data, description, outcome, findings, console)


def _plain(network: nn.Module) -> nn.Module:
    """Return the network inside low-rank adaptation, for its config."""
    get = getattr(network, "get_base_model", None)
    return get() if callable(get) else network


def _loop(
    config: TrainConfig,
    prepared: Prepared,
    optimizer: torch.optim.Optimizer,
    data: TextData,
    run: Run,
    console: Console,
    *,
    resume: bool,
) -> Outcome:
    """Train, choose the best epoch on validation data, test once."""
    network = prepared.network
    device = next(network.parameters()).device
    targets, parts = data.targets, prepared.splits
    texts = _batches(config, prepared, targets, device)
    source: text_batches.TextBatches | FeatureBatches = texts
    steps = config.epochs * -(-len(texts) // config.accumulate)
    scheduler = model.schedule(optimizer, config.schedule, steps, config.warmup)
    settings = training.Settings.of(config, device, monitor=_monitor(config, targets))
    values = parts["train"].values
    loss_of = tasks.loss_of(config, targets, values, device)
    weights = tasks.class_weights(config, targets, values, device)
    with training.session(
        run, network, optimizer, settings, scheduler=scheduler, console=console, resume=resume
    ) as session:
        begun = time.perf_counter()
        features, trained = _features(config, prepared, console), network
        feature_seconds = time.perf_counter() - begun
        if features is not None:
            source, trained = FeatureBatches(texts, features["train"]), frozen.head_of(network)
        for epoch in session.epochs(config.epochs):
            if config.gradual:
                model.unfreeze_for(network, epoch)
            label = f"epoch {epoch + 1}/{config.epochs}"
            for batch in session.batches(source, label=label):  # tokens (B, T), labels (B, …)
                with session.attempt():
                    loss = loss_of(model.forward(trained, batch), batch["labels"])
                    weight = tasks.weight_of(batch["labels"], targets, weights)
                    session.step(loss, count=len(batch["labels"]), weight=weight)
            with session.averaged():
                logits = answers(prepared, "val", targets, features)
            session.report(tasks.validation(logits, parts["val"], targets))
        session.best.load_into(network)
        logits = answers(prepared, "test", targets)
        return Outcome(
            test=tasks.measure(logits, parts["test"], targets, tasks.lexicon_of(data)),
            best_epoch=session.best.epoch,
            best_value=session.best.value or 0.0,
            seconds=session.stopwatch.seconds,
            texts_per_second=session.samples_per_second,
            fill=source.fill,
            feature_seconds=feature_seconds if features is not None else 0.0,
        )


def _features(
    config: TrainConfig, prepared: Prepared, console: Console
) -> dict[str, Features] | None:
    """Return what a frozen encoder says to training and validation texts."""
    if config.freeze != "encoder":
        return None
    splits = {name: prepared.splits[name].tokens for name in ("train", "val")}
    return frozen.compute(prepared.network, splits, prepared.tokeniser.pad, console)


def _monitor(config: TrainConfig, targets: Targets) -> str:
    return MONITORS[config.monitor] or tasks.monitored(targets.task)


def _batches(
    config: TrainConfig, prepared: Prepared, targets: Targets, device: torch.device
) -> text_batches.TextBatches:
    inputs = prepared.splits["train"]
    return text_batches.TextBatches(
        inputs.tokens,
        tasks.training_values(inputs, targets),
        pad=prepared.tokeniser.pad,
        batch_size=config.batch_size,
        max_tokens=config.max_tokens,
        seed=config.seed,
        device=device,
        is_flat=inputs.is_flat,
    )


def answers(
    prepared: Prepared,
    split: str,
    targets: Targets,
    features: Mapping[str, Features] | None = None,
) -> Tensor:
    """Return the network's outputs for a split, in the labels' own units."""
    inputs = prepared.splits[split]
    if features is not None:
        logits = frozen.logits(prepared.network, features[split], is_flat=targets.by_token)
    else:
        logits = outputs.of(
            prepared.network, prepared.tokeniser, inputs.tokens, by_token=targets.by_token
        )
    return logits * targets.std + targets.mean if targets.task == "regress" else logits


def _preflight(
    config: TrainConfig,
    prepared: Prepared,
    optimizer: torch.optim.Optimizer,
    data: TextData,
    device: torch.device,
    console: Console,
) -> list[Finding]:
    if config.guards == "off":
        return []
    batch = next(iter(_batches(config, prepared, data.targets, device).batches(0)))
    values = prepared.splits["train"].values
    findings = data.findings + preflight.check(
        prepared.network,
        optimizer,
        tasks.loss_of(config, data.targets, values, device),
        batch,
        prepared.tokeniser.pad,
        data.targets,
    )
    return act(findings, console, mode=config.guards, without=config.without)


def _finish(
    run: Run,
    prepared: Prepared,
    data: TextData,
    description: dict[str, Any],
    outcome: Outcome,
    findings: list[Finding],
    console: Console,
) -> None:
    """Write the model folder, the pictures and the result."""
    targets = data.targets
    network = model.merged(prepared.network)
    if targets.task == "regress":
        model.fold_scale(network, targets.mean, targets.std)
    result = {
        "run": str(run.folder),
        "model": str(run.folder / "model"),
        "task": targets.task,
        "test": outcome.test,
        "headline": tasks.headline(outcome.test, targets),
        "best_epoch": outcome.best_epoch,
        "best_value": outcome.best_value,
        "cut": {name: part.tokens.cut for name, part in prepared.splits.items()},
        "fill": round(outcome.fill, 4),
        "training_seconds": round(outcome.seconds, 3),
        "texts_per_second": round(outcome.texts_per_second, 1),
        "feature_seconds": round(outcome.feature_seconds, 3),
        "findings": [found.as_dict() for found in findings],
    }
    results = {key: result[key] for key in ("headline", "best_epoch", "best_value")}
    model_folder.write(
        run.folder / "model", network, prepared.tokeniser, {**description, "results": results}
    )
    best = outcome.best_epoch
    title = f"{model_folder.TOPIC}: {run.folder.name}"
    plots.curves(run.records(), run.folder / "curves.png", title, best_epoch=best)
    if "confusion" in outcome.test:
        matrix = torch.tensor(outcome.test["confusion"])
        plots.confusion_matrix(matrix, targets.classes, run.folder / "confusion-test.png", "test")
    run.finish(result)
    console.result(result, _summary(result))
    more = ' --context "a text that holds the answer"' if targets.task == "qa" else ""
    asked = "a question" if targets.task == "qa" else "some text"
    console.hint(f'dltool {model_folder.TOPIC} predict {run.folder} "{asked}"{more}')


def _summary(result: Mapping[str, Any]) -> str:
    return (
        f"test {result['headline']}\n"
        f"best epoch {result['best_epoch']}, {result['training_seconds']:.1f} s of training, "
        f"{result['texts_per_second']:,.0f} texts/s\n"
        f"run   {result['run']}\nmodel {result['model']}"
    )
