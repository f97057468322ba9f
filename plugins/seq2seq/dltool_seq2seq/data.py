"""Pairs of texts, generated or the user's own, as batches of token numbers.

The vocabularies come from the training pairs alone. What is left out (empty lines, pairs that are
too long) is counted and told. A batch depends on (seed, epoch, position) alone.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dltool.console import Console
from dltool.data import texts
from dltool.device import derive_seed, generator
from dltool.errors import ConfigError, DataError
from dltool.guards.findings import Finding
from dltool.guards.labels import check_leak
from dltool_seq2seq import tasks, vocab
from dltool_seq2seq.config import TASKS, TrainConfig
from dltool_seq2seq.vocab import BOS, EOS, PAD, Vocabulary

Pair = tuple[str, str]
AMBIGUOUS_SHARE = 0.05


class Batch(NamedTuple):
    """One batch; every part has one entry a pair.

    source (B, S) and lengths (B,) with the end mark; `decoder_input` (B, T) begins with `BOS`,
    `target` (B, T) ends with `EOS`: decoder_input[:, t] is target[:, t - 1]. `weight` (B,) is B
    divided by the batch's target tokens, so that mean(weight · sum of a row's losses) is the mean
    loss a token, however the batch is divided.
    """

    source: Tensor
    lengths: Tensor
    decoder_input: Tensor
    target: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Ragged:
    """Token sequences of different lengths in one flat tensor.

    Attributes:
        tokens: (sum of lengths,) int64; starts, lengths: (N,).
    """

    tokens: Tensor
    starts: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]]) -> Ragged:
        """Join sequences, each of which gets `EOS` at its end."""
        lengths = torch.tensor([len(sequence) + 1 for sequence in sequences], dtype=torch.long)
        flat = [number for sequence in sequences for number in (*sequence, EOS)]
        return cls(torch.tensor(flat, dtype=torch.long), lengths.cumsum(0) - lengths, lengths)

    def rows(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B, longest) tokens, padded at the end, and their lengths (B,)."""
        lengths = self.lengths[chosen]
        places = torch.arange(int(lengths.max()))
        inside = places < lengths[:, None]
        index = (self.starts[chosen, None] + places).clamp(max=len(self.tokens) - 1)
        return torch.where(inside, self.tokens[index], PAD), lengths


@dataclass(frozen=True)
class Pairs:
    """Encoded pairs that yield batches; order and batches depend on (seed, epoch) alone.

    Attributes:
        bucket: batches that are cut from pairs sorted by length together; 0 shuffles freely.
    """

    texts: Sequence[Pair]
    source: Ragged
    target: Ragged
    batch_size: int
    seed: int
    bucket: int
    device: torch.device

    def __len__(self) -> int:
        return -(-len(self.texts) // self.batch_size)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from number `start` on."""
        for rows in self.order(epoch)[start:]:
            yield self.batch(rows)

    def order(self, epoch: int) -> list[Tensor]:
        """Return the rows of every batch of an epoch.

        With buckets, stretches of the shuffled pairs are sorted by length, so that a batch holds
        little padding, and the batches are shuffled again.
        """
        stream = generator(self.seed, epoch, "order")
        order = torch.randperm(len(self.texts), generator=stream)
        if not self.bucket:
            return list(order.split(self.batch_size))
        found: list[Tensor] = []
        for part in order.split(self.batch_size * self.bucket):
            keys = self.source.lengths[part] * 100_000 + self.target.lengths[part]
            found += part[keys.argsort(stable=True)].split(self.batch_size)
        return [found[place] for place in torch.randperm(len(found), generator=stream).tolist()]

    def batch(self, rows: Tensor) -> Batch:
        """Return the batch of some rows."""
        source, lengths = self.source.rows(rows)
        target, target_lengths = self.target.rows(rows)
        begin = torch.full((len(rows), 1), BOS)
        decoder_input = torch.cat([begin, target[:, :-1]], 1)
        # an end mark that is fed belongs to a row that is over: its target there is padding
        weight = torch.full((len(rows),), len(rows) / int(target_lengths.sum()))
        parts = (source, lengths, decoder_input, target, weight)
        return Batch(*(part.to(self.device, non_blocking=True) for part in parts))


@dataclass(frozen=True)
class PairData:
    """The three splits, their vocabularies and what to write down about them.

    Attributes:
        held_out: False where there is nothing beside the training pairs to measure on.
    """

    train: Pairs
    val: Pairs
    test: Pairs
    source: Vocabulary
    target: Vocabulary
    held_out: bool
    facts: dict[str, Any]
    findings: list[Finding]


def load(
    config: TrainConfig,
    device: torch.device,
    console: Console,
    vocabularies: tuple[Vocabulary, Vocabulary] | None = None,
) -> PairData:
    """Read or generate the pairs and encode them.

    Args:
        vocabularies: those of the run that goes on; by default the training pairs make them.

    Raises:
        DataError: E501, E502, E503, E506: files are missing, damaged, empty or do not pair up.
        MissingExtra: a library that the level needs is not installed.
    """
    if config.is_generated:
        splits, empty = tasks.generate(config), 0
    else:
        splits, empty = _read_splits(config)
    source, target = vocabularies or _vocabularies(config, splits["train"])
    if empty:
        console.warn(f"{empty:,} pairs with an empty side are left out")
    counts: dict[str, int] = {}
    encoded = {}
    for split, pairs in splits.items():
        encoded[split] = _encoded(config, pairs, source, target, split, device, console)
        counts[split] = len(encoded[split].texts)
    train = encoded["train"]
    if not train.texts:
        raise DataError("E503", "no pair is left to train on", cure="use a larger --max-length")
    val = encoded["val"] if encoded["val"].texts else train
    test = encoded["test"] if encoded["test"].texts else val
    facts = {
        "fingerprint": _fingerprint(splits),
        "generated": config.is_generated,
        "counts": {**counts, "empty": empty},
        "vocabulary": {"source": len(source), "target": len(target)},
        "longest": {"source": int(train.source.lengths.max()), "target": _longest(train)},
    }
    held_out = bool(encoded["test"].texts)
    findings = [] if config.is_generated else _check(config, splits)
    return PairData(train, val, test, source, target, held_out, facts, findings)


def _longest(pairs: Pairs) -> int:
    return int(pairs.target.lengths.max())


def _vocabularies(config: TrainConfig, pairs: Sequence[Pair]) -> tuple[Vocabulary, Vocabulary]:
    def make(texts_of_side: Sequence[str]) -> Vocabulary:
        return vocab.build(
            texts_of_side,
            config.level,
            lower=config.lower,
            vocab_size=config.vocab_size,
            min_freq=config.min_freq,
        )

    sources, targets = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    if config.share_vocab:
        shared = make([*sources, *targets])
        return shared, shared
    return make(sources), make(targets)


def directed(numbers: Sequence[int], *, backwards: bool) -> list[int]:
    """Return a sequence in the order in which the model reads or writes it."""
    return list(reversed(numbers)) if backwards else list(numbers)


def _encoded(
    config: TrainConfig,
    pairs: Sequence[Pair],
    source: Vocabulary,
    target: Vocabulary,
    split: str,
    device: torch.device,
    console: Console,
) -> Pairs:
    """Encode the pairs of a split; the training split loses those that are too long."""
    sides: list[tuple[list[int], list[int]]] = []
    kept: list[Pair] = []
    for first, second in pairs:
        numbers = (
            directed(source.encode(first), backwards=config.reverse_source),
            directed(target.encode(second), backwards=config.reverse_target),
        )
        if max(map(len, numbers)) < config.max_length:
            sides.append(numbers)
            kept.append((first, second))
    if len(kept) < len(pairs):
        console.warn(
            f"{len(pairs) - len(kept):,} of {len(pairs):,} {split} pairs are longer than "
            f"--max-length {config.max_length} tokens and left out"
        )
    return Pairs(
        kept,
        Ragged.of([side[0] for side in sides]),
        Ragged.of([side[1] for side in sides]),
        config.batch_size,
        config.seed,
        config.bucket,
        device,
    )


def _fingerprint(splits: dict[str, list[Pair]]) -> str:
    digest = hashlib.sha256()
    for split, pairs in splits.items():
        digest.update(f"{split} {len(pairs)}\n".encode())
        for pair in pairs:
            digest.update("\t".join(pair).encode(errors="surrogatepass") + b"\n")
    return digest.hexdigest()


# ---- files ------------------------------------------------------------------------------------


def _read_splits(config: TrainConfig) -> tuple[dict[str, list[Pair]], int]:
    """Return the pairs of the three splits and how many had an empty side."""
    pairs, empty = read_pairs(config, config.task)
    if not pairs:
        raise DataError("E503", f"{config.task} holds no pair of texts")
    shares = {
        "val": 0.0 if config.val else config.val_fraction,
        "test": 0.0 if config.test else config.test_fraction,
    }
    splits = _divided(pairs, shares, config.seed)
    for split, path in (("val", config.val), ("test", config.test)):
        if path:
            splits[split], more = read_pairs(config, path, limit=0)
            empty += more
    return splits, empty


def read_pairs(config: TrainConfig, text: str, limit: int | None = None) -> tuple[list[Pair], int]:
    """Return the pairs of a table, or of two parallel files with a comma between their names.

    Args:
        limit: most pairs to read; None: the config's; 0: all.

    Raises:
        DataError: E501, E502, E503, E506.
    """
    most = config.limit if limit is None else limit
    found = _parallel(config, text) if _is_parallel(text) else _table(config, text)
    pairs = list(itertools.islice(found, most or None))
    kept = [pair for pair in pairs if pair[0] and pair[1]]
    return kept, len(pairs) - len(kept)


def _is_parallel(text: str) -> bool:
    return "," in text and not Path(text).exists()


def _table(config: TrainConfig, path: str) -> Iterator[Pair]:
    _refuse_missing(path)
    wanted = (config.source_column, config.target_column)
    for row in texts.rows(path, wanted, encoding=config.encoding):
        yield row.cells[0].strip(), row.cells[1].strip()


def _refuse_missing(path: str) -> None:
    if not Path(path).exists():
        raise DataError(
            "E501",
            f"there is no file {path!r}",
            expected=f"one of the tasks {', '.join(TASKS)}, a table of pairs, or SOURCE,TARGET",
            cure="check the path",
        )


def _parallel(config: TrainConfig, text: str) -> Iterator[Pair]:
    names = [name.strip() for name in text.split(",")]
    if len(names) != 2:
        raise ConfigError(
            "E202",
            "two parallel files are named with one comma between them",
            received=text,
            expected="SOURCE,TARGET such as train.de.gz,train.en.gz",
        )
    for name in names:
        _refuse_missing(name)
    sides = [texts.lines(name, encoding=config.encoding) for name in names]
    for number, (source, target) in enumerate(itertools.zip_longest(*sides), 1):
        if source is None or target is None:
            short, long = names if source is None else reversed(names)
            raise DataError(
                "E506",
                f"{short} ends after {number - 1:,} lines and {long} goes on: lines do not pair up",
                expected="two files with the same number of lines",
                cure="look for a line that is missing; empty lines count",
            )
        yield source.strip(), target.strip()


def _divided(pairs: list[Pair], shares: dict[str, float], seed: int) -> dict[str, list[Pair]]:
    """Divide pairs by their source, so that no source is in two splits."""
    sources = list(dict.fromkeys(source for source, _ in pairs))
    sources.sort(key=lambda source: derive_seed(seed, "split", source))
    split_of: dict[str, str] = {}
    begin = 0
    for split, share in shares.items():
        end = begin + (max(1, round(share * len(sources))) if share else 0)
        split_of.update(dict.fromkeys(sources[begin:end], split))
        begin = end
    splits: dict[str, list[Pair]] = {"train": [], "val": [], "test": []}
    for pair in pairs:
        splits[split_of.get(pair[0], "train")].append(pair)
    return splits


def _check(config: TrainConfig, splits: dict[str, list[Pair]]) -> list[Finding]:
    """Look for pairs in two splits, and for sources with several targets."""
    findings: list[Finding] = []
    train = set(splits["train"])
    for split in ("val", "test"):
        shared = sum(pair in train for pair in splits[split])
        findings += check_leak(shared, len(splits[split]), split)
    targets: dict[str, set[str]] = {}
    for source, target in splits["train"]:
        targets.setdefault(source, set()).add(target)
    several = sum(len(found) > 1 for found in targets.values())
    if several > AMBIGUOUS_SHARE * len(targets):
        findings.append(
            Finding(
                "G-D06",
                "warn",
                f"{several:,} of {len(targets):,} training sources have several targets "
                f"(limit {AMBIGUOUS_SHARE:.0%}): no model can match them all",
                "read BLEU and chrF rather than exact match",
            )
        )
    return findings
