"""Pre-train a BERT: guess hidden words, and tell whether a sentence follows another.

    dltool bert-finetune pretrain                              a tiny BERT on 300 news texts
    dltool bert-finetune pretrain --data FILE --size mini      yours
    dltool bert-finetune pretrain --data FILE --model FOLDER   go on with a model on other texts

The loss of the hidden words is the mean over the hidden positions alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dltool import device as devices
from dltool import metrics, optim, plots, resuming, runs, training
from dltool.console import Console
from dltool.runs import Run
from dltool_bert_finetune import folder as model_folder
from dltool_bert_finetune import hub, library, model, tokens
from dltool_bert_finetune import pretrain_data as masked
from dltool_bert_finetune.config import SCRATCH
from dltool_bert_finetune.folder import TOPIC
from dltool_bert_finetune.pretrain_config import PretrainConfig
from dltool_bert_finetune.pretrain_data import IGNORED, MaskedPairs, Special
from dltool_bert_finetune.tokens import Tokeniser


@dataclass(frozen=True)
class Prepared:
    """Network, tokeniser and batches of a run."""

    network: nn.Module
    tokeniser: Tokeniser
    splits: dict[str, MaskedPairs]
    paired: bool
    source: dict[str, str]
    facts: dict[str, Any]


def pretrain(
    config: PretrainConfig,
    origins: Mapping[str, str],
    *,
    console: Console,
    out: Path | None = None,
    resume: Path | None = None,
) -> None:
    """Run or go on with one pre-training; leave a model folder that `train --model` takes."""
    if resume is not None and not resuming.is_changed(origins):
        result = resuming.finished(resume, TOPIC, console)
        if result is not None:
            console.result(result, _summary(result))
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
    prepared = _prepare(config, device, resume, console)
    optimizer = torch.optim.AdamW(
        optim.parameter_groups(prepared.network, config.weight_decay), lr=config.learning_rate
    )
    grade = devices.guarantee(device, deterministic=config.deterministic)
    name = f"pretrain-{runs.short_name(config.data)}"
    with resuming.opened(
        TOPIC,
        name,
        config,
        origins,
        grade,
        out=out,
        resume=resume,
        console=console,
        verb="pretrain",
    ) as run:
        resuming.check_data(run, prepared.facts, is_new=resume is None)
        description = {
            "topic": TOPIC,
            "kind": "encoder",
            "max_length": prepared.tokeniser.max_length,
            "source": prepared.source,
            "groups": model.count_by_group(prepared.network),
        }
        if resume is None:
            model_folder.write_start(run.folder, prepared.network, prepared.tokeniser, description)
        console.note(f"run folder {run.folder}")
        console.event("start", run=str(run.folder), epochs=config.epochs, device=str(device))
        _loop(config, prepared, optimizer, description, run, console, resume=resume is not None)


def _loop(
    config: PretrainConfig,
    prepared: Prepared,
    optimizer: torch.optim.Optimizer,
    description: dict[str, Any],
    run: Run,
    console: Console,
    *,
    resume: bool,
) -> None:
    """Train, choose the best epoch on validation documents, measure once on test documents."""
    network, source = prepared.network, prepared.splits["train"]
    steps = config.epochs * -(-len(source) // config.accumulate)
    scheduler = model.schedule(optimizer, config.schedule, steps, config.warmup)
    settings = training.Settings.of(config, next(network.parameters()).device, monitor="val_loss")
    with training.session(
        run, network, optimizer, settings, scheduler=scheduler, console=console, resume=resume
    ) as session:
        for epoch in session.epochs(config.epochs):
            label = f"epoch {epoch + 1}/{config.epochs}"
            for batch in session.batches(source, label=label):  # tokens (B, T)
                with session.attempt():
                    words, follows = answers(network, batch)  # (M, V), (B, 2)
                    loss = loss_of(words, follows, batch, paired=prepared.paired)
                    session.step(loss, count=len(batch["input_ids"]))
            with session.averaged():
                found = measure(network, prepared.splits["val"], paired=prepared.paired)
            session.report({f"val_{name}": value for name, value in found.items()})
        session.best.load_into(network)
        test = measure(network, prepared.splits["test"], paired=prepared.paired)
        result = _result(run, prepared, test, session)
    results = {"headline": result["headline"]}
    model_folder.write(
        run.folder / "model", network, prepared.tokeniser, {**description, "results": results}
    )
    title = f"{TOPIC} pretrain: {run.folder.name}"
    plots.curves(run.records(), run.folder / "curves.png", title, best_epoch=result["best_epoch"])
    run.finish(result)
    console.result(result, _summary(result))
    console.hint(f"dltool {TOPIC} train --model {run.folder} --data FILE")


def answers(network: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
    """Return logits of the hidden words (M, V), and of "does it follow" (B, 2) where there are any.

    The large output layer sees the hidden positions only: a seventh of the work for the same loss.
    """
    hidden = batch["labels"] != IGNORED  # (B, T)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    head: Any = getattr(network, "cls", None)
    if head is None:
        inputs.pop("token_type_ids")
        return network(**inputs).logits[hidden], None
    encoder: Any = network.base_model
    out = encoder(**inputs)
    words: Tensor = head.predictions(out.last_hidden_state[hidden])
    if not hasattr(head, "seq_relationship"):
        return words, None
    return words, head.seq_relationship(out.pooler_output)


def loss_of(
    words: Tensor, follows: Tensor | None, batch: Mapping[str, Tensor], *, paired: bool
) -> Tensor:
    """Return the mean over the hidden words, plus that over the pairs: both weigh 1."""
    loss = F.cross_entropy(words.float(), batch["labels"][batch["labels"] != IGNORED])
    if paired and follows is not None:
        loss = loss + F.cross_entropy(follows.float(), _class_of(batch["follows"]))
    return loss


def _class_of(follows: Tensor) -> Tensor:
    """Return the class in BERT's head: 0 the second part follows, 1 it is from elsewhere."""
    return 1 - follows


@torch.no_grad()
def measure(network: nn.Module, source: MaskedPairs, *, paired: bool) -> dict[str, float]:
    """Return losses and accuracies over all batches of a split, each masked once and for all."""
    was_training = network.training
    network.eval()
    sums = dict.fromkeys(("words", "right", "word_loss", "pairs", "pairs_right", "pair_loss"), 0.0)
    for batch in source.batches(0):
        words, follows = answers(network, batch)
        labels = batch["labels"][batch["labels"] != IGNORED]
        sums["words"] += len(labels)
        sums["right"] += int((words.argmax(1) == labels).sum())
        sums["word_loss"] += float(F.cross_entropy(words.float(), labels, reduction="sum"))
        if paired and follows is not None:
            classes = _class_of(batch["follows"])
            sums["pairs"] += len(classes)
            sums["pairs_right"] += int((follows.argmax(1) == classes).sum())
            sums["pair_loss"] += float(F.cross_entropy(follows.float(), classes, reduction="sum"))
    network.train(was_training)
    found = {
        "mlm_loss": sums["word_loss"] / sums["words"],
        "mlm_accuracy": sums["right"] / sums["words"],
    }
    if sums["pairs"]:
        found["nsp_loss"] = sums["pair_loss"] / sums["pairs"]
        found["nsp_accuracy"] = sums["pairs_right"] / sums["pairs"]
    found["loss"] = found["mlm_loss"] + found.get("nsp_loss", 0.0)
    return found


def _counted(source: MaskedPairs) -> tuple[int, int]:
    """Return the hidden words and the pairs of a split."""
    words = pairs = 0
    for batch in source.batches(0):
        words += int((batch["labels"] != IGNORED).sum())
        pairs += len(batch["follows"])
    return words, pairs


def baseline(train: Iterable[masked.Document], test: MaskedPairs, size: int) -> dict[str, float]:
    """Return what answering from the training words' frequencies reaches on the hidden words."""
    counts = torch.ones(size, dtype=torch.float64)  # no word is impossible
    for document in train:
        for sentence in document:
            counts += torch.bincount(torch.tensor(sentence), minlength=size)
    shares = (counts / counts.sum()).log()
    labels = torch.cat([batch["labels"].flatten().cpu() for batch in test.batches(0)])
    labels = labels[labels != IGNORED]
    return {
        "loss": float(-shares[labels].mean()),
        "accuracy": float((labels == int(shares.argmax())).double().mean()),
    }


def _result(
    run: Run, prepared: Prepared, test: dict[str, float], session: training.Session
) -> dict[str, Any]:
    split = prepared.splits["test"]
    words, pairs = _counted(split)
    plain = baseline(prepared.splits["train"].documents, split, split.special.size)
    accuracy = metrics.Score.from_counts(
        round(test["mlm_accuracy"] * words), words, plain["accuracy"]
    )
    result: dict[str, Any] = {
        "run": str(run.folder),
        "model": str(run.folder / "model"),
        "mlm_accuracy": accuracy.as_dict(),
        "mlm_loss": test["mlm_loss"],
        "mlm_loss_of_word_counts": plain["loss"],
        "perplexity": math.exp(min(test["mlm_loss"], 700)),
        "best_epoch": session.best.epoch,
        "training_seconds": round(session.stopwatch.seconds, 3),
        "pairs_per_second": round(session.samples_per_second, 1),
    }
    lines = [
        f"hidden words right {accuracy.text()}",
        f"loss {test['mlm_loss']:.4f} (word counts alone: {plain['loss']:.4f}), perplexity "
        f"{result['perplexity']:.1f}",
    ]
    if prepared.paired:
        score = metrics.Score.from_counts(round(test["nsp_accuracy"] * pairs), pairs, 0.5)
        result |= {"nsp_accuracy": score.as_dict(), "nsp_loss": test["nsp_loss"]}
        lines.append(f"next sentence {score.text()}, loss {test['nsp_loss']:.4f} (chance 0.6931)")
    return {**result, "headline": lines[0], "lines": lines}


def _summary(result: Mapping[str, Any]) -> str:
    return "\n".join(
        [
            *result["lines"],
            f"best epoch {result['best_epoch']}, {result['training_seconds']:.1f} s of training, "
            f"{result['pairs_per_second']:,.0f} inputs/s",
            f"run   {result['run']}",
            f"model {result['model']}",
        ]
    )


# ---- before the first step ------------------------------------------------------------------


def _prepare(
    config: PretrainConfig, device: torch.device, resume: Path | None, console: Console
) -> Prepared:
    parts = masked.split(masked.read_documents(config, console), config)
    torch.manual_seed(devices.derive_seed(config.seed, "weights"))
    if resume is not None:
        start = resume / model_folder.START
        settings = model.read_settings(start, str(resume))
        tokeniser = model.read_tokeniser(start, settings, str(resume), config.max_length)
        source = dict(runs.read_json(resume, "model.json")["source"])
        network = _build(settings)
    elif config.model == SCRATCH:
        learnt = tokens.train_wordpiece(parts["train"], config.vocabulary)
        settings = model.scratch_settings(config.size, len(learnt))
        tokeniser = tokens.wrap(learnt, settings, config.max_length)
        source, network = {"model": f"{SCRATCH}, {config.size}"}, _build(settings)
    else:
        network, tokeniser, source = _pretrained(config, console)
    # only BERT itself has a head for pairs of sentences
    paired = config.next_sentence and hasattr(getattr(network, "cls", None), "seq_relationship")
    splits = _splits(parts, config, network, tokeniser, paired=paired, device=device)
    counted = {name: len(documents) for name, documents in parts.items()}
    facts = {
        "source": config.data,
        "counts": counted,
        "fingerprint": masked.fingerprint(parts),
    }
    total = sum(parameter.numel() for parameter in network.parameters())
    counts = ", ".join(f"{count:,} {name}" for name, count in counted.items())
    console.note(f"documents: {counts}")
    what = "hidden words and next sentences" if paired else "hidden words"
    console.note(f"{source['model']}: {total:,} parameters, {len(tokeniser.library):,} word pieces")
    console.note(f"{len(splits['train']):,} batches an epoch, of {what}")
    return Prepared(network.to(device), tokeniser, splits, paired, source, facts)


def _build(settings: Any) -> nn.Module:
    transformers = library.load("transformers")
    if settings.model_type == "bert":
        network: nn.Module = transformers.BertForPreTraining(settings)
        return network
    found: nn.Module = transformers.AutoModelForMaskedLM.from_config(settings)
    return found.float()


def _pretrained(
    config: PretrainConfig, console: Console
) -> tuple[nn.Module, Tokeniser, dict[str, str]]:
    found = hub.find(config.model, config.revision, console)
    settings = model.read_settings(found.folder, found.name)
    tokeniser = model.read_tokeniser(found.folder, settings, found.name, config.max_length)
    transformers = library.load("transformers")
    is_bert = settings.model_type == "bert"
    kind = transformers.BertForPreTraining if is_bert else transformers.AutoModelForMaskedLM
    with model.explained(found.name):
        network, report = kind.from_pretrained(
            found.folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    heads = ("cls.", "vocab_", "lm_head", "head.", "decoder", "generator_", "pooler")
    strange = [name for name in report["missing_keys"] if not any(h in str(name) for h in heads)]
    model.check_report({**report, "missing_keys": strange}, found.name)
    if report["missing_keys"]:
        console.note(f"{found.name} has no head for hidden words: it begins with a fresh one")
    return network.float(), tokeniser, {"model": found.name, "revision": found.revision}


def _splits(
    parts: dict[str, list[str]],
    config: PretrainConfig,
    network: nn.Module,
    tokeniser: Tokeniser,
    *,
    paired: bool,
    device: torch.device,
) -> dict[str, MaskedPairs]:
    words = tokeniser.library
    settings: Any = network.config
    special = Special(
        pad=tokeniser.pad,
        first=words.cls_token_id,
        separator=words.sep_token_id,
        mask=words.mask_token_id,
        reserved=frozenset(words.all_special_ids),
        size=min(len(words), int(settings.vocab_size)),
    )
    pieces = words.convert_ids_to_tokens(list(range(len(words))))
    starts = torch.tensor([not str(piece).startswith("##") for piece in pieces])
    return {
        name: MaskedPairs(
            masked.encode(documents, words.backend_tokenizer),
            special,
            config,
            paired,
            starts,
            device,
            fixed=name != "train",
        )
        for name, documents in parts.items()
    }
