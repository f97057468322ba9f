"""Train an encoder-decoder.

    dltool seq2seq train                                   sums and differences, in minutes
    dltool seq2seq train --task FILE.tsv                   your own pairs
    dltool seq2seq train --task train.de.gz,train.en.gz --level subword

Teacher forcing with the target moved by one place, AdamW along a rate that rises and falls, the
loss over real tokens alone. The best epoch is chosen by its validation loss; the test pairs are
used once, at the end, and answered freely.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dltool import checkpoint, files, optim, plots, resuming, runs, training
from dltool import device as devices
from dltool.console import Console
from dltool.guards.findings import Finding, act
from dltool.metrics import Score
from dltool.runs import Run
from dltool_seq2seq import data as pairs_of
from dltool_seq2seq import measure, preflight
from dltool_seq2seq.config import TrainConfig, idle
from dltool_seq2seq.data import PairData, Pairs
from dltool_seq2seq.decode import Search
from dltool_seq2seq.model import Model, build, count_parameters, loss_of, spec_for
from dltool_seq2seq.schedule import schedule
from dltool_seq2seq.translate import DESCRIPTION, describe_model, vocabularies_of

DECODED = 500  # validation pairs that are answered freely after each epoch


@dataclass(frozen=True)
class Outcome:
    """What a training gave: the answers to the test pairs and the facts of the best epoch."""

    forced: measure.Forced
    given: list[str]
    wanted: list[str]
    best_epoch: int
    best_loss: float
    seconds: float
    pairs_per_second: float

    @property
    def exact(self) -> Score:
        """The share of test pairs that were answered right to the last token."""
        return measure.exact(self.given, self.wanted)


def train(
    config: TrainConfig,
    origins: Mapping[str, str],
    *,
    console: Console,
    out: Path | None = None,
    resume: Path | None = None,
) -> dict[str, Any]:
    """Run or go on with one training, from the pairs to the tested model folder."""
    if resume is not None and not resuming.is_changed(origins):
        result = resuming.finished(resume, "seq2seq", console)
        if result is not None:
            return result
    unused = idle(config, origins)
    if unused:
        console.warn(f"without effect on {config.task} with {config.model}: {', '.join(unused)}")
    device = devices.prepare(
        config.device,
        console,
        precision=config.precision,
        seed=config.seed,
        threads=config.threads,
        deterministic=config.deterministic,
    )
    is_described = resume is not None and (resume / DESCRIPTION).exists()
    known = vocabularies_of(resume) if resume is not None and is_described else None
    data = pairs_of.load(config, device, console, known)
    spec = spec_for(config, data)
    torch.manual_seed(devices.derive_seed(config.seed, "weights"))
    model = build(spec).to(device)
    optimizer = torch.optim.AdamW(
        optim.parameter_groups(model, config.weight_decay),
        lr=config.learning_rate,
        betas=(0.9, 0.98),  # Vaswani et al., 2017: quick to forget the early steps' scale
    )
    findings = _preflight(config, model, optimizer, data, console)
    grade = devices.guarantee(device, deterministic=config.deterministic)
    name = f"{runs.short_name(config.task)}-{config.model}"
    with resuming.opened(
        "seq2seq", name, config, origins, grade, out=out, resume=resume, console=console
    ) as run:
        resuming.check_data(run, data.facts, is_new=resume is None)
        _announce(config, model, data, run, console)
        description = describe_model(spec, config, data.source, data.target)
        files.write_json_atomic(run.folder / DESCRIPTION, description)
        outcome = _loop(config, model, optimizer, data, run, console, resume=resume is not None)
        return _finish(run, model, description, data, outcome, findings)


def _loop(
    config: TrainConfig,
    model: Model,
    optimizer: torch.optim.Optimizer,
    data: PairData,
    run: Run,
    console: Console,
    *,
    resume: bool,
) -> Outcome:
    """Train, choose the best epoch on validation pairs, test once."""
    total = config.epochs * -(-len(data.train) // config.accumulate)
    settings = training.Settings.of(config, next(model.parameters()).device, monitor="val_loss")
    rates = schedule(optimizer, config.schedule, total, config.warmup)
    with training.session(
        run, model, optimizer, settings, scheduler=rates, console=console, resume=resume
    ) as session:
        for epoch in session.epochs(config.epochs):
            label = f"epoch {epoch + 1}/{config.epochs}"
            for batch in session.batches(data.train, label=label):
                sampled = config.scheduled_sampling * session.global_step / total
                with session.attempt():
                    loss = loss_of(model, pairs_of.Batch(*batch), config.label_smoothing, sampled)
                    session.step(loss, count=len(batch[0]))
            with session.averaged():
                values = _validated(config, model, data)
            session.report(values)
        session.best.load_into(model)
        given, wanted = _answered(config, model, data, data.test, len(data.test.texts))
        return Outcome(
            forced=measure.forced(model, data.test),
            given=given,
            wanted=wanted,
            best_epoch=session.best.epoch,
            best_loss=session.best.value or 0.0,
            seconds=session.stopwatch.seconds,
            pairs_per_second=session.samples_per_second,
        )


def _validated(config: TrainConfig, model: Model, data: PairData) -> dict[str, float]:
    """Return the validation figures of an epoch: under teacher forcing, and run freely."""
    forced = measure.forced(model, data.val)
    given, wanted = _answered(config, model, data, data.val, DECODED)
    return {
        "val_loss": forced.loss,
        "val_token_accuracy": forced.right / forced.tokens,
        "val_exact_accuracy": measure.exact(given, wanted).value,
    }


def _answered(
    config: TrainConfig, model: Model, data: PairData, pairs: Pairs, count: int
) -> tuple[list[str], list[str]]:
    """Return greedy answers to the first `count` pairs, and their references."""
    chosen = pairs.texts[:count]
    found = measure.answers(
        model,
        [source for source, _ in chosen],
        data.source,
        data.target,
        Search(),
        reverse_source=config.reverse_source,
        reverse_target=config.reverse_target,
    )
    wanted = [measure.reference(target, data.target) for _, target in chosen]
    return [text for text, _ in found], wanted


def _preflight(
    config: TrainConfig,
    model: Model,
    optimizer: torch.optim.Optimizer,
    data: PairData,
    console: Console,
) -> list[Finding]:
    """Look at the pairs, the model and one batch before the first step."""
    if config.guards == "off":
        return []
    findings = list(data.findings)
    batch = next(iter(data.train.batches(0)))
    findings += preflight.check(model, optimizer, batch, len(data.target))
    return act(findings, console, mode=config.guards, without=config.without)


def _announce(
    config: TrainConfig, model: Model, data: PairData, run: Run, console: Console
) -> None:
    counts = data.facts["counts"]
    console.note(
        f"{config.task}: {counts['train']:,} training, {counts['val']:,} validation and "
        f"{counts['test']:,} test pairs; {len(data.source):,} and {len(data.target):,} "
        f"{config.level} tokens"
    )
    if not data.held_out:
        console.warn("no test pairs are held out: the figures are of pairs that were trained on")
    if config.reverse_target:
        console.note("targets are learnt from their last token to their first, and shown as usual")
    console.note(f"{config.model}: {count_parameters(model):,} parameters")
    console.note(f"run folder {run.folder}")
    console.event("start", run=str(run.folder), epochs=config.epochs)


def _finish(
    run: Run,
    model: Model,
    description: dict[str, Any],
    data: PairData,
    outcome: Outcome,
    findings: list[Finding],
) -> dict[str, Any]:
    """Write the model folder, the picture and the result."""
    score = outcome.exact
    result: dict[str, Any] = {
        "run": str(run.folder),
        "model": str(run.folder / "model"),
        "measured_on": "test" if data.held_out else "pairs that were trained on",
        "exact_match": {**score.as_dict(), "text": score.text()},
        "test_loss": outcome.forced.loss,
        "perplexity": outcome.forced.perplexity,
        "token_accuracy": outcome.forced.right / outcome.forced.tokens,
        "val_loss": outcome.best_loss,
        "best_epoch": outcome.best_epoch,
        "parameters": count_parameters(model),
        "training_seconds": round(outcome.seconds, 3),
        "pairs_per_second": round(outcome.pairs_per_second, 1),
        "findings": [found.as_dict() for found in findings],
        **_translation(data, outcome),
    }
    shown = ("exact_match", "val_loss", "best_epoch", "measured_on")
    checkpoint.save_model(
        run.folder / "model", model, {**description, "results": {key: result[key] for key in shown}}
    )
    title = f"seq2seq: {run.folder.name}"
    plots.curves(run.records(), run.folder / "curves.png", title, best_epoch=outcome.best_epoch)
    run.finish(result)
    return result


def _translation(data: PairData, outcome: Outcome) -> dict[str, Any]:
    """Return BLEU and chrF of the test pairs of a file, where sacrebleu is installed."""
    if data.facts.get("generated"):
        return {}
    from importlib.util import find_spec

    if find_spec("sacrebleu") is None:
        return {"bleu": None, "chrf": None}
    sources = [source for source, _ in data.test.texts]
    wanted = [data.target.normalise(target) for _, target in data.test.texts]
    return measure.translation_scores(sources, outcome.given, wanted)


def summary(result: Mapping[str, Any]) -> str:
    """Return the result of a training as lines for people."""
    lines = [f"exact match {result['exact_match']['text']}"]
    if result.get("bleu"):
        lines += [scored("BLEU", result["bleu"]), scored("chrF", result["chrf"])]
    lines += [
        f"measured on {result['measured_on']}; perplexity {result['perplexity']:.3f} a token",
        f"best epoch {result['best_epoch']}, {result['training_seconds']:.1f} s of training, "
        f"{result['pairs_per_second']:,.0f} pairs/s",
        f"run   {result['run']}\nmodel {result['model']}",
    ]
    return "\n".join(lines)


def scored(name: str, score: Mapping[str, Any]) -> str:
    """Return BLEU or chrF with interval and baseline as a line for people."""
    interval = ""
    if score["low"] is not None:
        interval = f"95 % interval {score['low']:.2f}–{score['high']:.2f}, "
    return (
        f"{name} {score['value']:.2f} ({interval}n = {score['n']:,}; "
        f"copying the source {score['baseline']:.2f})"
    )
