"""Bring tagged sentences or questions to three splits that share no document."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable

from dltool.console import Console
from dltool.guards.findings import Finding
from dltool_bert_finetune import answering, answering_data, entities, tagging, tagging_data
from dltool_bert_finetune.answering_data import Questions
from dltool_bert_finetune.columns import Columns
from dltool_bert_finetune.config import TrainConfig
from dltool_bert_finetune.dataset import Shares, TextData, by_group, leaks, limited, three_splits
from dltool_bert_finetune.tagging_data import Sentences

FEW_WORDS = 5  # a shorter sentence ("LONDON 1996-08-30") may well come twice
REPEATED = 0.25  # newspapers repeat themselves: tables of results, the weather
PARTS = 3


def load_tagged(sources: dict[str, str], config: TrainConfig, console: Console) -> TextData:
    """Load, split and check sentences with tags."""
    given = Columns(config.text, config.second, config.label)
    pools = {
        name: tagging_data.read(source, given, encoding=config.encoding, console=console)
        for name, source in sources.items()
    }
    learnt_from = pools.get("train", pools.get("all"))
    assert learnt_from is not None
    targets = tagging.settle(learnt_from)
    findings = _contradictions(learnt_from)
    pools = three_splits(
        pools, lambda pool, shares: _split_sentences(pool, shares, config.seed), config, console
    )
    findings += leaks(
        _shared({name: _keys(pool) for name, pool in pools.items()}),
        f"sentences of {FEW_WORDS} words and more",
        "take them out of {name}",
        fail=REPEATED,
    )
    pools = limited(pools, config)
    tags = pools["train"].tags
    grouped = entities.are_entities(targets.classes)
    found = Counter(each.kind for row in tags for each in entities.of(row, grouped=grouped))
    facts = {
        "source": config.data,
        "counts": {name: len(pool) for name, pool in pools.items()},
        "words": {name: sum(map(len, pool.words)) for name, pool in pools.items()},
        "task": "token",
        "paired": False,
        "balance": dict(found.most_common()),
        "fingerprint": _hash(
            [*map(str, pool.words), *map(str, pool.tags)] for pool in pools.values()
        ),
    }
    return TextData(dict(pools), targets, {}, given, facts, findings)


def _split_sentences(pool: Sentences, shares: Shares, seed: int) -> list[Sentences]:
    keys = pool.documents
    if len(set(keys)) < max(PARTS, len(shares)) or len(set(keys)) == len(pool):
        keys = _plain(pool)  # no documents: equal sentences stay together
    return [pool.take(part) for part in by_group(keys, shares, seed, "different sentences")]


def _plain(pool: Sentences) -> list[str]:
    return [" ".join(words).lower() for words in pool.words]


def _keys(pool: Sentences) -> list[str]:
    return [
        key for key, words in zip(_plain(pool), pool.words, strict=True) if len(words) >= FEW_WORDS
    ]


def _contradictions(pool: Sentences) -> list[Finding]:
    """Count the sentences that stand in the data with two rows of tags."""
    seen: dict[str, set[str]] = defaultdict(set)
    counts: Counter[str] = Counter()
    for words, tags in zip(pool.words, pool.tags, strict=True):
        seen[" ".join(words)].add(" ".join(tags))
        counts[" ".join(words)] += 1
    torn = sum(counts[key] for key, tags in seen.items() if len(tags) > 1)
    if torn <= len(pool) / 1000:
        return []
    message = f"{torn:,} of {len(pool):,} sentences stand in the data with more than one tagging"
    return [Finding("G-D06", "warn", message, "decide which tags are right")]


def load_questions(sources: dict[str, str], config: TrainConfig, console: Console) -> TextData:
    """Load, split and check questions about texts."""
    given = Columns(config.text, config.second, config.label)
    pools = {
        name: answering_data.read(source, given, encoding=config.encoding, console=console)
        for name, source in sources.items()
    }
    learnt_from = pools.get("train", pools.get("all"))
    assert learnt_from is not None
    targets = answering.settle(learnt_from)
    pools = three_splits(
        pools, lambda pool, shares: _split_questions(pool, shares, config.seed), config, console
    )
    contexts = {
        name: sorted({_key(row.context) for row in pool.rows}) for name, pool in pools.items()
    }
    findings = leaks(_shared(contexts), "contexts", "take their questions out of {name}")
    pools = limited(pools, config)
    train = pools["train"].rows
    without = sum(not row.answers for row in train)
    facts = {
        "source": config.data,
        "counts": {name: len(pool) for name, pool in pools.items()},
        "contexts": {name: len(set(each)) for name, each in contexts.items()},
        "task": "qa",
        "paired": False,
        "balance": {"answerable": len(train) - without, "unanswerable": without},
        "fingerprint": _hash([repr(row) for row in pool.rows] for pool in pools.values()),
    }
    return TextData(dict(pools), targets, {}, given, facts, findings)


def _split_questions(pool: Questions, shares: Shares, seed: int) -> list[Questions]:
    contexts = [_key(row.context) for row in pool.rows]
    keys = _linked([row.document for row in pool.rows], contexts)
    if len(set(keys)) < max(PARTS, len(shares)):
        keys = contexts  # few articles: each context by itself
    return [pool.take(part) for part in by_group(keys, shares, seed, "different contexts")]


def _linked(documents: list[str], contexts: list[str]) -> list[str]:
    """Return the documents, with one name for those that share a context."""
    same = {name: name for name in documents}

    def first(name: str) -> str:
        while same[name] != name:
            name = same[name]
        return name

    owners: dict[str, str] = {}
    for document, context in zip(documents, contexts, strict=True):
        same[first(document)] = first(owners.setdefault(context, document))
    return [first(name) for name in documents]


def _key(text: str) -> str:
    return re.sub(r"[\W_]+", " ", text.lower()).strip() or text


def _shared(keys: dict[str, list[str]]) -> dict[str, tuple[int, int]]:
    known = set(keys["train"])
    return {
        name: (sum(key in known for key in keys[name]), len(keys[name])) for name in ("val", "test")
    }


def _hash(parts: Iterable[list[str]]) -> str:
    """Hash what the run learns from and is tested on, so that a resumed run can tell a change."""
    digest = hashlib.sha256()
    for rows in parts:
        digest.update("\x1e".join(rows).encode("utf-8", "surrogatepass") + b"\x1d")
    return digest.hexdigest()


def announce(data: TextData, console: Console) -> None:
    """Say what was read, and what there is to find in it."""
    counts, shares = data.facts["counts"], data.facts["balance"]
    is_tagged = data.targets.task == "token"
    what = "sentences" if is_tagged else "questions"
    grouped = entities.are_entities(data.targets.classes)
    kind = "entities" if grouped else "a class of each word"
    console.note(
        f"{counts['train']:,} training, {counts['val']:,} validation and {counts['test']:,} test "
        f"{what}; to find: {kind if is_tagged else 'the answer in a text'}"
    )
    if is_tagged:
        shown = ", ".join(f"{name} {count:,}" for name, count in list(shares.items())[:12])
        console.note(f"in training: {shown}" + ", …" * (len(shares) > 12))
        return
    contexts = ", ".join(f"{count:,} in {name}" for name, count in data.facts["contexts"].items())
    console.note(
        f"contexts: {contexts}; none is in two splits"
        if _is_clean(data)
        else f"contexts: {contexts}"
    )
    if data.targets.unanswerable:
        console.note(
            f"{shares['unanswerable']:,} of {counts['train']:,} training questions have no answer"
        )


def _is_clean(data: TextData) -> bool:
    return not any(found.code == "G-D04" for found in data.findings)
