"""Bring labelled texts to three splits that share no text, and say what is in them."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dltool.console import Console
from dltool.data import splits
from dltool.device import generator
from dltool.errors import DataError
from dltool.guards import labels as label_guards
from dltool.guards.findings import Finding
from dltool_bert_finetune import columns as files
from dltool_bert_finetune import sample
from dltool_bert_finetune.columns import Columns, Examples
from dltool_bert_finetune.config import REVIEWS, TrainConfig
from dltool_bert_finetune.targets import Targets, balance, settle

LEAK_WARN, LEAK_FAIL = 0.001, 0.05
SHOWN_CLASSES = 12


@dataclass
class TextData:
    """The data of one run.

    Attributes:
        splits: `train`, `val` and `test`.
        targets: how their labels become tensors.
        values: those tensors by split.
        columns: what was read, in the words of the files.
        facts: counts and fingerprint, for the run folder.
    """

    splits: dict[str, Examples]
    targets: Targets
    values: dict[str, Tensor]
    columns: Columns
    facts: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def paired(self) -> bool:
        """Whether each example has two texts."""
        return bool(self.splits["train"].seconds)


def load(config: TrainConfig, console: Console) -> TextData:
    """Load, split and check what a config names.

    Raises:
        DataError: a file or column is missing or damaged, there is too little to learn from.
    """
    pools, chosen = _pools(config, console)
    pools = {name: usable(pool, name, console) for name, pool in pools.items()}
    learnt_from = pools.get("train", pools.get("all"))
    assert learnt_from is not None
    targets = settle(config.task, learnt_from, config.separator)
    findings = _contradictions(learnt_from)
    pools = _three_splits(pools, targets, config, console)
    findings += _leaks(pools)
    pools = _limited(pools, config)
    values = {name: targets.encode(pool) for name, pool in pools.items()}
    data = TextData(pools, targets, values, chosen, findings=findings)
    if targets.task == "classify":
        for name, labels in values.items():
            data.findings += label_guards.check_split(labels, len(targets.classes), name)
    data.facts = {
        "source": config.data,
        "counts": {name: len(pool) for name, pool in pools.items()},
        "task": targets.task,
        "paired": data.paired,
        "columns": vars(chosen),
        "balance": balance(pools["train"].labels, targets),
        "fingerprint": _fingerprint(pools),
    }
    return data


def announce(data: TextData, console: Console) -> None:
    """Say what was read, and how the classes are balanced."""
    counts = data.facts["counts"]
    kinds = {"classify": "classes", "multilabel": "classes, several a text", "regress": "a number"}
    what = "pairs of texts" if data.paired else "texts"
    console.note(
        f"{counts['train']:,} training, {counts['val']:,} validation and {counts['test']:,} test "
        f"{what}; to predict: {kinds[data.targets.task]} ({data.columns.named()})"
    )
    if data.targets.task == "regress":
        console.note(f"numbers: mean {data.targets.mean:.4g}, deviation {data.targets.std:.4g}")
        return
    shares = data.facts["balance"].items()
    shown = [f"{name} {count:,} ({count / counts['train']:.1%})" for name, count in shares]
    more = f", and {len(shown) - SHOWN_CLASSES} more" if len(shown) > SHOWN_CLASSES else ""
    console.note(f"training classes: {', '.join(shown[:SHOWN_CLASSES])}{more}")


def _pools(config: TrainConfig, console: Console) -> tuple[dict[str, Examples], Columns]:
    if config.data == REVIEWS:
        console.note(
            "reviews: sentences made by a grammar, to try the commands on; no real text. "
            "Name yours with --data FILE"
        )
        texts, labels = sample.reviews()
        places = [f"reviews, sentence {number + 1}" for number in range(len(texts))]
        return {"all": Examples(texts, [], labels, places)}, Columns("text", "", "label")
    sources = files.split_files(config.data)
    for name, extra in (("val", config.val_data), ("test", config.test_data)):
        if extra:
            sources[name] = files.split_files(extra).get("all", extra)
    if "all" in sources and len(sources) > 1:
        sources = {"train": sources.pop("all"), **sources}
    given = Columns(config.text, config.second, config.label)
    paired = config.task == "pair"
    chosen = {
        name: files.infer(source, given, encoding=config.encoding, paired=paired)
        for name, source in sources.items()
    }
    pools = {
        name: files.read(source, chosen[name], encoding=config.encoding)
        for name, source in sources.items()
    }
    if len({bool(pool.seconds) for pool in pools.values()}) > 1:
        raise DataError("E506", "some splits hold pairs of texts and others single texts")
    return pools, chosen.get("train", next(iter(chosen.values())))


def usable(pool: Examples, name: str, console: Console) -> Examples:
    """Leave out rows without a text or without a label, and say how many.

    Raises:
        DataError: E503, no row is left.
    """
    seconds = pool.seconds or ["-"] * len(pool)
    full = [
        bool(text.strip() and second.strip())
        for text, second in zip(pool.texts, seconds, strict=True)
    ]
    labelled = [bool(label) for label in pool.labels]
    for flags, what in ((full, "text"), (labelled, "label")):
        missing = flags.count(False)
        if missing:
            first = pool.places[flags.index(False)]
            console.warn(f"{missing:,} rows without a {what} are left out (the first: {first})")
    kept = [i for i in range(len(pool)) if full[i] and labelled[i]]
    if not kept:
        raise DataError("E503", f"no row of {name} has both a text and a label")
    return pool if len(kept) == len(pool) else pool.take(kept)


def keys(pool: Examples) -> list[str]:
    """Return what makes a text the same as another: its words, whatever case and punctuation."""
    seconds = pool.seconds or [""] * len(pool)
    return [_key(text, second) for text, second in zip(pool.texts, seconds, strict=True)]


def _key(text: str, second: str) -> str:
    plain = [re.sub(r"[\W_]+", " ", part.lower()).strip() or part for part in (text, second)]
    return "\x1f".join(plain)


def _three_splits(
    pools: dict[str, Examples], targets: Targets, config: TrainConfig, console: Console
) -> dict[str, Examples]:
    """Make train, val and test: what is there stays, what is missing is split off by class."""
    val, test = config.val_fraction, config.test_fraction
    if "all" in pools:
        parts = _split(pools["all"], (1 - val - test, val, test), targets, config.seed)
        return dict(zip(("train", "val", "test"), parts, strict=True))
    if "test" not in pools and "val" in pools:
        console.note("there is no test file: val is the final test, and a part of train chooses")
        pools = {"train": pools["train"], "test": pools["val"]}
    if "test" not in pools:
        train, held = _split(pools["train"], (1 - test, test), targets, config.seed)
        pools = {**pools, "train": train, "test": held}
    if "val" not in pools:
        train, held = _split(pools["train"], (1 - val, val), targets, config.seed)
        pools = {**pools, "train": train, "val": held}
    return {name: pools[name] for name in ("train", "val", "test")}


def _split(
    pool: Examples, fractions: tuple[float, ...], targets: Targets, seed: int
) -> list[Examples]:
    """Split by class; equal texts stay together, so that none is in two splits."""
    groups: dict[str, list[int]] = defaultdict(list)
    for number, key in enumerate(keys(pool)):
        groups[key].append(number)
    members = list(groups.values())
    firsts = pool.take([group[0] for group in members])
    labels, names = torch.zeros(len(firsts), dtype=torch.int64), None
    if targets.task == "classify":
        labels, names = targets.encode(firsts), targets.classes
    found = splits.stratified(labels, fractions, seed, names)
    return [
        pool.take(sorted(number for group in part.tolist() for number in members[group]))
        for part in found
    ]


def _limited(pools: dict[str, Examples], config: TrainConfig) -> dict[str, Examples]:
    limits = {"train": config.max_train, "val": config.max_eval, "test": config.max_eval}
    return {name: _some(pool, limits[name], name, config.seed) for name, pool in pools.items()}


def _some(pool: Examples, limit: int, name: str, seed: int) -> Examples:
    if not limit or len(pool) <= limit:
        return pool
    order = torch.randperm(len(pool), generator=generator(seed, "subset", name))
    return pool.take(sorted(order[:limit].tolist()))


def _contradictions(pool: Examples) -> list[Finding]:
    """Count the texts that stand in the data with two labels."""
    labels: dict[str, set[str]] = defaultdict(set)
    counts: Counter[str] = Counter()
    for key, label in zip(keys(pool), pool.labels, strict=True):
        labels[key].add(label)
        counts[key] += 1
    found = []
    repeats = sum(count - 1 for count in counts.values())
    if repeats > len(pool) / 100:
        message = (
            f"{repeats:,} of {len(pool):,} texts repeat another one ({repeats / len(pool):.1%})"
        )
        cure = "remove the repeats; they are kept within one split"
        found.append(Finding("G-D10", "warn", message, cure))
    torn = sum(counts[key] for key, names in labels.items() if len(names) > 1)
    if torn > len(pool) / 1000:
        message = f"{torn:,} of {len(pool):,} texts stand in the data with more than one label"
        found.append(Finding("G-D11", "warn", message, "decide which label is right"))
    return found


def _leaks(pools: dict[str, Examples]) -> list[Finding]:
    """Look for the texts of val and test among those of train."""
    known = set(keys(pools["train"]))
    found = []
    for name in ("val", "test"):
        own = keys(pools[name])
        shared = sum(key in known for key in own)
        share = shared / len(own)
        if share >= LEAK_WARN:
            message = (
                f"{shared:,} of {len(own):,} texts of the {name} split ({share:.1%}, limit "
                f"{LEAK_WARN:.1%}) are training texts too, but for case and punctuation"
            )
            severity = "fail" if share >= LEAK_FAIL else "warn"
            found.append(Finding("G-D04", severity, message, f"take them out of {name}"))
    return found


def _fingerprint(pools: dict[str, Examples]) -> str:
    """Hash what the run learns from and is tested on, so that a resumed run can tell a change."""
    digest = hashlib.sha256()
    for name, pool in pools.items():
        digest.update(name.encode())
        for part in (pool.texts, pool.seconds, pool.labels):
            digest.update("\x1e".join(part).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
