"""Bring labelled texts to three splits that share no text, and say what is in them."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict

import torch

from dltool.console import Console
from dltool.data import splits
from dltool.errors import DataError
from dltool.guards import labels as label_guards
from dltool.guards.findings import Finding
from dltool_bert_finetune import answering_data, by_document, sample, tagging_data
from dltool_bert_finetune import columns as files
from dltool_bert_finetune.columns import Columns, Examples
from dltool_bert_finetune.config import REVIEWS, TrainConfig
from dltool_bert_finetune.dataset import TextData, leaks, limited, three_splits
from dltool_bert_finetune.targets import Targets, balance, settle

SHOWN_CLASSES = 12


def load(config: TrainConfig, console: Console) -> TextData:
    """Load, split and check what a config names.

    Raises:
        DataError: a file or column is missing or damaged, there is too little to learn from.
    """
    sources = {} if config.data == REVIEWS else _sources(config)
    family = family_of(config, sources)
    if family == "token":
        return by_document.load_tagged(sources, config, console)
    if family == "qa":
        return by_document.load_questions(sources, config, console)
    return _labelled(sources, config, console)


def family_of(config: TrainConfig, sources: dict[str, str]) -> str:
    """Return `token` for files of tagged words, `qa` for questions about texts, else `texts`."""
    if config.task != "auto":
        return config.task if config.task in ("token", "qa") else "texts"
    if not sources or config.separator:
        return "texts"
    first = sources.get("train", sources.get("all", ""))
    if answering_data.holds_questions(first, config.encoding):
        return "qa"
    return "token" if tagging_data.holds_tags(first, config.encoding) else "texts"


def _sources(config: TrainConfig) -> dict[str, str]:
    """Return the file of each split; `all` is one that is to be split."""
    sources = files.split_files(config.data)
    for name, extra in (("val", config.val_data), ("test", config.test_data)):
        if extra:
            sources[name] = files.split_files(extra).get("all", extra)
    if "all" in sources and len(sources) > 1:
        sources = {"train": sources.pop("all"), **sources}
    return sources


def _labelled(sources: dict[str, str], config: TrainConfig, console: Console) -> TextData:
    """Load, split and check texts with labels."""
    pools, chosen = _pools(sources, config, console)
    pools = {name: usable(pool, name, console) for name, pool in pools.items()}
    learnt_from = pools.get("train", pools.get("all"))
    assert learnt_from is not None
    targets = settle(config.task, learnt_from, config.separator)
    findings = _contradictions(learnt_from)
    pools = three_splits(
        pools, lambda pool, shares: _split(pool, shares, targets, config.seed), config, console
    )
    findings += _leaks(pools)
    pools = limited(pools, config)
    values = {name: targets.encode(pool) for name, pool in pools.items()}
    data = TextData(dict(pools), targets, values, chosen, findings=findings)
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
    if data.targets.by_token:
        by_document.announce(data, console)
        return
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


def _pools(
    sources: dict[str, str], config: TrainConfig, console: Console
) -> tuple[dict[str, Examples], Columns]:
    if not sources:
        console.note(
            "reviews: sentences made by a grammar, to try the commands on; no real text. "
            "Name yours with --data FILE"
        )
        texts, labels = sample.reviews()
        places = [f"reviews, sentence {number + 1}" for number in range(len(texts))]
        return {"all": Examples(texts, [], labels, places)}, Columns("text", "", "label")
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
        found.append(Finding("G-D06", "warn", message, cure))
    torn = sum(counts[key] for key, names in labels.items() if len(names) > 1)
    if torn > len(pool) / 1000:
        message = f"{torn:,} of {len(pool):,} texts stand in the data with more than one label"
        found.append(Finding("G-D06", "warn", message, "decide which label is right"))
    return found


def _leaks(pools: dict[str, Examples]) -> list[Finding]:
    """Look for the texts of val and test among those of train."""
    known = set(keys(pools["train"]))
    own = {name: keys(pools[name]) for name in ("val", "test")}
    found = {name: (sum(key in known for key in each), len(each)) for name, each in own.items()}
    return leaks(found, "texts (but for case and punctuation)", "take them out of {name}")


def _fingerprint(pools: dict[str, Examples]) -> str:
    """Hash what the run learns from and is tested on, so that a resumed run can tell a change."""
    digest = hashlib.sha256()
    for name, pool in pools.items():
        digest.update(name.encode())
        for part in (pool.texts, pool.seconds, pool.labels):
            digest.update("\x1e".join(part).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
