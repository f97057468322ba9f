"""Pre-training: each silent mistake of the usual data pipeline has a test that would find it."""

import json
import signal
from types import SimpleNamespace

import pytest
import torch
from dltool_bert_finetune import pretrain, tokens
from dltool_bert_finetune import pretrain_data as masked
from dltool_bert_finetune.pretrain_config import PretrainConfig
from dltool_bert_finetune.pretrain_data import IGNORED, MaskedPairs, Special

from dltool import cli

transformers = pytest.importorskip("transformers")

SPECIAL = Special(pad=0, first=2, separator=3, mask=4, reserved=frozenset(range(5)), size=1000)
CPU = torch.device("cpu")


def documents(count=12, sentences=6, length=5):
    """Documents of tokens that tell where they stand: 5 + document * 50 + sentence * 8 + i."""
    return [
        [[5 + d * 50 + s * 8 + i for i in range(length)] for s in range(sentences)]
        for d in range(count)
    ]


def source(found=None, *, paired=True, fixed=False, starts=None, **changes):
    config = PretrainConfig(**{"max_length": 40, "batch_size": 4, **changes})
    starts = torch.ones(SPECIAL.size, dtype=torch.bool) if starts is None else starts
    return MaskedPairs(
        found if found is not None else documents(), SPECIAL, config, paired, starts, CPU, fixed
    )


def whole(example):
    """The tokens before they were hidden."""
    return [
        label if label != IGNORED else token
        for token, label in zip(example["ids"], example["labels"], strict=True)
    ]


def parts(example):
    ids = whole(example)
    cut = ids.index(SPECIAL.separator)
    return ids[1:cut], ids[cut + 1 : -1]


def examples(made, epochs=6):
    return [
        made.example(number, epoch)
        for epoch in range(epochs)
        for number in range(len(made._chunks))
    ]


# ---- the mistakes ---------------------------------------------------------------------------


def test_labels_of_positions_that_are_not_hidden_do_not_move_the_loss():
    torch.manual_seed(0)
    network = tiny()
    batch = next(source().batches(0))
    words, follows = pretrain.answers(network, batch)
    loss = pretrain.loss_of(words, follows, batch, paired=False)
    # by hand: the mean over the hidden positions alone, from the logits of all positions
    plain = network(**{k: batch[k] for k in ("input_ids", "attention_mask", "token_type_ids")})
    each = torch.nn.functional.cross_entropy(
        plain.prediction_logits.detach().transpose(1, 2),
        batch["labels"].clamp_min(0),
        reduction="none",
    )
    weights = (batch["labels"] != IGNORED).float()
    assert loss.item() == pytest.approx(float((each * weights).sum() / weights.sum()), rel=1e-5)
    assert loss.item() != pytest.approx(float((each * weights).mean()), rel=0.5)
    hidden = int(weights.sum())
    assert words.shape == (hidden, SPECIAL.size)


def test_no_document_is_in_two_splits():
    texts = [f"Document {number}. It has two sentences." for number in range(100)]
    found = masked.split(texts, PretrainConfig())
    assert sorted(text for part in found.values() for text in part) == sorted(texts)
    assert {name: len(part) for name, part in found.items()} == {"val": 5, "test": 5, "train": 90}


def test_a_negative_comes_from_another_document_and_a_positive_follows():
    seen = {0: 0, 1: 0}
    for example in examples(source()):
        first, second = parts(example)
        own, other = {(t - 5) // 50 for t in first}, {(t - 5) // 50 for t in second}
        assert len(own) == len(other) == 1
        follows = example["follows"][0]
        assert (own == other) is bool(follows)
        if follows:
            flat = [token for s in documents()[own.pop()] for token in s]
            start = flat.index(first[0])
            assert flat[start : start + len(first) + len(second)] == first + second
        seen[follows] += 1
    assert 0.35 < seen[1] / sum(seen.values()) < 0.65


def test_the_tokens_put_in_place_are_words():
    swapped = kept = mask = 0
    for example in examples(source(), epochs=40):
        for token, label in zip(example["ids"], example["labels"], strict=True):
            if label == IGNORED:
                continue
            assert label not in SPECIAL.reserved
            mask += token == SPECIAL.mask
            kept += token == label
            swapped += token not in (SPECIAL.mask, label)
            assert token == SPECIAL.mask or token not in SPECIAL.reserved
    total = mask + kept + swapped
    assert total > 1500
    assert mask / total == pytest.approx(0.8, abs=0.03)
    assert kept / total == pytest.approx(0.1, abs=0.03)
    assert swapped / total == pytest.approx(0.1, abs=0.03)


def test_masks_and_pairs_differ_between_epochs_and_not_between_runs():
    made, again = source(), source()
    assert made.example(0, 0) == again.example(0, 0)
    assert len({tuple(made.example(0, epoch)["labels"]) for epoch in range(5)}) > 3
    val = source(fixed=True)
    first, later = next(val.batches(0)), next(val.batches(7))
    assert all(torch.equal(first[name], later[name]) for name in first)


def test_positions_and_every_other_weight_learn():
    torch.manual_seed(0)
    network = tiny()
    batch = next(source().batches(0))
    words, follows = pretrain.answers(network, batch)
    pretrain.loss_of(words, follows, batch, paired=True).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    used = network.bert.embeddings.position_embeddings.weight.grad.abs().sum(1) > 0
    assert int(used.sum()) == batch["input_ids"].shape[1]


# ---- the rest of the data -------------------------------------------------------------------


def test_inputs_are_not_longer_than_allowed_and_a_share_is_hidden():
    long = documents(4, 3, 8) + [[list(range(300, 400)), list(range(400, 500))]] * 2
    for example in examples(source(long, max_length=24)):
        ids = example["ids"]
        assert len(ids) == len(example["segments"]) == len(example["labels"]) <= 24
        assert ids[0] == SPECIAL.first
        words = len(ids) - 3
        hidden = sum(label != IGNORED for label in example["labels"])
        assert hidden == max(1, round(0.15 * words))
        first, second = parts(example)
        assert first
        assert second
        assert sum(example["segments"]) == len(second) + 1


def test_whole_words_are_hidden_together():
    starts = torch.arange(SPECIAL.size) % 2 == 1  # odd tokens begin a word, even ones go on
    found = [
        [[5 + 2 * i + k for i in range(5) for k in (0, 1)] for _ in range(4)] for _ in range(5)
    ]
    for example in examples(source(found, whole_word=True, starts=starts)):
        ids = whole(example)
        for place, token in enumerate(ids):
            if token >= 5 and token % 2 == 0 and ids[place - 1] == token - 1:
                both = example["labels"][place - 1 : place + 1]
                assert (both[0] == IGNORED) == (both[1] == IGNORED)


def test_a_batch_depends_on_seed_epoch_and_position_alone():
    whole_epoch, rest = list(source().batches(3)), list(source().batches(3, start=2))
    assert len(whole_epoch) == len(source())
    for left, right in zip(whole_epoch[2:], rest, strict=True):
        assert all(torch.equal(left[name], right[name]) for name in left)


def test_sentences_end_where_they_should():
    text = 'He came. "Did he?" she asked! Yes…\nA new line'
    assert masked.sentences(text) == ["He came.", '"Did he?"', "she asked!", "Yes…", "A new line"]


def tiny():
    return transformers.BertForPreTraining(
        transformers.BertConfig(
            vocab_size=SPECIAL.size,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=40,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )


def test_measures_count_every_hidden_word_once():
    torch.manual_seed(0)
    network, made = tiny(), source(fixed=True)
    found = pretrain.measure(network, made, paired=True)
    network.eval()
    losses = []
    for batch in made.batches(0):
        with torch.no_grad():
            words, _ = pretrain.answers(network, batch)
        labels = batch["labels"][batch["labels"] != IGNORED]
        losses += torch.nn.functional.cross_entropy(words, labels, reduction="none").tolist()
    assert found["mlm_loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert (len(losses), 12) == pretrain._counted(made)
    assert network.training is False


def test_the_baseline_is_the_entropy_of_the_words():
    even = [[[5, 6, 7, 8] * 25]] * 4
    split = SimpleNamespace(batches=lambda epoch: [{"labels": torch.tensor([[5, 6, IGNORED]])}])
    found = pretrain.baseline(even, split, 9)
    # counts of 100 plus one for each of 9 words
    assert found["loss"] == pytest.approx(-torch.tensor(101 / 409).log().item())


# ---- the command ----------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a command line in this process; return (stdout, stderr) after checking the exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DLTOOL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DLTOOL_OFFLINE", "1")
    before = signal.getsignal(signal.SIGTERM)

    def call(*arguments, code=0):
        capsys.readouterr()
        got = cli.run(["bert-finetune", *map(str, arguments)])
        shown = capsys.readouterr()
        assert got == code, shown
        assert "Traceback" not in shown.err
        return shown

    yield call
    signal.signal(signal.SIGTERM, before)


QUICK = ("--threads", "1", "--max-length", "32", "--vocabulary", "300", "--batch-size", "16")


def test_what_is_pre_trained_is_taken_by_train_and_resumed_exactly(run, tmp_path):
    lines = [f"The number {n} is here. It follows {n - 1}. Then comes {n + 1}." for n in range(60)]
    (tmp_path / "text.txt").write_text("\n".join(lines), encoding="utf-8")
    common = ("pretrain", "--data", "text.txt", *QUICK, "--epochs", "3")
    result = json.loads(run(*common, "--out", "a", "--json").out)["data"]
    assert result["mlm_accuracy"]["n"] > 0
    assert result["nsp_accuracy"]["baseline"] == 0.5
    assert result["perplexity"] > 1
    stopped = run(*common, "--out", "b", "--max-time", "0.001s")
    assert "stopped" in stopped.out
    shown = run("train", "--resume", "b", code=2)
    assert "Cure: dltool bert-finetune pretrain --resume b" in shown.err
    assert "dltool bert-finetune pretrain --resume b" in stopped.out + stopped.err
    assert cli.run(["resume", "b", "--max-time", "10m"]) == 0
    one, two = ((tmp_path / name / "model" / "model.safetensors").read_bytes() for name in "ab")
    assert one == two
    loaded = transformers.AutoModelForPreTraining.from_pretrained("a/model")
    assert loaded.cls.predictions.decoder.weight is loaded.bert.embeddings.word_embeddings.weight
    shown = run("predict", "a", "text", code=5)
    assert "train --model" in shown.err
    run("train", "--model", "a", "--max-train", "60", "--epochs", "1", "--threads", "1")
    run("similarity", "a", "the number", "it follows")
    more = run("pretrain", "--data", "text.txt", "--model", "a", *QUICK, "--epochs", "1")
    assert "hidden words right" in more.out


def test_too_little_text_is_one_line(run, tmp_path):
    (tmp_path / "few.txt").write_text("One. Two.\nThree. Four.\n", encoding="utf-8")
    shown = run("pretrain", "--data", "few.txt", *QUICK, code=5)
    assert "2 documents are too few" in shown.err
    (tmp_path / "words.txt").write_text("\n".join(map(str, range(50))), encoding="utf-8")
    shown = run("pretrain", "--data", "words.txt", *QUICK, code=5)
    assert "--no-next-sentence" in shown.err
    assert tokens.SPECIALS[4] == "[MASK]"
