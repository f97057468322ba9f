"""The parts of the `bert-finetune` topic against other libraries and planted faults."""

import hashlib
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from dltool_bert_finetune import (
    batches,
    columns,
    data,
    dataset,
    kept,
    measures,
    model,
    preflight,
    sample,
    targets,
    tasks,
    tokens,
)
from dltool_bert_finetune.columns import Columns, Examples
from dltool_bert_finetune.config import TrainConfig, recipe
from dltool_bert_finetune.targets import Targets
from scipy import stats
from sklearn import metrics
from torch import nn

from dltool.console import Console
from dltool.errors import DataError

transformers = pytest.importorskip("transformers")
TEXTS, LABELS = sample.reviews(200)


def examples(labels, texts=None):
    texts = texts or [f"text {number}" for number in range(len(labels))]
    return Examples(texts, [], list(labels), [f"f, line {i + 2}" for i in range(len(labels))])


# ---- batches --------------------------------------------------------------------------------


@pytest.fixture
def some_tokens():
    stream = np.random.default_rng(0)
    lengths = stream.integers(3, 90, 500)
    ids = stream.integers(5, 99, lengths.sum()).astype(np.int32)
    return tokens.Tokens(ids, np.zeros(0, np.uint8), lengths.cumsum(), 0)


def source(some_tokens, **changes):
    settings = {"batch_size": 16, "max_tokens": 512, "seed": 1, **changes}
    labels = torch.arange(len(some_tokens))
    return batches.TextBatches(some_tokens, labels, 0, device=torch.device("cpu"), **settings)


def test_every_text_comes_once_an_epoch_in_another_order(some_tokens):
    made = source(some_tokens)
    plans = [made.plan(epoch) for epoch in range(3)]
    for plan in plans:
        assert len(plan) == len(made)
        assert sorted(number for group in plan for number in group) == list(range(500))
    assert plans[0] != plans[1]
    assert {frozenset(group) for group in plans[0]} != {frozenset(group) for group in plans[1]}


def test_batches_hold_to_their_limits_and_hardly_any_padding(some_tokens):
    made = source(some_tokens)
    for batch in made.batches(0):
        rows, width = batch["input_ids"].shape
        assert rows <= 16
        assert rows * width <= 512
    assert made.fill > 0.88
    everything_alike = some_tokens.lengths.sum() / (500 * some_tokens.lengths.max())
    assert made.fill > 1.5 * everything_alike


def test_a_batch_depends_on_seed_epoch_and_position_alone(some_tokens):
    whole = list(source(some_tokens).batches(2))
    rest = list(source(some_tokens).batches(2, start=7))
    for left, right in zip(whole[7:], rest, strict=True):
        assert all(torch.equal(left[name], right[name]) for name in left)
    for batch in whole[:3]:
        for row, number in enumerate(batch["labels"].tolist()):
            length = int(some_tokens.lengths[number])
            stop = int(some_tokens.ends[number])
            assert batch["attention_mask"][row].sum() == length
            own = torch.tensor(some_tokens.ids[stop - length : stop].astype(np.int64))
            assert torch.equal(batch["input_ids"][row, :length], own)
            assert not batch["input_ids"][row, length:].any()


def test_a_text_beyond_the_limit_is_a_batch_of_its_own():
    assert batches.cut_points(np.array([2, 2, 9, 9]), 8, 6) == [0, 2, 3, 4]
    assert batches.cut_points(np.array([2, 2, 2, 2]), 3, 0) == [0, 3, 4]


# ---- tokens ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokeniser():
    learnt = tokens.train_wordpiece(TEXTS, 300)
    settings = SimpleNamespace(
        vocab_size=len(learnt), type_vocab_size=2, max_position_embeddings=64, model_type="bert"
    )
    return tokens.wrap(learnt, settings, 12)


@pytest.mark.parametrize("paired", [False, True])
def test_tokens_are_those_of_the_library(tokeniser, paired):
    firsts = [*TEXTS[:20], "a " * 50]
    seconds = [*TEXTS[20:40], "b " * 50] if paired else []
    found = tokeniser.encode(firsts, seconds)
    batch = found.batch(range(21), tokeniser.pad)
    theirs = tokeniser.library(
        firsts, seconds or None, truncation=True, max_length=12, padding=True, return_tensors="pt"
    )
    for name, part in batch.items():
        assert torch.equal(part, theirs[name]), name
    longer = tokeniser.library(firsts, seconds or None)["input_ids"]
    assert found.cut == sum(len(row) > 12 for row in longer)


def test_a_vocabulary_is_the_same_in_every_process():
    code = (
        "import hashlib; from dltool_bert_finetune import sample, tokens;"
        "v = tokens.train_wordpiece(sample.reviews(200)[0], 150).get_vocab();"
        "print(hashlib.sha256(repr(sorted(v.items())).encode()).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    own = tokens.train_wordpiece(TEXTS, 150).get_vocab()
    assert hashlib.sha256(repr(sorted(own.items())).encode()).hexdigest() == done.stdout.strip()
    assert [own[piece] for piece in tokens.SPECIALS] == [0, 1, 2, 3, 4]


def test_the_cache_is_used_once_written_and_never_for_other_texts(tokeniser, tmp_path, monkeypatch):
    monkeypatch.setenv("DLTOOL_HOME", str(tmp_path))
    monkeypatch.setattr(kept, "FROM", 0)
    console = Console("test")
    made = kept.tokens(tokeniser, TEXTS, [], console)
    assert isinstance(made.ids, np.memmap)
    calls = []
    encode = tokens.Tokeniser.encode
    monkeypatch.setattr(tokens.Tokeniser, "encode", lambda *a: calls.append(a) or encode(*a))
    again = kept.tokens(tokeniser, TEXTS, [], console)
    assert not calls
    assert np.array_equal(made.ids, again.ids)
    assert len(kept.tokens(tokeniser, TEXTS[1:], [], console)) == len(TEXTS) - 1
    assert len(calls) == 1


# ---- data -----------------------------------------------------------------------------------


def split(pool, **changes):
    config = TrainConfig(**{"val_fraction": 0.2, "test_fraction": 0.2, **changes})
    found = targets.settle("auto", pool, "")
    pools = dataset.three_splits(
        {"all": pool},
        lambda each, shares: data._split(each, shares, found, config.seed),
        config,
        Console("test"),
    )
    return pools, found


def test_equal_texts_stay_in_one_split():
    repeated = [*TEXTS, *(text.upper() for text in TEXTS[:80])]
    pools, _ = split(examples([*LABELS, *LABELS[:80]], repeated))
    seen = [set(data.keys(pools[name])) for name in ("train", "val", "test")]
    assert sum(len(pool) for pool in pools.values()) == 280
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]


def test_splits_keep_the_shares_of_the_classes():
    labels = ["a"] * 150 + ["b"] * 50
    pools, _ = split(examples(labels))
    for pool in pools.values():
        assert pool.labels.count("a") == 3 * pool.labels.count("b")


def test_texts_with_two_labels_and_repeats_are_found():
    pool = examples(["a", "b"] * 50, ["the same text"] * 100)
    codes = {found.code for found in data._contradictions(pool)}
    assert codes == {"G-D06"}
    assert not data._contradictions(examples(LABELS, TEXTS))


@pytest.mark.parametrize(
    ("labels", "task", "classes"),
    [
        (["pos", "neg"] * 10, "classify", ("neg", "pos")),
        (["10", "2", "1"] * 10, "classify", ("1", "2", "10")),
        (["0.5", "1", "2"] * 10, "regress", ()),
        ([str(number) for number in range(60)], "regress", ()),
        (["a|b", "a"] * 10, "multilabel", ("a", "b")),
        (['["x", "y"]', "[]"] * 10, "multilabel", ("x", "y")),
        (["inf", "nan"] * 10, "classify", ("inf", "nan")),
    ],
    ids=["words", "whole", "decimals", "many numbers", "bars", "lists", "not finite"],
)
def test_labels_tell_the_task(labels, task, classes):
    found = targets.settle("auto", examples(labels), "")
    assert (found.task, found.classes) == (task, classes)
    assert len(found.encode(examples(labels))) == len(labels)
    assert Targets.from_dict(found.as_dict()) == found


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "Label,Review\nx,one two\n", Columns("Review", "", "Label")),
        ("a.tsv", "good film\tpos\nbad film\tneg\nfine\tpos\n", Columns("1", "", "2")),
        ("a.csv", "what,how\nlong words here,x\nmore words here,x\n", Columns("what", "", "how")),
        (
            "a.jsonl",
            '{"premise":"a","hypothesis":"b","label":1}\n',
            Columns("premise", "hypothesis", "label"),
        ),
    ],
    ids=["named", "no header", "other names", "pairs"],
)
def test_columns_are_told_by_name_and_by_content(tmp_path, name, content, expected):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    assert columns.infer(str(path), Columns(""), encoding="utf-8") == expected


def test_a_column_that_is_not_there_is_named(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\na,b\n", encoding="utf-8")
    with pytest.raises(DataError, match="'labe' is not there") as caught:
        columns.read(str(path), Columns("text", "", "labe"), encoding="utf-8")
    assert "label" in caught.value.cure


def test_a_folder_gives_its_splits(tmp_path):
    for name in ("train.csv.gz", "dev.tsv", "test.jsonl", "unsup.txt.xz"):
        (tmp_path / name).write_bytes(b"")
    found = columns.split_files(str(tmp_path))
    assert {name: path.rsplit("/")[-1] for name, path in found.items()} == {
        "train": "train.csv.gz",
        "val": "dev.tsv",
        "test": "test.jsonl",
    }


# ---- measures -------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 4])
def test_class_measures_agree_with_scikit_learn(count):
    stream = np.random.default_rng(count)
    labels = stream.integers(0, count, 300)
    logits = stream.normal(size=(300, count)) + 1.2 * np.eye(count)[labels]
    logits = logits.round(1)  # ties
    names = [str(number) for number in range(count)]
    found = measures.classification(torch.tensor(logits), torch.tensor(labels), names)
    said = logits.argmax(1)
    assert found["accuracy"]["value"] == pytest.approx(metrics.accuracy_score(labels, said))
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(labels, said, average="macro"))
    assert found["mcc"] == pytest.approx(metrics.matthews_corrcoef(labels, said))
    shares = torch.tensor(logits).softmax(1).numpy()
    if count == 2:
        expected = metrics.roc_auc_score(labels, shares[:, 1])
    else:
        expected = metrics.roc_auc_score(labels, shares, multi_class="ovr")
    assert found["auc"] == pytest.approx(expected)
    assert found["loss"] == pytest.approx(metrics.log_loss(labels, shares))


def test_measures_that_the_data_leaves_undefined_are_none():
    labels = torch.zeros(5, dtype=torch.int64)
    found = measures.classification(torch.randn(5, 2), labels, ["a", "b"])
    assert found["auc"] is None
    assert measures.matthews(torch.tensor([[5, 0], [0, 0]])) is None


def test_number_measures_agree_with_scipy():
    stream = np.random.default_rng(1)
    true = stream.normal(size=80).round(1)
    said = (true + stream.normal(size=80)).round(1)
    found = measures.regression(torch.tensor(said), torch.tensor(true))
    assert found["pearson"] == pytest.approx(stats.pearsonr(said, true)[0])
    assert found["spearman"] == pytest.approx(stats.spearmanr(said, true)[0])
    assert found["r2"] == pytest.approx(metrics.r2_score(true, said))
    assert found["mae"]["value"] == pytest.approx(np.abs(said - true).mean())
    assert found["mae"]["low"] < found["mae"]["value"] < found["mae"]["high"]


def test_measures_of_several_labels_agree_with_scikit_learn():
    stream = np.random.default_rng(2)
    true = (stream.random((100, 3)) < 0.4).astype(np.float32)
    logits = stream.normal(size=(100, 3)).astype(np.float32) + 2 * true - 1
    found = measures.multilabel(torch.tensor(logits), torch.tensor(true), ["a", "b", "c"])
    said = logits > 0
    assert found["micro_f1"] == pytest.approx(metrics.f1_score(true, said, average="micro"))
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(true, said, average="macro"))
    assert found["accuracy"]["value"] == pytest.approx(metrics.accuracy_score(true, said))


# ---- model ----------------------------------------------------------------------------------


@pytest.fixture
def network():
    torch.manual_seed(0)
    settings = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
        num_labels=2,
    )
    return transformers.BertForSequenceClassification(settings)


@pytest.mark.parametrize(
    ("size", "million"), [("tiny", 4.4), ("mini", 11.2), ("small", 28.8), ("base", 109.5)]
)
def test_sizes_have_the_parameters_of_the_paper(size, million):
    settings = model.scratch_settings(size, 30522)
    with torch.device("meta"):
        built = transformers.BertModel(settings)
    count = sum(parameter.numel() for parameter in built.parameters()) / 1e6
    assert count == pytest.approx(million, abs=0.1)


def test_rates_fall_from_layer_to_layer_and_every_weight_is_in_one_group(network):
    config = TrainConfig(model="x", learning_rate=1e-3, layer_decay=0.5, weight_decay=0.1)
    groups = model.parameter_groups(network, config)
    rates, decays = {}, {}
    for group in groups:
        for parameter in group["params"]:
            assert id(parameter) not in rates
            rates[id(parameter)], decays[id(parameter)] = group["lr"], group["weight_decay"]
    for name, parameter in network.named_parameters():
        layer = int(name.split("layer.")[1][0]) if "layer." in name else None
        steps = 4 if "embeddings" in name else 3 - layer if layer is not None else 0
        assert rates[id(parameter)] == pytest.approx(1e-3 * 0.5**steps), name
        assert decays[id(parameter)] == (0.1 if parameter.ndim > 1 else 0.0), name
    assert groups[0]["lr"] == 1e-3


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant"])
def test_the_rate_rises_to_its_peak_and_falls_to_nothing(kind, network):
    optimizer = torch.optim.SGD(network.parameters(), lr=2.0)
    scheduler = model.schedule(optimizer, kind, 100, 0.1)
    rates = []
    for _ in range(101):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[:10] == pytest.approx([2 * (step + 1) / 11 for step in range(10)])
    assert max(rates) == rates[10] == 2.0
    assert rates[55] == pytest.approx(2.0 if kind == "constant" else 1.0)
    assert rates[100] == pytest.approx(2.0 if kind == "constant" else 0.0, abs=1e-12)


def test_the_head_takes_over_mean_and_deviation(network):
    ids = torch.randint(5, 50, (4, 7))
    network.eval()
    with torch.no_grad():
        before = network(ids).logits
        model.fold_scale(network, 10.0, 3.0)
        assert torch.allclose(network(ids).logits, before * 3 + 10, atol=1e-5)


def test_class_weights_make_classes_count_alike():
    labels = torch.tensor([0] * 90 + [1] * 10)
    found = Targets("classify", ("a", "b"))
    config = TrainConfig(class_weights="balanced")
    loss = tasks.loss_of(config, found, labels, torch.device("cpu"))
    logits = torch.randn(100, 2)
    each = nn.functional.cross_entropy(logits, labels, reduction="none")
    expected = (each[:90].mean() + each[90:].mean()) / 2
    assert loss(logits, labels) == pytest.approx(float(expected), rel=1e-5)


def test_recipes_fit_what_is_trained():
    assert recipe({})["learning_rate"] > recipe({"size": "base"})["learning_rate"]
    assert recipe({"model": "x"}) == {}
    assert recipe({"model": "x", "lora_rank": 8})["learning_rate"] > TrainConfig.learning_rate


# ---- guards ---------------------------------------------------------------------------------


def findings(network, labels=None):
    optimizer = torch.optim.AdamW(network.parameters())
    batch = {
        "input_ids": torch.randint(5, 50, (4, 9)),
        "attention_mask": torch.ones(4, 9, dtype=torch.int64),
        "labels": torch.tensor([0, 1, 0, 1]) if labels is None else labels,
    }
    found = Targets("classify", ("a", "b"))
    return preflight.check(network, optimizer, nn.functional.cross_entropy, batch, 0, found)


def test_a_sound_model_passes_and_is_left_as_it_was(network):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(5)
    assert findings(network) == []
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_model_that_does_not_mask_its_padding_is_found(network):
    with torch.no_grad():
        for parameter in network.bert.encoder.parameters():
            parameter.mul_(5)  # fresh weights look at nothing
    assert findings(network) == []
    plain = network.forward
    network.forward = lambda input_ids, attention_mask: plain(input_ids)
    assert [found.code for found in findings(network)] == ["G-P11"]


def test_broken_weights_and_a_lost_gradient_are_found(network):
    detached = network.classifier.forward
    network.classifier.forward = lambda x: detached(x.detach())
    assert "G-P06" in [found.code for found in findings(network)]
    with torch.no_grad():
        network.classifier.weight.fill_(float("nan"))
    assert "G-P06" in [found.code for found in findings(network)]
