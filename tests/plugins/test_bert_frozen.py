"""A frozen encoder whose features are computed once, against the network as a whole."""

import json

import pytest
import torch
from dltool_bert_finetune import batches, frozen, model, sample, tokens
from dltool_bert_finetune.targets import Targets
from safetensors.torch import load_file

from dltool import cli
from dltool.console import Console
from dltool.errors import CheckpointError

transformers = pytest.importorskip("transformers")
TEXTS, LABELS = sample.reviews(240)
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
DISTIL = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": 64}
KINDS = {
    "bert": SIZES,
    "distilbert": DISTIL,
    "roberta": {**SIZES, "pad_token_id": 0},
    "electra": {**SIZES, "embedding_size": 32},
    "deberta-v2": {**SIZES, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "modernbert": {**SIZES, "classifier_pooling": "mean"},
}
TASKS = {
    "classify": Targets("classify", ("a", "b", "c")),
    "token": Targets("token", ("O", "B-X", "I-X")),
    "qa": Targets("qa"),
}


@pytest.fixture(scope="module")
def tokeniser():
    learnt = tokens.train_wordpiece(TEXTS, 300)
    settings = transformers.BertConfig(vocab_size=len(learnt), type_vocab_size=0)
    return tokens.wrap(learnt, settings, 24)


def network_of(kind, task, tokeniser):
    torch.manual_seed(0)
    ids = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2}
    sizes = {**ids, "sep_token_id": 3, "vocab_size": len(tokeniser.library), **KINDS[kind]}
    settings = model.label_settings(transformers.AutoConfig.for_model(kind, **sizes), TASKS[task])
    return model.with_fresh_weights(settings, task)


@pytest.mark.parametrize(
    ("kind", "task"),
    [*((kind, "classify") for kind in KINDS), ("bert", "token"), ("deberta-v2", "qa")],
    ids=lambda value: value,
)
def test_features_give_what_the_whole_network_gives(kind, task, tokeniser):
    network = network_of(kind, task, tokeniser)
    encoded = tokeniser.encode(TEXTS[:30])
    features = frozen.compute(network, {"train": encoded}, tokeniser.pad, Console("t"))["train"]
    by_token = task != "classify"
    assert features.is_first_only == (not by_token and kind != "modernbert")
    whole = torch.cat(
        [
            model.forward(network.eval(), encoded.batch([number], tokeniser.pad))[0][
                None if not by_token else slice(None)
            ]
            for number in range(30)
        ]
    )
    found = frozen.logits(network, features, is_flat=by_token)
    assert torch.allclose(found, whole, atol=1e-5)
    # the head's gradients through the features are those through the frozen network
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(model.is_head(name))
    labels = torch.arange(30) % 3 if not by_token else torch.zeros(len(encoded.ids)).long()
    texts = batches.TextBatches(encoded, labels, 0, 8, 0, 1, torch.device("cpu"), is_flat=by_token)
    own, other = next(frozen.FeatureBatches(texts, features).batches(0)), next(texts.batches(0))
    assert torch.equal(own["labels"], other["labels"])
    gradients = []
    for net, batch in ((frozen.head_of(network), own), (network, other)):
        network.zero_grad()
        real = batch["attention_mask"] != 0
        logits = model.forward(net, batch)
        (logits[real] if by_token else logits).square().sum().backward()
        gradients.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    assert gradients[0]
    for mine, theirs in zip(*gradients, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("task", ["token", "qa"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_family_takes_a_head_for_each_token(kind, task, tokeniser, tmp_path):
    network_of(kind, "classify", tokeniser).base_model.save_pretrained(tmp_path / "encoder")
    name = str(tmp_path / "encoder")
    loaded = model.pretrained(tmp_path / "encoder", name, TASKS[task], new_head=False).eval()
    batch = tokeniser.encode(TEXTS[:3]).batch([0, 1, 2], tokeniser.pad)
    logits = model.forward(loaded, batch)
    assert logits.shape == (*batch["input_ids"].shape, 3 if task == "token" else 2)
    # a trained one is taken again, with the same answers; for the other task only with a new head
    loaded.save_pretrained(tmp_path / "trained")
    again = model.pretrained(tmp_path / "trained", "m", TASKS[task], new_head=False).eval()
    assert torch.allclose(model.forward(again, batch), logits, atol=1e-6)
    other = TASKS["qa" if task == "token" else "token"]
    with pytest.raises(CheckpointError, match="head for another task"):
        model.pretrained(tmp_path / "trained", "m", other, new_head=False)
    model.pretrained(tmp_path / "trained", "m", other, new_head=True)


def test_large_features_are_mapped_from_a_file(tokeniser, tmp_path, monkeypatch):
    monkeypatch.setenv("DLTOOL_HOME", str(tmp_path))
    network = network_of("bert", "token", tokeniser)
    encoded = {"train": tokeniser.encode(TEXTS[:20])}
    small = frozen.compute(network, encoded, 0, Console("t"))["train"].vectors
    monkeypatch.setattr(frozen, "IN_MEMORY", 0)
    large = frozen.compute(network, encoded, 0, Console("t"))["train"].vectors
    assert torch.equal(small, large)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_head_that_cannot_be_fed_alone_is_trained_with_its_encoder(tokeniser, capsys):
    network = network_of("bert", "classify", tokeniser)
    plain = network.classifier.forward
    network.classifier.forward = lambda pooled: plain(pooled)
    forward = network.forward

    def own(input_ids, attention_mask):  # takes no embeddings
        return forward(input_ids, attention_mask)

    network.forward = own
    encoded = {"train": tokeniser.encode(TEXTS[:20])}
    assert frozen.compute(network, encoded, 0, Console("t")) is None
    assert "runs in every epoch" in capsys.readouterr().err


def test_a_frozen_run_is_resumed_exactly_and_keeps_its_encoder(here, capsys):
    def run(*words, code=0):
        capsys.readouterr()
        got = cli.run(["bert-finetune", *map(str, words)])
        shown = capsys.readouterr()
        assert got == code, shown
        return shown

    rows = "".join(f"{text},{label}\n" for text, label in zip(TEXTS, LABELS, strict=True))
    (here / "a.csv").write_text("text,label\n" + rows, encoding="utf-8")
    quick = ("--threads", "1", "--data", "a.csv")
    run("train", *quick, "--epochs", "1", "--out", "base")
    frozen_run = ("train", *quick, "--model", "base", "--freeze", "encoder", "--epochs", "3")
    shown = run(*frozen_run, "--out", "a")
    assert "runs once, without dropout" in shown.err
    run(*frozen_run, "--out", "b", "--max-time", "0.001s")
    run("train", "--resume", "b", "--max-time", "10m")
    one, two = (load_file(here / name / "model" / "model.safetensors") for name in "ab")
    base = load_file(here / "base" / "model" / "model.safetensors")
    assert all(torch.equal(one[name], two[name]) for name in one)
    moved = {name for name in one if not torch.equal(one[name], base[name])}
    assert moved == {name for name in one if model.is_head(name)}
    # the test is that of the whole network
    result = json.loads((here / "a" / "run.json").read_text(encoding="utf-8"))["result"]
    evaluated = json.loads(run("evaluate", "a", "--json").out)["data"]
    assert evaluated["accuracy"] == result["test"]["accuracy"]
    assert "E205" in run(*frozen_run, "--gradient-checkpointing", code=2).err
