"""Fine-tune a text encoder.

    dltool bert-finetune train                                   a small BERT, made-up reviews
    dltool bert-finetune train --model FOLDER --data FILE.csv    yours

AdamW with warm-up (Devlin et al., 2018) on batches of texts of one length. The best epoch is chosen
on validation data; the test data is used once, at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dltool import device as devices
from dltool import plots, resuming, runs, training
from dltool.console import Console
from dltool.guards.findings import Finding, act
from dltool.runs import Run
from dltool_bert_finetune import batches as text_batches
from dltool_bert_finetune import data as text_data
from dltool_bert_finetune import folder as model_folder
from dltool_bert_finetune import library, measures, model, preflight
from dltool_bert_finetune.config import MONITORS, TrainConfig
from dltool_bert_finetune.data import TextData
from dltool_bert_finetune.prepare import Prepared, prepare
from dltool_bert_finetune.targets import Targets
from dltool_bert_finetune.tokens import Tokeniser, Tokens

EVALUATION_BATCH, EVALUATION_TOKENS = 256, 8192


@dataclass(frozen=True)
class Outcome:
    """What a training gave: the measures of the test and the facts of the best epoch."""

    test: dict[str, Any]
    best_epoch: int
    best_value: float
    seconds: float
    texts_per_second: float
    fill: float


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
    source = _batches(config, prepared, data, device)
    steps = config.epochs * -(-len(source) // config.accumulate)
    scheduler = model.schedule(optimizer, config.schedule, steps, config.warmup)
    settings = training.Settings.of(config, device, monitor=_monitor(config, data.targets))
    loss_of = _loss(config, data, device)
    with training.session(
        run, network, optimizer, settings, scheduler=scheduler, console=console, resume=resume
    ) as session:
        for epoch in session.epochs(config.epochs):
            if config.gradual:
                model.unfreeze_for(network, epoch)
            label = f"epoch {epoch + 1}/{config.epochs}"
            for batch in session.batches(source, label=label):  # tokens (B, T), labels (B, …)
                with session.attempt():
                    loss = loss_of(model.forward(network, batch), batch["labels"])
                    session.step(loss, count=len(batch["labels"]))
            with session.averaged():
                logits = answers(prepared, "val", data.targets)
            session.report(measures.validation(logits, data.values["val"], data.targets))
        session.best.load_into(network)
        logits = answers(prepared, "test", data.targets)
        return Outcome(
            test=measures.of(logits, data.values["test"], data.targets),
            best_epoch=session.best.epoch,
            best_value=session.best.value or 0.0,
            seconds=session.stopwatch.seconds,
            texts_per_second=session.samples_per_second,
            fill=source.fill,
        )


def _monitor(config: TrainConfig, targets: Targets) -> str:
    if targets.task == "regress":
        return "val_loss"
    default = "val_macro_f1" if targets.task == "multilabel" else "val_accuracy"
    return MONITORS[config.monitor] or default


def _batches(
    config: TrainConfig, prepared: Prepared, data: TextData, device: torch.device
) -> text_batches.TextBatches:
    values, targets = data.values["train"], data.targets
    if targets.task == "regress":
        values = (values - targets.mean) / targets.std
    return text_batches.TextBatches(
        prepared.splits["train"],
        values,
        pad=prepared.tokeniser.pad,
        batch_size=config.batch_size,
        max_tokens=config.max_tokens,
        seed=config.seed,
        device=device,
    )


def _loss(config: TrainConfig, data: TextData, device: torch.device) -> preflight.Loss:
    """Return the loss of a batch: cross-entropy, its binary form, or the squared error."""
    weights: Tensor | None = None
    if config.class_weights == "balanced" and data.targets.task == "classify":
        counts = torch.bincount(data.values["train"], minlength=len(data.targets.classes))
        # N / (C n_c): a class weighs the same in the sum, however many texts it has
        weights = (counts.sum() / (len(counts) * counts.clamp_min(1))).to(device)

    def classify(logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(
            logits, labels, weight=weights, label_smoothing=config.label_smoothing
        )

    def regress(logits: Tensor, labels: Tensor) -> Tensor:
        return F.mse_loss(logits[:, 0], labels)

    def several(logits: Tensor, labels: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, labels)

    return {"regress": regress, "multilabel": several}.get(data.targets.task, classify)


@torch.no_grad()
def logits_of(network: nn.Module, tokeniser: Tokeniser, encoded: Tokens) -> Tensor:
    """Return logits (N, outputs) on the CPU, in the order of the texts.

    The network is in evaluation mode meanwhile and goes back to the mode it was in.
    """
    was_training = network.training
    network.eval()
    device = next(network.parameters()).device
    parts, order = [], []
    for index, batch in text_batches.in_order(
        encoded, tokeniser.pad, EVALUATION_BATCH, EVALUATION_TOKENS, device
    ):
        parts.append(model.forward(network, batch).float().cpu())
        order += index
    network.train(was_training)
    found = torch.cat(parts)
    return found[torch.tensor(order).argsort()]


def answers(prepared: Prepared, split: str, targets: Targets) -> Tensor:
    """Return the network's outputs for a split, in the labels' own units."""
    logits = logits_of(prepared.network, prepared.tokeniser, prepared.splits[split])
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
    batch = next(iter(_batches(config, prepared, data, device).batches(0)))
    findings = data.findings + preflight.check(
        prepared.network,
        optimizer,
        _loss(config, data, device),
        batch,
        prepared.tokeniser.pad,
        data.targets,
    )
    act(findings, console, strict=config.guards == "strict")
    return findings


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
        "headline": measures.headline(outcome.test, targets),
        "best_epoch": outcome.best_epoch,
        "best_value": outcome.best_value,
        "cut": {name: part.cut for name, part in prepared.splits.items()},
        "fill": round(outcome.fill, 4),
        "training_seconds": round(outcome.seconds, 3),
        "texts_per_second": round(outcome.texts_per_second, 1),
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
    console.hint(f'dltool {model_folder.TOPIC} predict {run.folder} "some text"')


def _summary(result: Mapping[str, Any]) -> str:
    return (
        f"test {result['headline']}\n"
        f"best epoch {result['best_epoch']}, {result['training_seconds']:.1f} s of training, "
        f"{result['texts_per_second']:,.0f} texts/s\n"
        f"run   {result['run']}\nmodel {result['model']}"
    )
