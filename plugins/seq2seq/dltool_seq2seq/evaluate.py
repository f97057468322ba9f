"""Measure a trained model on its own split, on other pairs, or on longer sums."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dltool import device as devices
from dltool import runs
from dltool.console import Console, table
from dltool.errors import CheckFailed, ConfigError, DataError
from dltool.metrics import Score
from dltool.ranges import one_of
from dltool_seq2seq import measure, tasks
from dltool_seq2seq import translate as translating
from dltool_seq2seq.config import TrainConfig
from dltool_seq2seq.data import Pair, Pairs, Ragged, directed, load, read_pairs
from dltool_seq2seq.decode import Search
from dltool_seq2seq.train import scored
from dltool_seq2seq.translate import Translator

SPLITS = ("test", "val", "train")
LONGER_PAIRS = 1000


@dataclass(frozen=True)
class Wanted:
    """What to measure on, and below which figure to say no."""

    data: str
    split: str
    max_value: int
    source_column: str
    target_column: str
    min_exact: float | None
    min_bleu: float | None


def evaluate_run(
    folder: Path,
    wanted: Wanted,
    search: Search,
    *,
    batch_size: int,
    device: str,
    console: Console,
) -> None:
    """Evaluate a run or model folder and print the result.

    Raises:
        CheckFailed: exact match or BLEU is below what was asked for.
        MissingExtra: BLEU needs sacrebleu.
    """
    one_of("--split", wanted.split, SPLITS)
    choice = devices.choose(device)
    translator = translating.load(folder, choice.device)
    is_text = bool(wanted.data) or translator.task == "file"
    if is_text:
        measure.refuse_without_sacrebleu()
    pairs, name = _pairs(folder, translator, wanted, choice.device, console)
    result = measured(translator, pairs, search, batch_size, is_text=is_text)
    result = {"run": str(folder), "data": name, "decoder": search.method, **result}
    console.result(result, _text(result))
    _refuse_below("exact match", result["exact_match"], wanted.min_exact)
    _refuse_below("BLEU", result.get("bleu"), wanted.min_bleu)


def _refuse_below(name: str, score: dict[str, Any] | None, least: float | None) -> None:
    if least is None:
        return
    if score is None:
        raise ConfigError("E205", f"no {name} is measured on a generated task")
    if score["value"] < least:
        raise CheckFailed("E601", f"{name} {score['value']:.4f} is below {least}")


def measured(
    translator: Translator, pairs: Pairs, search: Search, batch_size: int, *, is_text: bool
) -> dict[str, Any]:
    """Return every figure of a model on pairs."""
    model, target = translator.model, translator.target
    sources = [source for source, _ in pairs.texts]
    found = translator.answers(sources, search, batch_size)
    given = [text for text, _ in found]
    wanted = [measure.reference(text, target) for _, text in pairs.texts]
    forced = measure.forced(model, pairs)
    score = measure.exact(given, wanted)
    result: dict[str, Any] = {
        "exact_match": {**score.as_dict(), "text": score.text()},
        "token_accuracy": Score.from_counts(forced.right, forced.tokens).as_dict(),
        "loss": forced.loss,
        "perplexity": forced.perplexity,
        "cut": sum(details.is_cut for _, details in found),
        "unknown": _unknown(sources, translator),
        "by_length": measure.by_length(sources, given, wanted, translator.source),
    }
    if is_text:
        references = [target.normalise(text) for _, text in pairs.texts]
        result |= measure.translation_scores(sources, given, references)
    if translator.task == "arithmetic":
        result["by_operator"] = _by_operator(sources, given, wanted)
    return result


def _unknown(sources: list[str], translator: Translator) -> float:
    """Return the share of source tokens that the model does not know."""
    tokens = sum(len(translator.source.cut(source)) for source in sources)
    return sum(len(translator.source.unknown(source)) for source in sources) / max(tokens, 1)


def _by_operator(sources: list[str], given: list[str], wanted: list[str]) -> list[dict[str, Any]]:
    rows = []
    for sign in "+-":
        chosen = [i for i, source in enumerate(sources) if sign in source]
        if chosen:
            right = sum(given[i] == wanted[i] for i in chosen)
            rows.append({"operator": sign, **Score.from_counts(right, len(chosen)).as_dict()})
    return rows


def _pairs(
    folder: Path, translator: Translator, wanted: Wanted, device: torch.device, console: Console
) -> tuple[Pairs, str]:
    """Return the pairs to measure on and what they are called."""
    config = _config(folder, wanted)
    if wanted.data:
        found, empty = read_pairs(config, wanted.data, limit=0)
        if empty:
            console.warn(f"{empty:,} pairs with an empty side are left out")
        return _encoded(found, translator, device, console), wanted.data
    if wanted.max_value:
        found = tasks.longer(config, wanted.max_value, LONGER_PAIRS)
        name = f"sums with an operand above {config.max_value}, up to {wanted.max_value}"
        return _encoded(found, translator, device, console), name
    data = load(config, device, console, (translator.source, translator.target))
    if not data.facts["counts"][wanted.split]:
        raise DataError(
            "E503", f"the run has no {wanted.split} pairs", cure="name other pairs with --data"
        )
    chosen = {"train": data.train, "val": data.val, "test": data.test}[wanted.split]
    return chosen, f"{config.task}, {wanted.split}"


def _config(folder: Path, wanted: Wanted) -> TrainConfig:
    """Return the run's own settings of the data, so that its test split is the one it never saw."""
    if (folder / "config.json").exists():
        config, _ = runs.read_config(folder, TrainConfig)
    elif not wanted.data:
        raise ConfigError("E205", f"{folder} is no run and names no data", cure="add --data")
    else:
        config = TrainConfig()
    return dataclasses.replace(
        config,
        source_column=wanted.source_column or config.source_column,
        target_column=wanted.target_column or config.target_column,
    )


def _encoded(
    pairs: list[Pair], translator: Translator, device: torch.device, console: Console
) -> Pairs:
    """Encode pairs for a model; those that it cannot take are left out and told."""
    most = translator.model.spec.max_length
    kept, sources, targets = [], [], []
    for source, target in pairs:
        tidy = tasks.tidied(translator.task, source)
        numbers = translator.source.encode(tidy), translator.target.encode(target)
        if 0 < len(numbers[0]) < most and len(numbers[1]) < most:
            kept.append((source, target))
            sources.append(directed(numbers[0], backwards=translator.reverse_source))
            targets.append(directed(numbers[1], backwards=translator.reverse_target))
    if len(kept) < len(pairs):
        console.warn(
            f"{len(pairs) - len(kept):,} of {len(pairs):,} pairs are longer than the model's "
            f"{most - 1} tokens and left out"
        )
    if not kept:
        raise DataError("E503", "no pair is left to measure on", cure="give shorter texts")
    return Pairs(kept, Ragged.of(sources), Ragged.of(targets), 1, 0, 0, device)


def _text(result: dict[str, Any]) -> str:
    accuracy = result["token_accuracy"]
    lines = [f"{result['data']}: exact match {result['exact_match']['text']}"]
    for name, key in (("BLEU", "bleu"), ("chrF", "chrf")):
        if key in result:
            lines.append(scored(name, result[key]))
    lines.append(
        f"token accuracy {accuracy['value']:.4f} (teacher-forced, n = {accuracy['n']:,}), "
        f"perplexity {result['perplexity']:.3f}"
    )
    if result["unknown"]:
        lines.append(f"{result['unknown']:.1%} of the source tokens are unknown to the model")
    if result["cut"]:
        lines.append(f"{result['cut']:,} answers reached the longest length before their end")
    rows = [
        [_range(row), row["n"], f"{row['value']:.4f}", f"{row['low']:.4f}–{row['high']:.4f}"]
        for row in result["by_length"]
    ]
    lines += ["", table(rows, ("source tokens", "pairs", "exact match", "95 % interval"))]
    for row in result.get("by_operator", []):
        lines.append(f"operator {row['operator']}: {row['value']:.4f}, n = {row['n']:,}")
    return "\n".join(lines)


def _range(row: dict[str, Any]) -> str:
    return str(row["from"]) if row["from"] == row["to"] else f"{row['from']}–{row['to']}"
